//! The limit of open files: a shell's is far below what an org's laptops need, and forebay raises its own.

use super::support::{Client, Forebay, config};
use std::{fs, process::Command};

/// forebay under a soft limit of 64 open files.
fn cramped(bounds: &str) -> Forebay {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.toml");
    fs::write(&path, config("http://127.0.0.1:9", bounds)).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -Sn 64 && exec \"$0\" serve --config \"$1\"", env!("CARGO_BIN_EXE_forebay")])
        .arg(&path);
    Forebay::spawn(command, "0", folder)
}

#[test]
fn more_clients_are_served_than_the_shells_limit_allows() {
    let forebay = cramped("[bounds]\nconnections_max = 200\n");
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..150 {
        let mut client = forebay.connect();
        client.send(b"GET /api/hello HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.read().expect("an answer").status(), 200);
        clients.push(client);
    }
}
