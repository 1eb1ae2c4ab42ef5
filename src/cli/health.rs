//! `forebay health`: asks a running forebay whether it should get requests. For a container's health check, in an image
//! that has no other program.

use super::{EXIT_CODES, OK, WRONG, complain, say};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long the answer may take; it comes from memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than any answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// `forebay health`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// Its `[health]` or `[admin]` listener.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9091")]
    pub admin: SocketAddr,
    /// Ask whether it lives, which it also does while it goes down or has not found its upstreams.
    #[arg(long)]
    pub alive: bool,
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let path = if args.alive { "/healthz" } else { "/readyz" };
    match ask(args.admin, path) {
        Ok((200, _)) => {
            say(if args.alive { "alive\n" } else { "ready\n" });
            OK
        }
        Ok((_, answer)) => {
            complain(&format!("forebay health: {}\n", reasons(&answer)));
            WRONG
        }
        Err(error) => {
            complain(&format!("forebay health: nobody answers at http://{}{path}: {error}\n", args.admin));
            WRONG
        }
    }
}

/// Status and body of a GET.
fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is not forebay's health listener"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Why not, as the answer says it.
fn reasons(answer: &str) -> String {
    let document: Option<serde_json::Value> = serde_json::from_str(answer).ok();
    let reasons = document.as_ref().and_then(|document| document.get("reasons")).and_then(|list| list.as_array());
    match reasons {
        Some(list) => list.iter().filter_map(|reason| reason.as_str()).collect::<Vec<_>>().join("; "),
        None => "the answer has no reasons; is that forebay's health listener?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let (status, body) =
            parse("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{\"reasons\":[\"x\",\"y\"]}").unwrap();
        assert_eq!((status, reasons(&body).as_str()), (503, "x; y"));
        assert_eq!(parse("HTTP/1.1 200\r\n\r\n"), Some((200, String::new())));
        assert_eq!(parse("SSH-2.0-x\r\n"), None);
        assert!(reasons("<html>").contains("health listener"));
    }
}
