//! What the metrics say of choosing and failing over: attempts by credential and verdict, how upstreams and credentials
//! stand, and what became of answers that failed.

use super::{Page, Scene};
use crate::{
    base::CredentialSlot,
    telemetry::{Counters, Late, counters::CREDENTIALS_MAX},
    upstream::{CredentialState, Standing},
};
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

/// The last place among the counters, which all that have none of their own share.
const SHARED: CredentialSlot = CredentialSlot(CREDENTIALS_MAX as u32 - 1);

/// A gauge of a credential.
type Level = (&'static str, &'static str, fn(&CredentialState, crate::base::Mono) -> u64);

impl Scene<'_> {
    pub(super) fn attempts(&self, page: &mut Page) {
        self.verdicts(page);
        page.family(
            "forebay_upstream_standing",
            "gauge",
            "0: it works; 1: it comes back, or is probed; 2: left alone.",
        );
        for (slot, upstream) in self.table.upstream_slots() {
            let Some(state) = self.health.upstream(slot) else { continue };
            let standing = match state.breaker.standing(self.mono) {
                Standing::Closed => 0,
                Standing::Slow(_) | Standing::Probe => 1,
                Standing::Open { .. } => 2,
            };
            page.sample("forebay_upstream_standing", &[("upstream", &upstream.name)], standing);
        }
        page.family("forebay_upstream_ejections_total", "counter", "Times that the upstream was left alone.");
        for (_, upstream) in self.table.upstream_slots() {
            let slots = self.table.upstream_slots_named(&upstream.name);
            let states = slots.into_iter().filter_map(|slot| self.health.upstream(slot));
            let ejections = states.map(|state| u64::from(state.breaker.shown(self.mono).ejections_total)).sum::<u64>();
            page.sample("forebay_upstream_ejections_total", &[("upstream", &upstream.name)], ejections);
        }
        page.family("forebay_upstream_drained", "gauge", "1 while the operator has taken the upstream out.");
        for (slot, upstream) in self.table.upstream_slots() {
            let drained = self.health.upstream(slot).is_some_and(|state| state.drained.until(self.mono).is_some());
            page.sample("forebay_upstream_drained", &[("upstream", &upstream.name)], u8::from(drained));
        }
        self.credentials(page);
        self.answers(page);
    }

    fn verdicts(&self, page: &mut Page) {
        let family = "forebay_attempts_total";
        page.family(family, "counter", "Requests that were sent to a candidate, by what came of it.");
        let mut others = BTreeMap::<&str, u64>::new();
        self.add_attempts(SHARED, &mut others);
        for (_, upstream, place) in self.table.credential_slots() {
            let Some(upstream) = self.table.upstream(upstream) else { continue };
            let credential = upstream.credentials.get(place).map_or("", |credential| &credential.name);
            let mut verdicts = BTreeMap::new();
            for slot in self.names.credential_slots(&upstream.name, credential).filter(|slot| *slot < SHARED) {
                self.add_attempts(slot, &mut verdicts);
            }
            for (verdict, count) in verdicts {
                let labels: [(&str, &dyn std::fmt::Display); 3] =
                    [("upstream", &upstream.name), ("credential", &credential), ("verdict", &verdict)];
                page.sample(family, &labels, count);
            }
        }
        for (verdict, count) in others {
            page.sample(family, &[("upstream", &"other"), ("credential", &"other"), ("verdict", &verdict)], count);
        }
    }

    /// Adds up what came of the attempts under one slot, over all cores.
    fn add_attempts(&self, slot: CredentialSlot, verdicts: &mut BTreeMap<&'static str, u64>) {
        for core in &self.telemetry.cores {
            for (verdict, count) in core.counters.attempts(slot) {
                *verdicts.entry(verdict).or_default() += count;
            }
        }
    }

    fn credentials(&self, page: &mut Page) {
        let levels: [Level; 3] = [
            (
                "forebay_credential_refused",
                "1 while the credential is left alone because it was refused.",
                |state, now| u64::from(state.refused.until(now).is_some()),
            ),
            ("forebay_credential_drained", "1 while the operator has taken the credential out.", |state, now| {
                u64::from(state.drained.until(now).is_some())
            }),
            (
                "forebay_credential_in_flight",
                "Requests that have been sent with it and whose answers go on.",
                |state, _| state.in_flight.load(Relaxed),
            ),
        ];
        for (family, help, pick) in levels {
            page.family(family, "gauge", help);
            for (slot, upstream, place) in self.table.credential_slots() {
                let (Some(state), Some(upstream)) = (self.health.credential(slot), self.table.upstream(upstream))
                else {
                    continue;
                };
                let credential = upstream.credentials.get(place).map_or("", |credential| &credential.name);
                let labels: [(&str, &dyn std::fmt::Display); 2] =
                    [("upstream", &upstream.name), ("credential", &credential)];
                page.sample(family, &labels, pick(state, self.mono));
            }
        }
    }

    fn answers(&self, page: &mut Page) {
        page.family("forebay_failovers_total", "counter", "Exchanges for which more than one candidate was asked.");
        let (saved, lost) = (self.sum(|c| &c.failovers_saved), self.sum(|c| &c.failovers_lost));
        page.sample("forebay_failovers_total", &[("outcome", &"saved")], saved);
        page.sample("forebay_failovers_total", &[("outcome", &"lost")], lost);
        page.counter("forebay_commits_total", "Answers that were committed to a client.", self.sum(|c| &c.commits));
        page.family(
            "forebay_late_failures_total",
            "counter",
            "Answers that failed after they had begun, by how their client learnt of it.",
        );
        for told in Late::ALL {
            let count = self.telemetry.sum(|c: &Counters| c.late(told).get());
            page.sample("forebay_late_failures_total", &[("told", &told.slug())], count);
        }
        page.counter("forebay_pings_total", "Pings of forebay's own in silent streams.", self.sum(|c| &c.pings));
        page.counter(
            "forebay_thinking_dropped_total",
            "Thinking blocks left out because another family's signature is on them.",
            self.sum(|c| &c.thinking_dropped),
        );
        page.counter(
            "forebay_conversations_moved_total",
            "Conversations that went to another credential than the one that has their cache.",
            self.sum(|c| &c.moved),
        );
        page.counter(
            "forebay_conversations_moved_llm_tokens_total",
            "About how much cached input that made new, in tokens as models count them.",
            self.sum(|c| &c.moved_llm_tokens),
        );
    }
}
