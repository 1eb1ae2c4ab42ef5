//! TLS over an in-memory socket. A stranger's bytes in the place of a server's end the handshake in an error, soon. After
//! a true handshake, whatever is lost, changed or added on the way: what comes out is a beginning of what was said, an
//! end is told only if the peer said it, and no step goes on for ever.

use forebay::{
    net::{Conn, tls},
    rt::{
        Outbox, Read, Segment, Socket,
        inbox::{Feeder, inbox},
    },
};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, pki_types::ServerName};
use std::{
    cell::RefCell,
    future::Future,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

/// What the client has written to its socket.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Vec<u8>>>);

impl Outbox for Wire {
    async fn write(&mut self, segment: Segment) -> (io::Result<()>, Segment) {
        self.0.borrow_mut().extend_from_slice(segment.live());
        (Ok(()), segment)
    }

    fn finish(&mut self) {}

    fn abort(&mut self) {}
}

fn socket() -> (Socket<Wire>, Feeder, Wire) {
    let ((inbox, feeder), wire) = (inbox(), Wire::default());
    let socket = Socket { inbox, outbox: wire.clone(), peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)) };
    (socket, feeder, wire)
}

/// One self-signed identity for the whole run, for a server and for the client that trusts it.
fn identity() -> &'static (Arc<ServerConfig>, Arc<ClientConfig>) {
    static IDENTITY: OnceLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["upstream.example".to_owned()]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = made.signing_key.serialize_der().try_into().expect("a key");
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key));
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
        (Arc::new(server.expect("a server")), Arc::new(client))
    })
}

fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The property of a session; the first byte says which.
pub fn session(bytes: &[u8]) {
    match bytes.split_first() {
        Some((first, rest)) if first % 2 == 0 => stranger(rest),
        Some((_, rest)) => peer(rest),
        None => {}
    }
}

/// Bytes that nobody encrypted, as the server's part of a handshake, in reads of up to 600 bytes.
fn stranger(bytes: &[u8]) {
    let (socket, feeder, _wire) = socket();
    let name = ServerName::try_from("upstream.example").expect("a name");
    let mut handshake = pin!(tls::connect(socket, Arc::clone(&identity().1), name));
    let mut cx = Context::from_waker(Waker::noop());
    let mut reads = bytes.chunks(600);
    loop {
        if let Poll::Ready(ended) = handshake.as_mut().poll(&mut cx) {
            assert!(ended.is_err(), "nobody can guess a handshake");
            return;
        }
        assert!(poll(feeder.vacancy()).is_ready(), "it waits only for more");
        match reads.next() {
            Some(read) => assert!(feeder.deliver(Read::Data(Segment::copy_of(read)))),
            None => assert!(!feeder.deliver(Read::End)),
        }
    }
}

/// A connection after its handshake, and the true server at its other end.
struct Pair {
    conn: Conn<Wire>,
    feeder: Feeder,
    wire: Wire,
    server: ServerConnection,
    /// Encrypted by the server, not yet delivered.
    cipher: Vec<u8>,
    sent: Vec<u8>,
    got: Vec<u8>,
    /// The server has said that nothing more comes.
    closed: bool,
    /// A byte was changed, added or lost on the way.
    tampered: bool,
    /// The client has been told an end or a failure.
    over: Option<bool>,
    delivered_end: bool,
}

/// After a handshake, a script of what the server says and what the network does to it.
fn peer(script: &[u8]) {
    let mut pair = Pair::shake_hands();
    for step in script.chunks(2).take(200) {
        let amount = usize::from(step.get(1).copied().unwrap_or(1)) + 1;
        match step[0] % 11 {
            0 => pair.say(amount),
            1 => pair.say(amount * 400),
            2 | 3 => pair.deliver(amount),
            4 => pair.deliver(amount * 256),
            5 => pair.read(),
            6 => pair.tamper(amount, |cipher, at| cipher[at] ^= 1 << (at % 8)),
            7 => pair.tamper(amount, |cipher, at| cipher.insert(at, at as u8)),
            8 => pair.tamper(amount, |cipher, at| {
                cipher.remove(at);
            }),
            9 => pair.close(amount),
            _ => pair.write(amount * 100),
        }
    }
    pair.end();
}

impl Pair {
    fn shake_hands() -> Pair {
        let (socket, feeder, wire) = socket();
        let (for_server, for_client) = identity();
        let name = ServerName::try_from("upstream.example").expect("a name");
        let mut handshake = pin!(tls::connect(socket, Arc::clone(for_client), name));
        let mut server = ServerConnection::new(Arc::clone(for_server)).expect("a session");
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..20 {
            let polled = handshake.as_mut().poll(&mut cx);
            let said = std::mem::take(&mut *wire.0.borrow_mut());
            take_in(&mut server, &said);
            let mut cipher = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut cipher).expect("into memory");
            }
            if let Poll::Ready(conn) = polled {
                let conn = conn.expect("a true handshake");
                let state = (Vec::new(), Vec::new());
                let (sent, got) = state;
                return Pair {
                    conn,
                    feeder,
                    wire,
                    server,
                    cipher,
                    sent,
                    got,
                    closed: false,
                    tampered: false,
                    over: None,
                    delivered_end: false,
                };
            }
            if !cipher.is_empty() {
                feeder.deliver(Read::Data(Segment::copy_of(&cipher)));
            }
        }
        panic!("the handshake goes on for ever");
    }

    fn encrypt(&mut self) {
        while self.server.wants_write() {
            self.server.write_tls(&mut self.cipher).expect("into memory");
        }
    }

    fn say(&mut self, bytes: usize) {
        if self.closed {
            return;
        }
        let start = self.sent.len();
        self.sent.extend((start..start + bytes).map(|n| (n % 251) as u8));
        let mut said = 0;
        while said < bytes {
            said += self.server.writer().write(&self.sent[start + said..]).expect("into memory");
            self.encrypt();
        }
    }

    /// The server says that nothing more comes, or changes its keys first.
    fn close(&mut self, amount: usize) {
        if amount.is_multiple_of(2) && !self.closed {
            self.server.refresh_traffic_keys().expect("TLS 1.3");
        } else {
            self.server.send_close_notify();
            self.closed = true;
        }
        self.encrypt();
    }

    /// The network delivers up to `bytes`, if the client has taken what came before.
    fn deliver(&mut self, bytes: usize) {
        if self.cipher.is_empty() || self.delivered_end || !matches!(poll(self.feeder.vacancy()), Poll::Ready(true)) {
            return self.read();
        }
        let rest = self.cipher.split_off(bytes.min(self.cipher.len()));
        let read = std::mem::replace(&mut self.cipher, rest);
        self.feeder.deliver(Read::Data(Segment::copy_of(&read)));
    }

    fn tamper(&mut self, at: usize, change: impl Fn(&mut Vec<u8>, usize)) {
        if !self.cipher.is_empty() {
            let at = at % self.cipher.len();
            change(&mut self.cipher, at);
            self.tampered = true;
        }
    }

    /// The client reads for as long as something is there.
    fn read(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let bound = self.sent.len() + 8;
        for _ in 0..bound {
            match self.conn.inbound.poll_next(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Read::Data(segment)) => {
                    assert!(!segment.is_empty() && self.over != Some(true), "nothing comes after the end");
                    self.got.extend_from_slice(segment.live());
                    assert!(self.sent.starts_with(&self.got), "what comes out is what was said");
                }
                Poll::Ready(Read::End) => {
                    assert!(self.closed && self.got == self.sent, "an end that nobody said");
                    assert_ne!(self.over, Some(false), "no end after a failure");
                    self.over = Some(true);
                    return;
                }
                Poll::Ready(Read::Failed(kind)) => {
                    assert!(self.tampered || (self.delivered_end && kind == io::ErrorKind::UnexpectedEof), "{kind}");
                    self.over = Some(false);
                    return;
                }
            }
        }
        panic!("more reads than bytes");
    }

    /// The client writes; the server must get it, whatever happened on the way to the client.
    fn write(&mut self, bytes: usize) {
        if self.over.is_some() || self.tampered {
            return;
        }
        let said = vec![7; bytes];
        let Poll::Ready((result, back)) = poll(self.conn.outbound.write(Segment::copy_of(&said))) else {
            panic!("memory takes everything at once");
        };
        result.expect("a healthy session");
        assert_eq!(back.live(), said, "the segment comes back as it was");
        let cipher = std::mem::take(&mut *self.wire.0.borrow_mut());
        assert_eq!(take_in(&mut self.server, &cipher), said);
        self.encrypt();
    }

    /// Everything that is left arrives, then the end of the TCP connection.
    fn end(mut self) {
        let mut rounds = 0;
        while !self.cipher.is_empty() && self.over.is_none() {
            self.deliver(16 * 1024);
            self.read();
            rounds += 1;
            assert!(rounds < 10_000, "the client takes no more, and does not say so");
        }
        self.feeder.deliver(Read::End);
        self.delivered_end = true;
        self.read();
        let ended = self.over.expect("every connection comes to an end");
        if !self.tampered {
            assert_eq!((ended, &self.got), (self.closed, &self.sent), "untouched, all of it arrives");
        }
    }
}

/// The server takes ciphertext in; gives what it decrypts to.
fn take_in(server: &mut ServerConnection, mut cipher: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !cipher.is_empty() {
        server.read_tls(&mut cipher).expect("from memory");
        server.process_new_packets().expect("a true client");
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = server.reader().read(&mut piece) {
            plain.extend_from_slice(&piece[..length]);
        }
    }
    plain
}
