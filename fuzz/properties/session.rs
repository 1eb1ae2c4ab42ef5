//! TLS over an in-memory socket, as the client of an upstream and as the server of a client. A stranger's bytes in the
//! peer's place end the handshake in an error, soon. After a true handshake, whatever is lost, changed or added on the
//! way: what comes out is a beginning of what was said, an end is told only if the peer said it, and no step goes on for
//! ever.

use forebay::{
    net::{Conn, tls},
    rt::{
        Outbox, Read, Segment, Socket,
        inbox::{Feeder, inbox},
    },
    telemetry::Handshake,
};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection, pki_types::ServerName,
};
use std::{
    cell::RefCell,
    future::Future,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

/// The peer changes its keys so often at most: rustls refuses more than 32 changes without data between them.
const KEY_UPDATES_MAX: usize = 30;

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

/// Which end forebay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

fn name() -> ServerName<'static> {
    ServerName::try_from("upstream.example").expect("a name")
}

impl Role {
    /// forebay's handshake over `socket`; the connection if it comes about.
    fn handshake(self, socket: Socket<Wire>) -> Pin<Box<dyn Future<Output = Option<Conn<Wire>>>>> {
        let (for_server, for_client) = identity();
        match self {
            Role::Client => Box::pin(async { tls::connect(socket, Arc::clone(for_client), name()).await.ok() }),
            Role::Server => Box::pin(async {
                let (how, conn) = tls::accept(socket, Arc::clone(for_server)).await;
                let plain = matches!(how, Handshake::PlainHttp);
                assert_eq!(conn.is_some(), plain || matches!(how, Handshake::Full | Handshake::Resumed), "{how:?}");
                conn.filter(|_| !plain)
            }),
        }
    }

    /// The true other end.
    fn peer(self) -> Connection {
        let (for_server, for_client) = identity();
        match self {
            Role::Client => ServerConnection::new(Arc::clone(for_server)).expect("a session").into(),
            Role::Server => ClientConnection::new(Arc::clone(for_client), name()).expect("a session").into(),
        }
    }
}

/// The property of a session; the first byte says which.
pub fn session(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let role = if first & 2 == 0 { Role::Client } else { Role::Server };
    if first & 1 == 0 { stranger(role, rest) } else { peer(role, rest) }
}

/// Bytes that nobody encrypted, as the peer's part of a handshake, in reads of up to 600 bytes.
fn stranger(role: Role, bytes: &[u8]) {
    let (socket, feeder, _wire) = socket();
    let mut handshake = role.handshake(socket);
    let mut cx = Context::from_waker(Waker::noop());
    let mut reads = bytes.chunks(600);
    loop {
        if let Poll::Ready(conn) = handshake.as_mut().poll(&mut cx) {
            assert!(conn.is_none(), "nobody can guess a handshake");
            return;
        }
        assert!(poll(feeder.vacancy()).is_ready(), "it waits only for more");
        match reads.next() {
            Some(read) => assert!(feeder.deliver(Read::Data(Segment::copy_of(read)))),
            None => assert!(!feeder.deliver(Read::End)),
        }
    }
}

/// A connection after its handshake, and the true peer at its other end.
struct Pair {
    conn: Conn<Wire>,
    feeder: Feeder,
    wire: Wire,
    peer: Connection,
    /// Encrypted by the peer, not yet delivered.
    cipher: Vec<u8>,
    sent: Vec<u8>,
    got: Vec<u8>,
    key_updates: usize,
    /// The peer has said that nothing more comes.
    closed: bool,
    /// A byte was changed, added or lost on the way.
    tampered: bool,
    /// forebay has been told an end or a failure.
    over: Option<bool>,
    delivered_end: bool,
}

/// After a handshake, a script of what the peer says and what the network does to it.
fn peer(role: Role, script: &[u8]) {
    let mut pair = Pair::shake_hands(role);
    for step in script.chunks(2).take(200) {
        let amount = usize::from(step.get(1).copied().unwrap_or(1)) + 1;
        match step[0] % 12 {
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
            11 => pair.watch(),
            _ => pair.write(amount * 100),
        }
    }
    pair.end();
}

impl Pair {
    fn shake_hands(role: Role) -> Pair {
        let (socket, feeder, wire) = socket();
        let (mut handshake, mut peer) = (role.handshake(socket), role.peer());
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..20 {
            let polled = handshake.as_mut().poll(&mut cx);
            let said = std::mem::take(&mut *wire.0.borrow_mut());
            take_in(&mut peer, &said);
            let mut cipher = Vec::new();
            while peer.wants_write() {
                peer.write_tls(&mut cipher).expect("into memory");
            }
            if let Poll::Ready(conn) = polled {
                let conn = conn.expect("a true handshake");
                return Pair {
                    conn,
                    feeder,
                    wire,
                    peer,
                    cipher,
                    sent: Vec::new(),
                    got: Vec::new(),
                    key_updates: 0,
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
        while self.peer.wants_write() {
            self.peer.write_tls(&mut self.cipher).expect("into memory");
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
            said += self.peer.writer().write(&self.sent[start + said..]).expect("into memory");
            self.encrypt();
        }
    }

    /// The peer says that nothing more comes, or changes its keys first.
    fn close(&mut self, amount: usize) {
        if amount.is_multiple_of(2) && self.key_updates == KEY_UPDATES_MAX {
            return;
        }
        if amount.is_multiple_of(2) && !self.closed {
            self.key_updates += 1;
            self.peer.refresh_traffic_keys().expect("TLS 1.3");
        } else {
            self.peer.send_close_notify();
            self.closed = true;
        }
        self.encrypt();
    }

    /// The network delivers up to `bytes`, if forebay has taken what came before.
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

    /// forebay looks whether the peer is still there, as it does while it does not read.
    fn watch(&mut self) {
        let gone = self.conn.inbound.poll_gone(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!gone || self.closed || self.tampered || self.delivered_end, "a peer that is there is told gone");
    }

    /// forebay reads for as long as something is there.
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

    /// forebay writes; the peer must get it.
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
        assert_eq!(take_in(&mut self.peer, &cipher), said);
        self.encrypt();
    }

    /// Everything that is left arrives, then the end of the TCP connection.
    fn end(mut self) {
        let mut rounds = 0;
        while !self.cipher.is_empty() && self.over.is_none() {
            self.deliver(16 * 1024);
            self.read();
            rounds += 1;
            assert!(rounds < 10_000, "no more is taken, and nobody says so");
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

/// The peer takes ciphertext in; gives what it decrypts to.
fn take_in(peer: &mut Connection, mut cipher: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !cipher.is_empty() {
        peer.read_tls(&mut cipher).expect("from memory");
        peer.process_new_packets().expect("a true peer");
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = peer.reader().read(&mut piece) {
            plain.extend_from_slice(&piece[..length]);
        }
    }
    plain
}
