//! `forebay health`, as a container's health check calls it.

use crate::support::{Forebay, Upstream, config};
use std::process::{Command, Output};

fn health(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay")).arg("health").args(arguments).output().expect("the program runs")
}

#[test]
fn a_running_forebay_is_ready_and_a_stopped_one_is_not() {
    let upstream = Upstream::plain(|_, _| false);
    let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), "0");
    let (admin, elsewhere) = (forebay.admin.to_string(), forebay.address.to_string());
    let ready = health(&["--admin", &admin]);
    assert_eq!((ready.status.code(), ready.stdout.as_slice()), (Some(0), b"ready\n".as_slice()));
    assert_eq!(health(&["--admin", &admin, "--alive"]).status.code(), Some(0));
    // The clients' listener is not the operator's.
    assert_eq!(health(&["--admin", &elsewhere]).status.code(), Some(1));
    drop(forebay);
    let gone = health(&["--admin", &admin]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("nobody answers at http://"), "{gone:?}");
}

#[test]
fn an_upstream_without_an_address_is_told() {
    let forebay = Forebay::start(&config("https://upstream.invalid", ""), "0");
    let admin = forebay.admin.to_string();
    let unready = health(&["--admin", &admin]);
    assert_eq!(unready.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unready.stderr).contains("no upstream has an address"), "{unready:?}");
    assert_eq!(health(&["--admin", &admin, "--alive"]).status.code(), Some(0), "it lives all the same");
}
