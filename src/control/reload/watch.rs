//! Finds out that the configuration's files have changed. What the system tells is a hint only; what counts is the
//! content of every file that was read, hashed, and it is looked at now and then without a hint too. A file that
//! someone is writing right now is left alone until it is closed or rests.

use super::{Asker, places::Places};
use crate::{base::Span, config::Trace, control::Control, rt::ring::mono};
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{sync::Notify, time::timeout};

/// How often the files are looked at without a hint.
const POLL: Span = Span::from_secs(10);
/// After a hint: this long without another, and the files are looked at.
const QUIET: Span = Span::from_ms(50);
/// And this long at most, hints or not, files open for writing or not.
const QUIET_MAX: Span = Span::from_secs(2);
/// The content must be the same twice, this far apart, before it is judged.
const REST: Span = Span::from_ms(50);
/// The same for a change that nothing was heard of: its file may still be open for writing.
const REST_UNHEARD: Span = Span::from_secs(1);
/// A content that never rests is judged all the same after this.
const REST_MAX: Span = Span::from_secs(5);

/// Watches, and reloads when something has changed; never ends while there is something to reload.
pub async fn run(control: Arc<Control>) {
    let mut watch: Option<Watch> = None;
    let mut asker = Asker::Poll;
    let mut is_due = false;
    while control.reloads.can_reload() {
        let trace = control.reloads.read.lock().await.clone();
        let places = places(&trace).await;
        let watching = match watch.take() {
            Some(watching) if watching.places == places => watching,
            _ => Watch::over(&control, places).await,
        };
        // Always looked at, because what happened before the watch began it has not heard. What is wrong is read anew
        // now and then though nothing has changed: it may be wrong by more than is watched, as a certificate is.
        let is_wrong = std::mem::take(&mut is_due) && control.reloads.status().failing.is_some();
        if is_wrong || has_changed(&control, &watching, &trace, asker).await {
            control.reload(asker).await;
            asker = Asker::Poll;
            watch = Some(watching);
            continue;
        }
        control.reloads.is_watched.store(watching.watcher.is_some(), Ordering::Release);
        tokio::select! {
            () = watching.signal.heard.notified() => {
                watching.quiet().await;
                asker = Asker::Watch;
            }
            () = control.reloads.judged.notified() => asker = Asker::Poll,
            () = tokio::time::sleep(POLL.to_std()) => (asker, is_due) = (Asker::Poll, true),
        }
        watch = Some(watching);
    }
}

/// Whether the files differ from what `trace` saw, once they rest.
async fn has_changed(control: &Arc<Control>, watching: &Watch, trace: &Trace, asker: Asker) -> bool {
    let rest = if asker == Asker::Watch { REST } else { REST_UNHEARD };
    let until = mono().after(REST_MAX);
    let mut last = look(control, trace).await;
    if last.found_the_same(trace) {
        return false;
    }
    watching.quiet().await;
    while !last.found_the_same(trace) {
        tokio::time::sleep(rest.to_std()).await;
        let now = look(control, trace).await;
        if now.found_the_same(&last) || mono() >= until {
            return !now.found_the_same(trace);
        }
        last = now;
    }
    false
}

async fn places(trace: &Trace) -> Places {
    let trace = trace.clone();
    tokio::task::spawn_blocking(move || Places::of(&trace)).await.unwrap_or_default()
}

/// What the same files hold now.
async fn look(control: &Arc<Control>, trace: &Trace) -> Trace {
    let (source, before) = (control.reloads.source.clone(), trace.clone());
    let looked = tokio::task::spawn_blocking(move || Some(source?.again(&before))).await;
    looked.ok().flatten().unwrap_or_else(|| trace.clone())
}

/// A watch over some places, for as long as it is held.
struct Watch {
    places: Places,
    signal: Arc<Signal>,
    /// `None` when the system gives none.
    watcher: Option<RecommendedWatcher>,
}

/// What the watching thread says.
#[derive(Default)]
struct Signal {
    heard: Notify,
    /// A file of the configuration is being written.
    unfinished: AtomicBool,
}

impl Watch {
    /// Watches; tells what cannot be watched.
    async fn over(control: &Control, places: Places) -> Watch {
        let signal = Arc::new(Signal::default());
        let (there, ears) = (places.clone(), Arc::clone(&signal));
        let started = tokio::task::spawn_blocking(move || start(&there, ears)).await;
        let (watcher, faults) = match started {
            Ok(Ok((watcher, faults))) => (Some(watcher), faults),
            Ok(Err(error)) => (None, vec![format!("files cannot be watched: {error}")]),
            Err(_) => (None, Vec::new()),
        };
        if !faults.is_empty() {
            let within = POLL.as_ms() / 1_000;
            control.sink.notice(&format!("{}; changes are found within {within} s", faults.join("; ")));
        }
        Watch { places, signal, watcher }
    }

    /// Waits until nothing more is heard and no file is being written, or for `QUIET_MAX`.
    async fn quiet(&self) {
        let until = mono().after(QUIET_MAX);
        loop {
            let left = until.since(mono());
            let unfinished = self.signal.unfinished.load(Ordering::Acquire);
            let pause = if unfinished { left } else { QUIET.min(left) };
            let heard = timeout(pause.to_std(), self.signal.heard.notified()).await.is_ok();
            if !heard && !self.signal.unfinished.load(Ordering::Acquire) || mono() >= until {
                return;
            }
        }
    }
}

fn start(places: &Places, signal: Arc<Signal>) -> notify::Result<(RecommendedWatcher, Vec<String>)> {
    let (files, mut open) = (places.files.clone(), HashSet::new());
    let hear = move |event: notify::Result<Event>| {
        if event.map_or(true, |event| is_news(&event, &files, &mut open)) {
            signal.unfinished.store(!open.is_empty(), Ordering::Release);
            signal.heard.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(hear)?;
    let mut faults = Vec::new();
    for directory in places.directories.keys() {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive)
            && !matches!(error.kind, notify::ErrorKind::PathNotFound)
        {
            faults.push(format!("{} cannot be watched: {error}", directory.display()));
        }
    }
    Ok((watcher, faults))
}

/// Whether an event may mean another content; keeps in `open` which of `files` are being written. To read a file makes
/// events too, our own reading among them.
fn is_news(event: &Event, files: &HashSet<PathBuf>, open: &mut HashSet<PathBuf>) -> bool {
    let ours = || event.paths.iter().filter(|path| files.contains(*path));
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            open.retain(|path| !event.paths.contains(path));
            ours().next().is_some()
        }
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => {
            open.extend(ours().cloned());
            ours().next().is_some()
        }
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            open.retain(|path| !event.paths.contains(path));
            true
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, RemoveKind};

    #[test]
    fn a_file_that_is_being_written_is_unfinished_until_it_is_closed() {
        let (main, other) = (PathBuf::from("/etc/main.toml"), PathBuf::from("/etc/other"));
        let files = HashSet::from([main.clone()]);
        let mut open = HashSet::new();
        let hear = |kind, path: &PathBuf, open: &mut HashSet<PathBuf>| {
            is_news(&Event::new(kind).add_path(path.clone()), &files, open)
        };
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(hear(data, &main, &mut open) && open.len() == 1);
        assert!(!hear(EventKind::Access(AccessKind::Close(AccessMode::Read)), &main, &mut open), "our own reading");
        assert!(hear(closed, &main, &mut open) && open.is_empty());
        assert!(!hear(data, &other, &mut open) && open.is_empty(), "nobody's file");
        assert!(hear(EventKind::Create(CreateKind::File), &other, &mut open), "may be one that is to be included");
        assert!(hear(data, &main, &mut open) && hear(EventKind::Remove(RemoveKind::File), &main, &mut open));
        assert!(open.is_empty(), "a file that is gone is not waited for");
    }
}
