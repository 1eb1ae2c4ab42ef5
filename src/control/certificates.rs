//! The certificates that listeners show, read again when their files change. A pair that cannot be used is told, and
//! what was shown before stays; connections keep the certificate that they began with.
//!
//! Files are found to be other ones by looking at them every second: that sees renames, writes in place and the
//! symbolic links that Kubernetes swaps alike. Between the writing of the two files they do not fit each other, so a
//! fault counts only when it is still there at the next look.

use super::Control;
use crate::{
    base::{Mono, Span, Wall},
    net::{
        identity::{FILE_BYTES_MAX, Fault, Identity, Part},
        tls, x509,
    },
    rt::ring::{mono, wall},
    table::{
        Listener, ListenerTls, Table,
        live::{Front, Live},
    },
};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::Arc,
    time::SystemTime,
};
use zeroize::Zeroizing;

/// How often the files are looked at.
const TICK: Span = Span::from_secs(1);
/// How often they are read although they look the same: a clock or a file system may lie, and certificates end.
const REREAD: Span = Span::from_secs(60);
/// With fewer days left an operator is told.
const DAYS_LEFT_MIN: f64 = 14.0;

/// What listeners show at first: the certificates that the configuration was read with.
///
/// # Errors
/// When the system gives no random numbers.
pub fn fronts(listeners: &[Listener]) -> Result<Vec<Option<Front>>, rustls::Error> {
    let each = listeners.iter().map(|listener| listener.tls.as_ref().map(|tls| front(&tls.identity)).transpose());
    each.collect()
}

fn front(identity: &Identity) -> Result<Front, rustls::Error> {
    Ok(Front { config: tls::server_config(identity)?, identity: identity.clone(), fault: None })
}

/// Gives the listeners of `table`, which is about to come into force, the certificates that it was read with where the
/// table before has none, so that no client comes before there is one. Others are looked after by `run`.
///
/// # Errors
/// When the system gives no random numbers; then nothing has changed.
pub(super) fn introduce(control: &Control, table: &Table) -> Result<(), rustls::Error> {
    let running = control.table.load_full();
    let mut new = Vec::new();
    for (number, listener) in table.listeners.iter().enumerate() {
        let had_one = running.listeners.get(number).is_some_and(|before| before.tls.is_some());
        if let Some(tls) = listener.tls.as_ref().filter(|_| !had_one) {
            new.push((number, front(&tls.identity)?));
        }
    }
    control.change_live(table.upstream_slots_len(), |live| {
        live.fronts.resize(table.listeners.len(), None);
        for (number, front) in new {
            *live.fronts.get_mut(number)? = Some(front);
        }
        Some(())
    });
    Ok(())
}

/// What an operator should look at.
pub fn warnings(table: &Table, live: &Live, now: Wall) -> Vec<String> {
    let mut warnings = Vec::new();
    for (listener, front) in table.listeners.iter().zip(&live.fronts) {
        let Some(front) = front.as_ref().filter(|_| listener.tls.is_some()) else { continue };
        let certificate = &front.identity.certificate;
        if let Some(fault) = &front.fault {
            warnings.push(format!("listener {}: {fault}", listener.address));
        }
        if certificate.days_left(now) < DAYS_LEFT_MIN {
            let until = x509::day(certificate.ends);
            warnings.push(format!("listener {}: its certificate ends on {until}", listener.address));
        }
    }
    warnings
}

/// Keeps what listeners show as their files are; never ends.
pub async fn run(control: Arc<Control>) {
    let mut watches: Vec<Watch> = Vec::new();
    loop {
        let table = control.table.load_full();
        watches.resize_with(table.listeners.len(), Watch::default);
        for (number, watch) in watches.iter_mut().enumerate() {
            look(&control, &table, number, watch).await;
        }
        tokio::time::sleep(TICK.to_std()).await;
    }
}

/// What is remembered of one listener's files.
#[derive(Default)]
struct Watch {
    /// How they looked when they were read.
    looks: Option<[Look; 2]>,
    read_at: Mono,
    /// A fault that was seen once.
    suspect: Option<Arc<str>>,
}

/// What tells a file from the one that was there before.
type Look = Option<(SystemTime, u64, u64)>;

fn look_of(path: &Path) -> Look {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

/// Reads both files if they have changed, and publishes what comes of it.
async fn look(control: &Control, table: &Table, number: usize, watch: &mut Watch) {
    let Some((listener, tls)) = table.listeners.get(number).and_then(|l| Some((l, l.tls.as_ref()?))) else { return };
    let due = watch.suspect.is_some() || mono().since(watch.read_at) > REREAD;
    let (known, paths) = (watch.looks.filter(|_| !due), (tls.cert.clone(), tls.key.clone()));
    // A network file system may let us wait for long.
    let asked = tokio::task::spawn_blocking(move || {
        let looks = [look_of(&paths.0), look_of(&paths.1)];
        (known != Some(looks)).then(|| (looks, read_pair(&paths.0, &paths.1, wall())))
    });
    let Ok(Some((looks, found))) = asked.await else { return };
    (watch.looks, watch.read_at) = (Some(looks), mono());
    let live = control.live.load_full();
    let found = found.map_err(|faults| text(&faults, tls).into());
    let Some(step) = decide(watch, live.front(number), found) else { return };
    let (front, notice) = match step {
        Step::Show(identity) => match front(&identity) {
            Ok(front) => {
                let until = x509::day(identity.certificate.ends);
                let names = identity.certificate.names.join(", ");
                (front, format!("shows a new certificate, for {names} until {until}"))
            }
            Err(_) => return,
        },
        Step::Keep(fault) => {
            let Some(front) = live.front(number).cloned() else { return };
            let notice = format!("{fault}. The certificate that was shown before STAYS");
            (Front { fault: Some(fault), ..front }, notice)
        }
        Step::Mended => {
            let Some(front) = live.front(number).cloned() else { return };
            (Front { fault: None, ..front }, "its certificate's files are good again".to_owned())
        }
    };
    control.change_live(table.upstreams.len(), |live| {
        if live.fronts.len() <= number {
            live.fronts.resize(number + 1, None);
        }
        *live.fronts.get_mut(number)? = Some(front);
        Some(())
    });
    control.sink.notice(&format!("listener {}: {notice}", listener.address));
}

/// What follows from a look.
enum Step {
    /// There is another certificate.
    Show(Identity),
    /// The files are of no use, for this reason.
    Keep(Arc<str>),
    /// They are again what is in force.
    Mended,
}

fn decide(watch: &mut Watch, shown: Option<&Front>, found: Result<Identity, Arc<str>>) -> Option<Step> {
    let suspect = watch.suspect.take();
    match found {
        Ok(identity) => match shown.filter(|front| front.identity == identity) {
            Some(front) => front.fault.is_some().then_some(Step::Mended),
            None => Some(Step::Show(identity)),
        },
        Err(fault) if shown.is_some_and(|front| front.fault.as_ref() == Some(&fault)) => None,
        Err(fault) if suspect.as_ref() == Some(&fault) => Some(Step::Keep(fault)),
        Err(fault) => {
            watch.suspect = Some(fault);
            None
        }
    }
}

fn read_pair(cert: &Path, key: &Path, now: Wall) -> Result<Identity, Vec<Fault>> {
    let read = |part, path| {
        read_file(path).map_err(|error| {
            vec![Fault { part, cause: format!("cannot be read: {error}"), hint: "let forebay's user read it" }]
        })
    };
    Identity::read(&read(Part::Certificate, cert)?, &read(Part::Key, key)?, now)
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn text(faults: &[Fault], tls: &ListenerTls) -> String {
    let each = faults.iter().map(|fault| {
        let (name, path) = match fault.part {
            Part::Certificate => ("cert", &tls.cert),
            Part::Key => ("key", &tls.key),
        };
        format!("the `{name}` {} {}: {}", path.display(), fault.cause, fault.hint)
    });
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let made = rcgen::generate_simple_self_signed(["gw.example".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Identity::read(chain.as_bytes(), key.as_bytes(), Wall(1_767_225_600_000)).unwrap()
    }

    #[test]
    fn a_fault_is_told_once_and_only_when_it_stays() {
        let (mut watch, mut shown) = (Watch::default(), front(&identity()).unwrap());
        let fault: Arc<str> = "the key does not belong".into();
        assert!(decide(&mut watch, Some(&shown), Err(Arc::clone(&fault))).is_none(), "half written");
        assert!(watch.suspect.is_some(), "the next look reads again");
        assert!(matches!(decide(&mut watch, Some(&shown), Err(Arc::clone(&fault))), Some(Step::Keep(f)) if f == fault));
        shown.fault = Some(Arc::clone(&fault));
        assert!(decide(&mut watch, Some(&shown), Err(Arc::clone(&fault))).is_none());
        assert!(watch.suspect.is_none());
        assert!(matches!(decide(&mut watch, Some(&shown), Ok(shown.identity.clone())), Some(Step::Mended)));
    }

    #[test]
    fn another_certificate_is_shown_and_the_same_is_nothing_new() {
        let (mut watch, shown) = (Watch::default(), front(&identity()).unwrap());
        assert!(decide(&mut watch, Some(&shown), Ok(shown.identity.clone())).is_none());
        assert!(decide(&mut watch, Some(&shown), Err("half written".into())).is_none());
        let new = identity();
        assert!(matches!(decide(&mut watch, Some(&shown), Ok(new.clone())), Some(Step::Show(found)) if found == new));
        assert!(watch.suspect.is_none());
        assert!(matches!(decide(&mut watch, None, Ok(new)), Some(Step::Show(_))));
    }
}
