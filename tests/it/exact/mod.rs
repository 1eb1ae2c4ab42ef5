//! The proof of byte-exactness: thousands of exchanges that seeds make up, through the real binary, over loopback. Both
//! ends write down every byte, and what is due at either end is worked out from the published table of edits.
//!
//! `FOREBAY_EXCHANGES=10000` makes more of them; `FOREBAY_EXACT=123` makes the one visit of that seed.

mod answers;
mod bodies;
mod made;
mod oracle;
mod peers;

use crate::support::{DRIVERS, Forebay, config};
use forebay::{serve::edits::EDITS, sim::dice::Dice};
use made::{Exchange, HELD, MOVED_ON, OPEN};
use oracle::Site;
use peers::Book;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Exchanges on each driver, unless said otherwise.
const EXCHANGES: u64 = 2_000;
/// Clients at a time.
const CLIENTS: usize = 6;
/// What that many must come across.
const MUST_BE_MET: [&str; 15] = [
    "pipelined visits",
    "requests read",
    "requests HEAD",
    "requests zipped",
    "requests with a choice",
    "requests of HTTP/1.0",
    "invitations",
    "answers Length",
    "answers Chunked",
    "answers UntilClose",
    "answers 304",
    "answers 413",
    "answers 529",
    "a stream",
    "a compressed stream",
];
/// A 429 would take the upstream's room.
const VERDICT: &str = "{ status = 429, verdict = \"deliver\" }";
/// Failures that are printed.
const FAILURES_MAX: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Two upstreams: one with a base path, one that takes its credential as a bearer.
fn sites(book: &Arc<Book>) -> [Site; 2] {
    let site =
        |at, name, base_path, takes_bearer| Site { name, address: peers::upstream(book, at), base_path, takes_bearer };
    [site(0, "main", "/base/of", false), site(1, "other", "", true)]
}

fn configured(sites: &[Site; 2]) -> String {
    let [main, other] = sites;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let open = OPEN.map(|path| format!("\"{path}\"")).join(", ");
    let more = format!(
        "passthrough = [{open}]\n\
         [[upstream]]\nname = \"other\"\nprovider = \"anthropic-compatible\"\nbase_url = \"http://{}\"\nauth = \"bearer\"\n\
         credentials = [{{ name = \"org\", env = \"PROVIDER_KEY\" }}]\nverdicts = [{VERDICT}]\n\
         [[model]]\nname = \"fast\"\ntargets = [{{ upstream = \"main\", model = \"claude-haiku-4-5-20251001\" }}]\n\
         [[model]]\nname = \"a-name-that-is-long\"\ntargets = [{{ upstream = \"other\", model = \"m\" }}]\n\
         [[model]]\nname = \"far-*\"\ntargets = [{{ upstream = \"other\" }}]\n\
         [[upstream]]\nname = \"gone\"\nprovider = \"anthropic-compatible\"\nbase_url = \"http://{nowhere}\"\nauth = \"none\"\n\
         [[model]]\nname = \"{HELD}\"\ntargets = [{{ upstream = \"other\" }}, {{ upstream = \"main\", tier = 2 }}]\n\
         [[model]]\nname = \"{MOVED_ON}\"\ntargets = [{{ upstream = \"gone\", model = \"never\" }}, {{ upstream = \"main\", tier = 2 }}]\n\
         [[model]]\nname = \"*\"\ntargets = [{{ upstream = \"main\" }}]\n",
        other.address
    );
    let text = config(&format!("http://{}{}", main.address, main.base_path), &more);
    text.replace("workers = 1", "workers = 2").replacen(
        "credentials = ",
        &format!("verdicts = [{VERDICT}]\ncredentials = "),
        1,
    )
}

#[test]
fn exchanges_pass_byte_for_byte_but_for_the_edits() {
    let (wanted, only) = (number("FOREBAY_EXCHANGES").unwrap_or(EXCHANGES), number("FOREBAY_EXACT"));
    for (driver, force_epoll) in DRIVERS {
        let book = Arc::new(Book::default());
        let sites = sites(&book);
        let forebay = Forebay::start(&configured(&sites), force_epoll);
        let (seeds, made) = (AtomicU64::new(0), AtomicU64::new(0));
        let (failures, met) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
        let client = || {
            let is_enough = || made.load(Ordering::SeqCst) >= wanted || failures.lock().unwrap().len() > FAILURES_MAX;
            while !is_enough() {
                let seed = only.unwrap_or_else(|| seeds.fetch_add(1, Ordering::SeqCst));
                let visit = made::visit(seed);
                count_what_is_met(&visit, &mut met.lock().unwrap());
                let exchanges = visit.exchanges.len() as u64;
                if let Err(wrong) = peers::visit(forebay.address, visit, &sites, &book) {
                    failures.lock().unwrap().push(format!(
                        "seed {seed}, {wrong}\n  replay: FOREBAY_EXACT={seed} cargo test --test it exact"
                    ));
                }
                made.fetch_add(if only.is_some() { wanted } else { exchanges }, Ordering::SeqCst);
            }
        };
        thread::scope(|scope| {
            for _ in 0..if only.is_some() { 1 } else { CLIENTS } {
                scope.spawn(client);
            }
        });
        let (failures, met) = (failures.into_inner().unwrap(), met.into_inner().unwrap());
        assert!(failures.is_empty(), "on {driver}:\n{}", failures.join("\n"));
        assert_eq!(*book.strays.lock().unwrap(), [""; 0], "no request but those of the clients");
        let missed: Vec<_> = MUST_BE_MET.iter().filter(|what| met.get(**what).is_none_or(|n| *n < 5)).collect();
        assert!(wanted < EXCHANGES || only.is_some() || missed.is_empty(), "hardly any {missed:?}: {met:?}");
        eprintln!("{driver}: {} exchanges, {} visits: {met:?}", made.into_inner(), seeds.into_inner());
    }
}

fn count_what_is_met(visit: &made::Visit, met: &mut BTreeMap<String, u64>) {
    let mut count = |what: String, n: u64| *met.entry(what).or_default() += n;
    count("pipelined visits".into(), u64::from(visit.pipelines));
    for Exchange { request, answer, .. } in &visit.exchanges {
        count(format!("requests {}", if request.is_read { "read" } else { request.method }), 1);
        count("requests with a choice".into(), u64::from(request.is_one_of_two));
        count("requests zipped".into(), u64::from(request.is_zipped));
        count("requests of HTTP/1.0".into(), u64::from(request.is_old));
        count("invitations".into(), u64::from(request.waits));
        count(format!("answers {}", answer.status), 1);
        count(format!("answers {:?}", answer.framed), 1);
        count(answer.kind.into(), 1);
        count("bytes".into(), (request.wire.len() + answer.wire.len()) as u64);
    }
}

/// The proof proves nothing about a row of the table that no exchange meets: without it, something else must be due.
#[test]
fn every_row_of_the_table_is_met() {
    let address = "127.0.0.1:1".parse().unwrap();
    let site = Site { name: "a", address, base_path: "", takes_bearer: false };
    let mut met = vec![0; EDITS.len()];
    for exchange in (0..400).flat_map(|seed| made::visit(seed).exchanges) {
        let due =
            |without| (oracle::request_due(&exchange, &site, without), oracle::answer_due(&exchange, without).head);
        let whole = due(None);
        for (row, count) in met.iter_mut().enumerate() {
            *count += usize::from(due(Some(row)) != whole);
        }
    }
    for (edit, count) in EDITS.iter().zip(&met) {
        // Framing ends at each hop, whatever the table says of it.
        assert!(*count > 10 || edit.field == "transfer-encoding", "{edit:?}: {count}");
    }
}

/// One seed is one visit.
#[test]
fn a_visit_can_be_made_again() {
    for seed in [1, 5, 77] {
        let wires = || -> Vec<Vec<u8>> {
            made::visit(seed).exchanges.into_iter().map(|one| [one.request.wire, one.answer.wire].concat()).collect()
        };
        assert_eq!(wires(), wires());
    }
    assert_ne!(Dice::new(1).bits(), Dice::new(2).bits());
}
