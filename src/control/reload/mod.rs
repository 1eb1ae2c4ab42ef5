//! Another configuration comes into force while requests are in flight. Whoever asks for it (a file that changed,
//! SIGHUP, the admin listener) comes through `Control::reload`, one at a time; what is wrong is told and changes
//! nothing. Exchanges keep the table that they began under; everything that goes by slot stays right, because a slot
//! belongs to one name, and an upstream's to one place, for good.

pub mod pages;
mod places;
pub mod watch;

use super::{Control, certificates, resolve};
use crate::{
    base::Wall,
    config::{Source, Trace},
    net::{TlsBySlot, tls},
    rt::ring::wall,
    table::{
        Table,
        meaning::{Change, FingerprintKey, differences},
    },
};
use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use std::{
    collections::VecDeque,
    fmt::Write,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, Notify},
};

/// Reloads that `/table/history` tells.
const HISTORY_MAX: usize = 20;
/// A report that is kept and told; the rest of a longer one is left out.
const REPORT_BYTES_MAX: usize = 32 * 1024;
/// Changes that a notice lists.
const NOTICE_CHANGES_MAX: usize = 40;

/// Who asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The process began.
    Start,
    /// The system said that a file had changed.
    Watch,
    /// A file had changed, and the system had not said so.
    Poll,
    /// The signal.
    Sighup,
    /// `POST /reload`.
    Admin,
}

impl Asker {
    /// In texts and documents.
    pub const fn slug(self) -> &'static str {
        match self {
            Asker::Start => "start",
            Asker::Watch => "watch",
            Asker::Poll => "poll",
            Asker::Sighup => "SIGHUP",
            Asker::Admin => "admin",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force; this is how it differs from the one before.
    Published(Arc<[Change]>),
    /// It is wrong, and the one before stays in force.
    Refused(Arc<str>),
    /// Every file is as it was when the one in force was read.
    Unchanged,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Wall,
    /// What is in force since.
    pub generation: u64,
    /// On whose request.
    pub asker: Asker,
    /// What came of it.
    pub outcome: Outcome,
}

/// A configuration that is wrong on disk while an older one is in force.
#[derive(Clone)]
pub struct Failing {
    /// Since when no good one was read.
    pub since: Wall,
    /// What is wrong now.
    pub report: Arc<str>,
}

/// What the operator is told about reloads.
#[derive(Clone, Default)]
pub struct Status {
    /// Set while the files are wrong.
    pub failing: Option<Failing>,
    /// The newest last.
    pub history: VecDeque<Arc<Entry>>,
}

/// All about reloads that the control thread's tasks share.
pub struct Reloads {
    source: Option<Source>,
    /// What the last reading was read from. Whoever holds it is the one that reloads.
    read: Mutex<Trace>,
    status: ArcSwap<Status>,
    /// Rings when a reading has been judged.
    judged: Notify,
    /// The system tells of changes.
    is_watched: AtomicBool,
}

impl Reloads {
    /// For a process whose first table came from `configuration`; without one there is nothing to reload.
    pub fn new(configuration: Option<(Source, Trace)>, table: &Table) -> Reloads {
        let (source, trace) = configuration.unzip();
        let outcome = Outcome::Published(Arc::new([]));
        let first = Entry { at: wall(), generation: table.generation, asker: Asker::Start, outcome };
        let status = Status { failing: None, history: VecDeque::from([Arc::new(first)]) };
        Reloads {
            source,
            read: Mutex::new(trace.unwrap_or_default()),
            status: ArcSwap::from_pointee(status),
            judged: Notify::new(),
            is_watched: AtomicBool::new(false),
        }
    }

    /// Whether there is a configuration to reload at all.
    pub fn can_reload(&self) -> bool {
        self.source.is_some()
    }

    /// What the operator is told.
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }

    /// Adds to the history. Only the holder of `read` may.
    fn note(&self, entry: &Arc<Entry>, failing: Option<Failing>) {
        let mut status = Status::clone(&self.status.load());
        status.failing = failing;
        if status.history.len() >= HISTORY_MAX {
            status.history.pop_front();
        }
        status.history.push_back(Arc::clone(entry));
        self.status.store(Arc::new(status));
    }
}

/// Reloads at every SIGHUP; never ends.
pub async fn hangups(control: Arc<Control>) {
    let Ok(mut signal) = signal(SignalKind::hangup()) else { return };
    while control.reloads.can_reload() && signal.recv().await.is_some() {
        control.reload(Asker::Sighup).await;
    }
}

impl Control {
    /// Reads the configuration, and brings it into force if it is good and has changed. `None` when the process has no
    /// configuration to read.
    pub async fn reload(self: &Arc<Control>, asker: Asker) -> Option<Arc<Entry>> {
        let source = self.reloads.source.clone()?;
        let mut read = self.reloads.read.lock().await;
        let reading = tokio::task::spawn_blocking(move || source.read()).await.ok()?;
        let as_before = reading.trace.found_the_same(&read);
        let failing = self.reloads.status.load().failing.clone();
        *read = reading.trace;
        // What is wrong is judged anew even so: a certificate may have been mended, or have become good by itself.
        if as_before && failing.is_none() {
            let generation = self.table.load().generation;
            return Some(Arc::new(Entry { at: wall(), generation, asker, outcome: Outcome::Unchanged }));
        }
        let judged = match reading.table {
            Ok(table) => self.publish(table, asker).await,
            Err(report) => Err(report.to_string()),
        };
        let was = failing.as_ref().map(|failing| Arc::clone(&failing.report));
        let (outcome, failing) = match judged {
            Ok(changes) => (Outcome::Published(changes), None),
            Err(report) => refusal(&report, failing),
        };
        let is_told = failing.as_ref().is_some_and(|failing| as_before && was.as_ref() == Some(&failing.report));
        let entry = Arc::new(Entry { at: wall(), generation: self.table.load().generation, asker, outcome });
        if !is_told {
            if let Some(failing) = &failing {
                self.sink.notice(&format!(
                    "the configuration is WRONG ({}); generation {} stays in force until this is mended:\n{}",
                    asker.slug(),
                    entry.generation,
                    failing.report
                ));
            }
            self.reloads.note(&entry, failing);
        }
        self.reloads.judged.notify_one();
        Some(entry)
    }

    /// Brings `table` into force.
    ///
    /// # Errors
    /// What makes it impossible; then nothing has changed.
    async fn publish(self: &Arc<Control>, mut table: Table, asker: Asker) -> Result<Arc<[Change]>, String> {
        let running = self.table.load_full();
        let key = fingerprint_key()?;
        let changes: Arc<[Change]> = differences(&running.meaning(&key), &table.meaning(&key)).into();
        table.hold(&running);
        table.follow(&running);
        let tls =
            client_tls(&table, &self.tls.load()).map_err(|(name, fault)| format!("upstream `{name}`: {fault}"))?;
        let table = Arc::new(table);
        // What goes by slot comes first: it must be there when the first request sees the new table.
        self.tls.store(Arc::new(tls));
        self.upstreams.store(Arc::new(self.upstreams.load().grown_for(&table)));
        certificates::introduce(self, &table).map_err(|error| format!("TLS: {error}"))?;
        self.names.store(Arc::new(self.names.load().and(&table)));
        resolve::introduce(self, &table).await;
        // Behind the last wait, so that nobody drains by the old table what only the new one has.
        self.drains.apply(&table, &self.upstreams.load());
        self.table.store(Arc::clone(&table));
        self.change_live(table.upstream_slots_len(), |live| {
            live.prune(|slot| table.upstream(slot).is_some());
            Some(())
        });
        self.sink.notice(&told(table.generation, asker, &changes));
        Ok(changes)
    }
}

/// What is kept of a report, and since when there has been one.
fn refusal(report: &str, failing: Option<Failing>) -> (Outcome, Option<Failing>) {
    let end = (0..=REPORT_BYTES_MAX.min(report.len())).rev().find(|end| report.is_char_boundary(*end));
    let shown = report.get(..end.unwrap_or_default()).unwrap_or_default();
    let report: Arc<str> = if shown.len() < report.len() {
        format!("{shown}\n(the rest is left out; `forebay check` tells all)\n").into()
    } else {
        shown.into()
    };
    let since = failing.map_or_else(wall, |failing| failing.since);
    (Outcome::Refused(Arc::clone(&report)), Some(Failing { since, report }))
}

/// The notice about a new generation.
fn told(generation: u64, asker: Asker, changes: &[Change]) -> String {
    let mut text = format!("generation {generation} is in force ({})", asker.slug());
    if changes.is_empty() {
        text.push_str("; it means the same as the one before");
    }
    for Change { effect, what } in changes.iter().take(NOTICE_CHANGES_MAX) {
        let _ = write!(text, "\n  {} {what}", effect.mark());
    }
    if changes.len() > NOTICE_CHANGES_MAX {
        let _ = write!(text, "\n  and {} more; GET /table/history has them", changes.len() - NOTICE_CHANGES_MAX);
    }
    text
}

/// A key for fingerprints that are compared once and thrown away.
fn fingerprint_key() -> Result<FingerprintKey, String> {
    let mut key = FingerprintKey::default();
    aws_lc_rs::rand::fill(&mut key).map_err(|_| "the system gives no random numbers")?;
    Ok(key)
}

/// TLS settings for every upstream of `table`. A slot that has some keeps them, and with them its sessions; so does one
/// that this table has no more, for exchanges that began under an older one.
///
/// # Errors
/// The upstream whose settings do not work, and why.
pub fn client_tls(table: &Table, known: &TlsBySlot) -> Result<TlsBySlot, (Arc<str>, String)> {
    let mut by_slot = known.clone();
    by_slot.resize(table.upstream_slots_len().max(known.len()), None);
    for (slot, upstream) in table.upstream_slots().filter(|(_, upstream)| upstream.tls) {
        let failed = |error: String| (Arc::clone(&upstream.name), error);
        let Some(place @ None) = by_slot.get_mut(slot.index()) else { continue };
        let config = tls::client_config(&upstream.extra_ca).map_err(|error| failed(error.to_string()))?;
        let name = ServerName::try_from(upstream.host.to_string()).map_err(|error| failed(error.to_string()))?;
        *place = Some((config, name));
    }
    Ok(by_slot)
}
