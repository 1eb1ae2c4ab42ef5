//! The simulator on real sockets, on both drivers; the client is plain `std`.

use super::prompt;
use crate::mock::{Handle, Options, spawn_on_thread};
use serde_json::Value;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

/// A client's connection that cannot hang a test, and what it has read too far.
struct Client(TcpStream, Vec<u8>);

impl Client {
    fn new(handle: &Handle) -> Client {
        let stream = TcpStream::connect(handle.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client(stream, Vec::new())
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads until `end` has come. Pipelined answers may arrive together: what is behind the end stays for the next call.
    fn until(&mut self, end: &str) -> String {
        let mut buf = [0; 4096];
        loop {
            if let Some(at) = self.1.windows(end.len()).position(|part| part == end.as_bytes()) {
                let rest = self.1.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.1, rest)).unwrap();
            }
            let n = self.0.read(&mut buf).unwrap();
            assert!(n > 0, "ended early: {}", String::from_utf8_lossy(&self.1));
            self.1.extend_from_slice(&buf[..n]);
        }
    }

    /// Reads to the end of the connection.
    fn rest(&mut self) -> (String, Option<ErrorKind>) {
        let mut all = std::mem::take(&mut self.1);
        let error = self.0.read_to_end(&mut all).err().map(|error| error.kind());
        (String::from_utf8(all).unwrap(), error)
    }
}

fn post(fields: &str, body: &str) -> String {
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: sim\r\nx-api-key: k\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn hi(sim: &str) -> String {
    post(&format!("x-sim: {sim}\r\n"), &prompt("hi", true).to_string())
}

fn get(handle: &Handle, path: &str) -> Value {
    let mut client = Client::new(handle);
    client.send(format!("GET {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n"));
    let (answer, _) = client.rest();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn on_both_drivers(test: impl Fn(&Handle)) {
    for force_epoll in [false, true] {
        test(&spawn_on_thread(Options { force_epoll, ..Options::default() }).unwrap());
    }
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    on_both_drivers(|handle| {
        let mut client = Client::new(handle);
        client.send(hi("events=4,gap_ms=1"));
        assert!(client.until("0\r\n\r\n").contains("message_stop"));
        client.send(format!("{}{}", hi("events=2"), hi("529,framing=close")));
        let (both, error) = client.rest();
        assert!(both.find("message_stop").unwrap() < both.find("HTTP/1.1 529").unwrap() && error.is_none());
        let mut client = Client::new(handle);
        let body = prompt("hi", true).to_string();
        let (first, second) = body.split_at(20);
        client.send("POST /v1/messages HTTP/1.1\r\nhost: sim\r\nx-api-key: k\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(format!("14\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", second.len()));
        assert!(client.until("0\r\n\r\n").contains("message_stop"));
        assert_eq!(get(handle, "/sim/stats")["all"]["finished"], 4);
    });
}

#[test]
fn a_waiting_client_is_told_to_go_on() {
    let handle = spawn_on_thread(Options::default()).unwrap();
    let mut client = Client::new(&handle);
    let request = post("expect: 100-continue\r\n", &prompt("hi", false).to_string());
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    client.send(format!("{head}\r\n\r\n"));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(body);
    assert!(client.until("}}").contains("SIM-OK hi"));
}

#[test]
fn large_bodies_and_answers_go_through() {
    on_both_drivers(|handle| {
        let mut client = Client::new(handle);
        let body = prompt(&"w".repeat(3_000_000), false).to_string();
        client.send(post("x-sim: bytes=500000\r\nconnection: close\r\n", &body));
        let (answer, error) = client.rest();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!((head.contains(&format!("content-length: {}", body.len())), error), (true, None));
        let message: Value = serde_json::from_str(body).unwrap();
        assert_eq!(message["content"][0]["text"].as_str().unwrap().len(), 500_000);
        assert_eq!(message["usage"]["input_tokens"], 750_000);
    });
}

#[test]
fn what_cannot_be_read_is_refused_readably() {
    let handle = spawn_on_thread(Options::default()).unwrap();
    for (request, status) in [
        ("GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 400"),
        ("POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n", "HTTP/1.1 413"),
        ("POST /v1/messages HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400"),
    ] {
        let mut client = Client::new(&handle);
        client.send(request);
        client.0.shutdown(Shutdown::Write).unwrap();
        let (answer, error) = client.rest();
        assert!(answer.starts_with(status) && error.is_none(), "{request}: {answer} {error:?}");
    }
}

#[test]
fn broken_answers_break_as_they_should() {
    on_both_drivers(|handle| {
        let ends = |sim: &str| {
            let mut client = Client::new(handle);
            client.send(hi(sim));
            client.rest()
        };
        assert_eq!(ends("reset"), (String::new(), Some(ErrorKind::ConnectionReset)));
        assert_eq!(ends("close"), (String::new(), None));
        let (answer, error) = ends("events=9,cut=2");
        assert_eq!((answer.matches("text_delta").count(), error), (2, Some(ErrorKind::ConnectionReset)), "{answer}");
        let (answer, error) = ends("events=9,cut=2,fin");
        assert!(!answer.ends_with("0\r\n\r\n") && error.is_none(), "{answer}");
    });
}

#[test]
fn a_client_that_leaves_stops_its_answer() {
    on_both_drivers(|handle| {
        let mut client = Client::new(handle);
        client.send(hi("events=1000000,gap_ms=2"));
        let mut buf = [0; 512];
        assert!(client.0.read(&mut buf).unwrap() > 0);
        drop(client);
        for _ in 0..500 {
            let log = get(handle, "/sim/log");
            if log["rows"][0]["ending"] == "aborted" {
                assert!(log["rows"][0]["output_tokens"].as_u64().unwrap() < 10_000);
                return;
            }
        }
        panic!("the answer goes on without a client");
    });
}

#[test]
fn a_dropped_handle_stops_the_simulator() {
    let handle = spawn_on_thread(Options::default()).unwrap();
    let address = handle.address;
    let mut client = Client::new(&handle);
    client.send(hi("stall=1"));
    client.until("\n\n\r\n");
    drop(handle);
    client.rest();
    assert!(TcpStream::connect(address).is_err());
    let bad = Options {
        rules: vec![crate::mock::Rule { what: "nonsense".into(), ..Default::default() }],
        ..Options::default()
    };
    assert_eq!(spawn_on_thread(bad).err().unwrap().kind(), ErrorKind::InvalidInput);
}
