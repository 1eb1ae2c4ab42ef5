//! The counters as Prometheus reads them (text format 0.0.4). Labels are bounded: names of upstreams, statuses, the
//! failure table; never a team, a model or a path. Keys, whose names may be people's, are named on the admin listener
//! only. `docs/metrics.md` lists every name, and a test compares.

mod attempts;

use super::{names::Names, used::Used};
use crate::{
    base::{Counts, Mono, UpstreamSlot, Wall, failure::TABLE},
    table::{Table, live::Live},
    telemetry::{Counter, Counters, Handshake, Histogram, Telemetry, UpstreamCounters, counters::UPSTREAMS_MAX},
    upstream::Health,
};
use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
};

/// What `/metrics` shows, at one moment.
pub struct Scene<'a> {
    /// The counters.
    pub telemetry: &'a Telemetry,
    /// For the upstreams' names.
    pub table: &'a Table,
    /// For what is known about them.
    pub live: &'a Live,
    /// For how they stand.
    pub health: &'a Health,
    /// For the names of what was counted.
    pub names: &'a Names,
    /// For what keys have used; `None` where keys are not named.
    pub used: Option<&'a Used>,
    /// For what is left of the certificates.
    pub now: Wall,
    /// The same moment on the clock that is measured by.
    pub mono: Mono,
    /// Whether `/readyz` says yes.
    pub ready: bool,
    /// Whether the configuration that was read last is in force.
    pub config_ok: bool,
    /// Resident memory in bytes, where the system tells.
    pub resident_bytes: Option<u64>,
}

impl Scene<'_> {
    /// The whole page.
    pub fn render(&self) -> String {
        let mut page = Page(String::with_capacity(16 * 1024));
        self.process(&mut page);
        self.exchanges(&mut page);
        self.tls(&mut page);
        self.upstreams(&mut page);
        self.attempts(&mut page);
        self.times(&mut page);
        self.keys(&mut page);
        page.0
    }

    fn process(&self, page: &mut Page) {
        let telemetry = self.telemetry;
        page.family("forebay_build_info", "gauge", "Always 1; the label tells the version.");
        page.sample("forebay_build_info", &[("version", &telemetry.version)], 1);
        page.family("forebay_start_time_seconds", "gauge", "When the process began, since 1970.");
        page.sample("forebay_start_time_seconds", &[], telemetry.started.0 as f64 / 1e3);
        page.family("forebay_ready", "gauge", "1 when /readyz says yes.");
        page.sample("forebay_ready", &[], u8::from(self.ready));
        page.family("forebay_table_generation", "gauge", "Which configuration is in force, counted from 1.");
        page.sample("forebay_table_generation", &[], self.table.generation);
        page.family(
            "forebay_config_ok",
            "gauge",
            "0 while the configuration's files are wrong and an older one is in force.",
        );
        page.sample("forebay_config_ok", &[], u8::from(self.config_ok));
        page.family("forebay_workers", "gauge", "Workers, one per core.");
        page.sample("forebay_workers", &[], telemetry.cores.len());
        page.family("forebay_workers_listening", "gauge", "Workers that accept connections.");
        page.sample("forebay_workers_listening", &[], telemetry.cores.iter().filter(|core| core.listening()).count());
        let mut drivers = BTreeMap::<&str, usize>::new();
        for driver in telemetry.cores.iter().filter_map(|core| core.driver()) {
            *drivers.entry(driver.kind).or_default() += 1;
        }
        page.family("forebay_driver", "gauge", "Workers by the way in which they talk to the kernel.");
        for (kind, workers) in drivers {
            page.sample("forebay_driver", &[("kind", &kind)], workers);
        }
        let panics = self.sum(|c| &c.panics) + telemetry.panics.get();
        page.counter("forebay_panics_total", "Panics, each contained in one task.", panics);
        page.family("forebay_log_lines_lost_total", "counter", "Access log lines lost: `queue`, a core was faster than the log; `output`, standard output did not take them.");
        page.sample("forebay_log_lines_lost_total", &[("at", &"queue")], self.sum(|c| &c.records_lost));
        page.sample("forebay_log_lines_lost_total", &[("at", &"output")], telemetry.lines_lost.get());
        if let Some(bytes) = self.resident_bytes {
            page.family("process_resident_memory_bytes", "gauge", "Resident memory.");
            page.sample("process_resident_memory_bytes", &[], bytes);
        }
    }

    fn exchanges(&self, page: &mut Page) {
        let level = |pick: fn(&Counters) -> i64| self.telemetry.level(pick);
        let idle = level(|c| c.idle.get());
        page.gauge("forebay_idle_upstream_connections", "Upstream connections that wait in the pools.", idle);
        page.counter("forebay_connections_total", "Client connections accepted.", self.sum(|c| &c.accepted));
        page.counter(
            "forebay_connections_handed_over_total",
            "Client connections that a busy core handed on.",
            self.sum(|c| &c.handed_over),
        );
        page.family("forebay_worker_connections", "gauge", "Client connections open, by core.");
        for (worker, core) in self.telemetry.cores.iter().enumerate() {
            page.sample(
                "forebay_worker_connections",
                &[("worker", &worker.to_string())],
                core.counters.connections.get(),
            );
        }
        page.family("forebay_worker_streams", "gauge", "Answers that are streaming, by core.");
        for (worker, core) in self.telemetry.cores.iter().enumerate() {
            page.sample("forebay_worker_streams", &[("worker", &worker.to_string())], core.counters.streams.get());
        }
        page.gauge("forebay_connections", "Client connections open.", level(|c| c.connections.get()));
        page.gauge("forebay_exchanges_in_flight", "Exchanges in flight.", level(|c| c.exchanges.get()));
        page.gauge("forebay_streams", "Answers that are streaming.", level(|c| c.streams.get()));
        page.gauge("forebay_bodies_held_bytes", "Request bodies held in memory.", level(|c| c.bodies_bytes.get()));
        page.counter(
            "forebay_received_bytes_total",
            "Bytes of request bodies received, of exchanges that ended.",
            self.sum(|c| &c.bytes_in),
        );
        page.counter(
            "forebay_sent_bytes_total",
            "Bytes of answer bodies sent, of exchanges that ended.",
            self.sum(|c| &c.bytes_out),
        );
        page.counter("forebay_events_total", "SSE events passed on, of exchanges that ended.", self.sum(|c| &c.events));
        page.family(
            "forebay_exchanges_total",
            "counter",
            "Exchanges that ended, by the status that the client got; 499: it left before one.",
        );
        for status in 100..600_u16 {
            let count = self.telemetry.sum(|c| c.status(status).get());
            if count > 0 {
                page.sample("forebay_exchanges_total", &[("status", &status)], count);
            }
        }
        page.family("forebay_failures_total", "counter", "Exchanges that failed, by who caused it and why.");
        for row in TABLE {
            let count = self.telemetry.sum(|c| c.failures(row.kind).get());
            page.sample("forebay_failures_total", &[("origin", &row.origin.slug()), ("reason", &row.reason)], count);
        }
        let other = self.telemetry.sum(|c| c.other_failures().get());
        page.sample("forebay_failures_total", &[("origin", &"other"), ("reason", &"other")], other);
    }

    fn tls(&self, page: &mut Page) {
        page.family("forebay_tls_handshakes_total", "counter", "Handshakes with clients, by how they came out.");
        for outcome in Handshake::ALL {
            let count = self.telemetry.sum(|c| c.handshakes(outcome).get());
            page.sample("forebay_tls_handshakes_total", &[("outcome", &outcome.slug())], count);
        }
        let fronts = || self.table.listeners.iter().zip(&self.live.fronts).filter_map(|(l, f)| Some((l, f.as_ref()?)));
        page.family("forebay_tls_certificate_days_left", "gauge", "Days until the certificate that is shown ends.");
        for (listener, front) in fronts() {
            let days = front.identity.certificate.days_left(self.now);
            page.sample("forebay_tls_certificate_days_left", &[("listener", &listener.address)], days);
        }
        page.family("forebay_tls_certificate_stale", "gauge", "1 while the certificate's files cannot be used.");
        for (listener, front) in fronts() {
            let stale = u8::from(front.fault.is_some());
            page.sample("forebay_tls_certificate_stale", &[("listener", &listener.address)], stale);
        }
    }

    fn upstreams(&self, page: &mut Page) {
        let rows = self.upstream_rows();
        page.family(
            "forebay_upstream_answers_total",
            "counter",
            "Exchanges that ended at the upstream, by the class of the status that the client got.",
        );
        for row in &rows {
            for (at, class) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().enumerate() {
                let count = |slot: &UpstreamSlot| {
                    self.telemetry.sum(|c| c.upstream(*slot).answers.get(at).map_or(0, Counter::get))
                };
                let count: u64 = row.counted.iter().map(count).sum();
                page.sample("forebay_upstream_answers_total", &[("upstream", &row.name), ("class", class)], count);
            }
        }
        let columns: [Column; 6] = [
            (
                "forebay_upstream_failures_total",
                "counter",
                "Exchanges that the upstream, or the way to it, made fail.",
                |u| u.failures.get().cast_signed(),
            ),
            ("forebay_upstream_connects_total", "counter", "Connections opened.", |u| u.connects.get().cast_signed()),
            ("forebay_upstream_connect_failures_total", "counter", "Connections that could not be opened.", |u| {
                u.connect_failures.get().cast_signed()
            }),
            (
                "forebay_upstream_reuses_total",
                "counter",
                "Requests sent on a connection that had served before.",
                |u| u.reuses.get().cast_signed(),
            ),
            (
                "forebay_upstream_replays_total",
                "counter",
                "Requests sent again because a reused connection was closed.",
                |u| u.replays.get().cast_signed(),
            ),
            ("forebay_upstream_probes_total", "counter", "Requests sent there although it was doubtful.", |u| {
                u.probes.get().cast_signed()
            }),
        ];
        for (family, kind, help, pick) in columns {
            page.family(family, kind, help);
            for row in &rows {
                let count =
                    row.counted.iter().map(|slot| self.telemetry.level(|c| pick(c.upstream(*slot)))).sum::<i64>();
                page.sample(family, &[("upstream", &row.name)], count);
            }
        }
        page.family("forebay_upstream_addresses", "gauge", "Addresses known for the upstream's name.");
        for row in &rows {
            let addresses: usize = row.now.iter().map(|slot| self.live.addresses_of(*slot).len()).sum();
            page.sample("forebay_upstream_addresses", &[("upstream", &row.name)], addresses);
        }
        page.family("forebay_upstream_models", "gauge", "Models that the upstream lists.");
        for row in &rows {
            let models = row.now.iter().filter_map(|slot| self.live.models_of(*slot));
            page.sample(
                "forebay_upstream_models",
                &[("upstream", &row.name)],
                models.map(|l| l.models.len()).sum::<usize>(),
            );
        }
    }

    /// The upstreams of the table, each with what was counted under its name wherever it was. What has no place of its
    /// own among the counters is told together.
    fn upstream_rows(&self) -> Vec<Row<'_>> {
        let has_own = |slot: &UpstreamSlot| slot.index() + 1 < UPSTREAMS_MAX;
        let mut rows: Vec<Row<'_>> = Vec::new();
        let mut others = Vec::new();
        for (slot, upstream) in self.table.upstream_slots() {
            let past = self.table.upstream_slots_named(&upstream.name);
            if past.iter().any(|slot| !has_own(slot)) {
                others.push(slot);
            }
            let counted: Vec<UpstreamSlot> = past.into_iter().filter(has_own).collect();
            if !counted.is_empty() {
                rows.push(Row { name: &upstream.name, counted, now: vec![slot] });
            }
        }
        if !others.is_empty() {
            others.retain(|slot| !has_own(slot));
            rows.push(Row { name: "other", counted: vec![UpstreamSlot(UPSTREAMS_MAX as u32 - 1)], now: others });
        }
        rows
    }

    fn keys(&self, page: &mut Page) {
        let Some(used) = self.used else { return };
        let family = "forebay_key_llm_tokens_total";
        page.family(
            family,
            "counter",
            "What a key's answers used, in tokens as models count them, by how it is billed.",
        );
        for (key, counts) in used.keys() {
            let Counts { input, output, cache_read, cache_write_5m, cache_write_1h } = *counts;
            let write = cache_write_5m.saturating_add(cache_write_1h);
            let kinds = [("input", input), ("cache_read", cache_read), ("cache_write", write), ("output", output)];
            for (kind, count) in kinds {
                page.sample(family, &[("key", &key), ("kind", &kind)], count);
            }
        }
    }

    fn times(&self, page: &mut Page) {
        // The powers of two, in microseconds, between which the histogram is shown.
        let shown: [Shown; 5] = [
            (
                "forebay_overhead_seconds",
                "forebay's own part of an exchange: without waiting for the client or the upstream.",
                4..=20,
                |c| &c.overhead,
            ),
            ("forebay_body_read_seconds", "Until the whole request was read.", 6..=26, |c| &c.body_read),
            ("forebay_first_byte_seconds", "From the request until the first byte of the answer.", 10..=29, |c| {
                &c.first_byte
            }),
            ("forebay_held_seconds", "From the head of an answer until it was committed to its client.", 4..=21, |c| {
                &c.held
            }),
            ("forebay_duration_seconds", "From the request until the end of the answer.", 10..=31, |c| &c.duration),
        ];
        for (family, help, powers, pick) in shown {
            let whole = self.telemetry.merge(pick);
            page.family(family, "histogram", help);
            let (bucket, mut count) = (format!("{family}_bucket"), 0);
            for power in powers {
                count = whole.below(power);
                page.sample(&bucket, &[("le", &((1_u64 << power) as f64 / 1e6))], count);
            }
            let all = whole.count().max(count);
            page.sample(&bucket, &[("le", &"+Inf")], all);
            page.sample(&format!("{family}_sum"), &[], whole.sum_us as f64 / 1e6);
            page.sample(&format!("{family}_count"), &[], all);
        }
    }

    fn sum(&self, pick: fn(&Counters) -> &Counter) -> u64 {
        self.telemetry.sum(|counters| pick(counters).get())
    }
}

/// One value of the label `upstream`.
struct Row<'a> {
    name: &'a str,
    /// The slots whose counters are its.
    counted: Vec<UpstreamSlot>,
    /// The slots that it has now.
    now: Vec<UpstreamSlot>,
}

type Column = (&'static str, &'static str, &'static str, fn(&UpstreamCounters) -> i64);
type Shown = (&'static str, &'static str, std::ops::RangeInclusive<u32>, fn(&Counters) -> &Histogram);

/// The text so far. Writing into a `String` cannot fail.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let value = value.to_string().replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

/// Resident memory, as Linux tells it.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Kind, Origin, Wall},
        control::{
            resolve,
            tests::{table, upstream},
        },
        telemetry::{Record, RequestId},
    };
    use std::collections::BTreeSet;

    fn page() -> String {
        let mut used = Used::default();
        let mut record = Record::new(Wall(0), RequestId::new(Wall(0), 0), 0);
        record.caller = Some("key-of-carol".into());
        record.counts = Counts { cache_read: 90, cache_write_5m: 1, cache_write_1h: 2, ..Counts::default() };
        used.add(&record);
        rendered(Some(&used))
    }

    fn rendered(used: Option<&Used>) -> String {
        let telemetry = Telemetry::new(2, Wall(1_500), "1.2.3");
        telemetry.cores[0].set_driver("io_uring", "");
        telemetry.cores[1].set_driver("epoll", "");
        let mut record = Record::new(Wall(0), RequestId::new(Wall(0), 0), 0);
        record.status = 504;
        record.origin = Some(Origin::Upstream);
        record.reason = Kind::HeadTimeout.row().reason;
        record.upstream_slot = Some(UpstreamSlot(0));
        record.caller = Some("alice-key".into());
        record.overhead_us = 100;
        telemetry.cores[0].finish(record.clone());
        telemetry.cores[1].finish(record);
        let table = table(vec![upstream("say \"hi\"\\\n", "127.0.0.1", 80)]);
        let live = resolve::literals(&table, Wall(0));
        let health = Health::default().grown_for(&table);
        let names = Names::default().and(&table);
        Scene {
            telemetry: &telemetry,
            table: &table,
            live: &live,
            health: &health,
            names: &names,
            used,
            now: Wall(0),
            mono: Mono(0),
            ready: true,
            config_ok: true,
            resident_bytes: Some(4096),
        }
        .render()
    }

    #[test]
    fn counts_are_summed_over_the_cores() {
        let page = page();
        for line in [
            "forebay_build_info{version=\"1.2.3\"} 1",
            "forebay_start_time_seconds 1.5",
            "forebay_driver{kind=\"epoll\"} 1",
            "forebay_exchanges_total{status=\"504\"} 2",
            "forebay_failures_total{origin=\"upstream\",reason=\"first_byte_timeout\"} 2",
            "forebay_upstream_answers_total{upstream=\"say \\\"hi\\\"\\\\\\n\",class=\"5xx\"} 2",
            "forebay_overhead_seconds_bucket{le=\"0.000064\"} 0",
            "forebay_overhead_seconds_bucket{le=\"0.000128\"} 2",
            "forebay_overhead_seconds_bucket{le=\"+Inf\"} 2",
            "forebay_overhead_seconds_sum 0.0002",
            "forebay_overhead_seconds_count 2",
            "process_resident_memory_bytes 4096",
            "forebay_key_llm_tokens_total{key=\"key-of-carol\",kind=\"cache_read\"} 90",
            "forebay_key_llm_tokens_total{key=\"key-of-carol\",kind=\"cache_write\"} 3",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn every_line_is_well_formed_and_no_key_is_named() {
        let page = page();
        let without = rendered(None);
        assert!(!without.contains("key-of-") && !without.contains("alice"), "not on the listener that others reach");
        let mut families = BTreeSet::new();
        for line in page.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ").and_then(|l| l.split(' ').next()) {
                assert!(families.insert(name.to_owned()), "{name} twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = series.split('{').next().unwrap();
                let known = |n: &str| families.contains(n);
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                assert!(known(name) || base.is_some_and(known), "{line} has no TYPE");
            }
        }
    }

    #[test]
    fn the_manual_lists_every_metric_and_no_other() {
        let manual = include_str!("../../docs/metrics.md");
        let listed: BTreeSet<&str> = manual
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| line.split(['`', '{']).next())
            .collect();
        let page = page();
        let shown: BTreeSet<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|l| l.split(' ').next()).collect();
        assert_eq!(listed, shown);
    }

    #[test]
    fn the_system_tells_the_resident_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
