//! Both ends of the proof: upstreams that write down every byte that they get, and clients that read with eyes of their
//! own.

use super::{
    made::{Exchange, Framed, MARK, Visit},
    oracle::{self, Site, same},
};
use crate::support::{STUCK, answer};
use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What is under way and what came of it, for both ends.
#[derive(Default)]
pub struct Book {
    open: Mutex<HashMap<u64, Arc<Entry>>>,
    /// Requests that nobody sent.
    pub strays: Mutex<Vec<String>>,
    /// The names that answers carried.
    names: Mutex<HashSet<String>>,
}

struct Entry {
    exchange: Exchange,
    /// Which upstream got it, and all that it got.
    seen: Mutex<Vec<(usize, Vec<u8>)>>,
}

/// A socket, read by what is looked for.
struct Wire {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Wire {
    fn new(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(STUCK)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, held: Vec::new() }
    }

    /// False at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut room = [0; 16 * 1024];
        let count = self.stream.read(&mut room)?;
        self.held.extend_from_slice(&room[..count]);
        Ok(count > 0)
    }

    /// Up to and with `end`; `None` where the connection ends before anything came.
    fn until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut from = 0;
        loop {
            if let Some(at) = self.held[from..].windows(end.len()).position(|window| window == end) {
                let rest = self.held.split_off(from + at + end.len());
                return Ok(Some(std::mem::replace(&mut self.held, rest)));
            }
            from = self.held.len().saturating_sub(end.len() - 1);
            if !self.more()? {
                return if self.held.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.held.len() < count {
            if !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.held.split_off(count);
        Ok(std::mem::replace(&mut self.held, rest))
    }

    fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.held))
    }

    /// A body in chunks, without extensions or trailers: forebay writes none.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let digits = std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| wrong())?;
            let count = usize::from_str_radix(digits, 16).map_err(|_| wrong())?;
            let chunk = self.exactly(count + 2)?;
            if !chunk.ends_with(b"\r\n") {
                return Err(wrong());
            }
            if count == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..count]);
        }
    }
}

fn write_in_pieces(mut stream: &TcpStream, bytes: &[u8], size: usize) -> io::Result<()> {
    for piece in bytes.chunks(size.max(1)) {
        stream.write_all(piece)?;
        // What is behind it must not be in the same read.
        if size < 20_000 {
            thread::yield_now();
        }
    }
    Ok(())
}

/// The value of a field of a raw head.
fn field<'a>(head: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(wanted.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    })
}

fn number(value: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(value?).ok()?.parse().ok()
}

/// An upstream, number `site` of the configuration.
pub fn upstream(book: &Arc<Book>, site: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let book = Arc::clone(book);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let book = Arc::clone(&book);
            thread::spawn(move || {
                // How a connection ends is seen at the other end.
                let _ = serve(&book, site, &mut Wire::new(stream));
            });
        }
    });
    address
}

fn serve(book: &Book, site: usize, wire: &mut Wire) -> io::Result<()> {
    while let Some(mut got) = wire.until(b"\r\n\r\n")? {
        let entry = number(field(&got, MARK)).and_then(|id| book.open.lock().unwrap().get(&id).cloned());
        let Some(entry) = entry else {
            if !got.starts_with(b"GET ") || !got.windows(10).any(|window| window == b"/v1/models") {
                book.strays.lock().unwrap().push(got.escape_ascii().to_string());
            }
            wire.stream.write_all(answer("200 OK", "", "{\"data\":[]}").as_bytes())?;
            continue;
        };
        let length = number(field(&got, "content-length")).unwrap_or(0);
        got.extend(wire.exactly(length as usize)?);
        entry.seen.lock().unwrap().push((site, got));
        let script = &entry.exchange.answer;
        write_in_pieces(&wire.stream, &script.wire, script.write_bytes)?;
        if script.closes {
            return Ok(());
        }
    }
    Ok(())
}

/// Makes one visit; says what was wrong with the first exchange that was.
pub fn visit(address: SocketAddr, visit: Visit, sites: &[Site], book: &Book) -> Result<(), String> {
    let pipelines = visit.pipelines;
    let entry = |exchange| Arc::new(Entry { exchange, seen: Mutex::default() });
    let entries: Vec<_> = visit.exchanges.into_iter().map(entry).collect();
    book.open.lock().unwrap().extend(entries.iter().map(|entry| (entry.exchange.id, Arc::clone(entry))));
    let mut wire = Wire::new(TcpStream::connect(address).map_err(|error| error.to_string())?);
    let writing = wire.stream.try_clone().map_err(|error| error.to_string())?;
    let result = thread::scope(|scope| {
        if pipelines {
            // Of a server that answers while it is still being asked, only a client that reads meanwhile gets all.
            let (entries, writing) = (&entries, &writing);
            scope.spawn(move || {
                entries.iter().try_for_each(|entry| {
                    let request = &entry.exchange.request;
                    write_in_pieces(writing, &request.wire, request.write_bytes)
                })
            });
        }
        let exchanges = entries.iter().enumerate().try_for_each(|(at, entry)| {
            let made = one(&mut wire, entry, sites, book, pipelines);
            made.map_err(|wrong| format!("exchange {at} of {}: {wrong}", entries.len()))
        });
        if exchanges.is_err() {
            let _ = writing.shutdown(Shutdown::Both);
        }
        exchanges
    });
    let ids = entries.iter().map(|entry| entry.exchange.id);
    let last = entries.last().is_some_and(|entry| entry.exchange.request.closes || entry.exchange.request.is_old);
    let result = result.and_then(|()| end(&mut wire, last));
    let mut open = book.open.lock().unwrap();
    ids.for_each(|id| drop(open.remove(&id)));
    result
}

/// Nothing may follow the last answer.
fn end(wire: &mut Wire, closes: bool) -> Result<(), String> {
    if !closes {
        wire.stream.shutdown(Shutdown::Write).map_err(|error| error.to_string())?;
    }
    same("what follows the last answer", b"", &wire.rest().map_err(|error| format!("in the end: {error}"))?)
}

fn one(wire: &mut Wire, entry: &Entry, sites: &[Site], book: &Book, pipelines: bool) -> Result<(), String> {
    let Exchange { request, .. } = &entry.exchange;
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let (head, body) = request.wire.split_at(request.head_bytes);
    if !pipelines {
        write_in_pieces(&wire.stream, head, request.write_bytes).map_err(told("sending the head"))?;
        if request.waits {
            let invitation = wire.until(b"\r\n\r\n").map_err(told("waiting for a 100"))?.unwrap_or_default();
            same("the invitation", b"HTTP/1.1 100 Continue\r\n\r\n", &invitation)?;
        }
        write_in_pieces(&wire.stream, body, request.write_bytes).map_err(told("sending the body"))?;
    }
    let mut head = wire.until(b"\r\n\r\n").map_err(told("the answer's head"))?.ok_or("no answer came")?;
    if request.expects && !request.waits && head.starts_with(b"HTTP/1.1 100 ") {
        head = wire.until(b"\r\n\r\n").map_err(told("the answer's head"))?.ok_or("no answer came after a 100")?;
    }
    let due = oracle::answer_due(&entry.exchange, None);
    let plain = without_own(&head, &entry.exchange, &sites[request.site], book)?;
    same("the answer's head", &due.head, &plain)?;
    let payload = &entry.exchange.answer.body;
    let body = match due.framed {
        Framed::Nothing => Ok(Vec::new()),
        Framed::Length => wire.exactly(payload.len()),
        Framed::Chunked => wire.chunks(),
        Framed::UntilClose => wire.rest(),
    };
    same("the answer's body", payload, &body.map_err(told("the answer's body"))?)?;
    let seen = entry.seen.lock().unwrap();
    // A second time only where the first met a connection that was closed without a word.
    let [(site, got)] = &seen[..] else { return Err(format!("{} upstreams got it", seen.len())) };
    if *site != request.site {
        return Err(format!("upstream {site} got it, {} is due", request.site));
    }
    same("the request", &oracle::request_due(&entry.exchange, &sites[request.site], None), got)
}

/// The head without forebay's own fields, which must be right.
fn without_own(head: &[u8], exchange: &Exchange, site: &Site, book: &Book) -> Result<Vec<u8>, String> {
    let (mut plain, mut own) = (Vec::new(), HashMap::new());
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let Some(rest) = line.strip_prefix(b"x-forebay-") else {
            plain.extend_from_slice(line);
            continue;
        };
        let text = std::str::from_utf8(rest).map_err(|error| error.to_string())?;
        let (name, value) = text.trim_end().split_once(": ").ok_or("a field without a value")?;
        if own.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("x-forebay-{name} came twice"));
        }
    }
    for (name, value) in oracle::own_fields(exchange, site) {
        let got = own.remove(name);
        if got.as_ref() != Some(&value) {
            return Err(format!("x-forebay-{name} is {got:?}, {value} is due: {}", head.escape_ascii()));
        }
    }
    let name = own.remove("request-id").ok_or("an answer without a name")?;
    if !book.names.lock().unwrap().insert(name) {
        return Err("two answers have one name".into());
    }
    let count = |value: Option<String>| value.and_then(|value| value.parse::<u64>().ok());
    match (count(own.remove("attempts")), count(own.remove("overhead-us")), own.len()) {
        (Some(1..=3), Some(_), 0) => Ok(plain),
        other => Err(format!("attempts, overhead, and how many fields more: {other:?}, {own:?}")),
    }
}
