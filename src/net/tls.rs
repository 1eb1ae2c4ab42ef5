//! TLS over an inbox and an outbox, for either side: rustls for the protocol, this file only moves bytes. Both
//! directions share one session; neither holds it over a wait. What the reading side has to send (a key update's
//! answer) leaves with the next write, as RFC 8446 section 4.6.3 allows.
//!
//! An idle session holds no buffer of ours: segments come from the core's free list for one write and go back.

use super::{
    conn::{Conn, Inbound, Outbound},
    identity::Identity,
};
use crate::{
    rt::{Inbox, Outbox, Read, Segment, Socket},
    telemetry::Handshake,
};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
};
use std::{
    cell::RefCell,
    io::{self, Read as _, Write},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

/// The protocols that are offered and accepted (RFC 7301). **The seam for HTTP/2**: with `h2` in here, `accept` and
/// `connect` say which protocol was agreed on, and `worker::greet` and `net::dial` hand the connection to it.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];
/// What one record adds to its plaintext (RFC 8446 section 5.2; TLS 1.2 is the larger), rounded up.
const RECORD_EXTRA_BYTES: usize = 32;
/// Plaintext that is encrypted at once: with two records' overhead it fills a pooled segment of 32 KiB.
const WRITE_BYTES_MAX: usize = 32 * 1024 - 4 * RECORD_EXTRA_BYTES;
/// Room for a flight of the handshake; a longer one leaves in several writes.
const FLIGHT_BYTES: usize = 4 * 1024;
/// Decrypted bytes that may wait in a session; rustls refuses more ciphertext above this.
const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn protocols() -> Vec<Vec<u8>> {
    PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect()
}

/// Client settings for one upstream: the Mozilla roots and `extra_ca` (DER certificates).
///
/// # Errors
/// When one of `extra_ca` is not a certificate that can be trusted.
pub fn client_config(extra_ca: &[Vec<u8>]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for der in extra_ca {
        roots.add(der.clone().into())?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols();
    Ok(Arc::new(config))
}

/// Server settings that show `identity`: TLS 1.3 and 1.2, no early data. Sessions resume by tickets alone, so on every
/// core and without memory here; the tickets' keys live as long as these settings, so that a new certificate is shown
/// to everyone.
///
/// # Errors
/// When the system gives no random numbers.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.certified))));
    config.alpn_protocols = protocols();
    config.ignore_client_order = true; // AES-GCM first: servers and laptops have instructions for it
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Shakes hands as a client over `socket`. Not cancel-safe: dropped in the middle, the connection is lost, as it is
/// on failure.
///
/// # Errors
/// The socket's; `InvalidData` with the reason when the peer's certificate or protocol is refused.
pub async fn connect<O: Outbox>(
    socket: Socket<O>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<Conn<O>> {
    let session = ClientConnection::new(config, name).map_err(refused)?;
    shake(socket, shared(session.into()), None).await.map_err(explained)
}

/// Shakes hands as a server over `socket`, and says how that went. `Full` and `Resumed` come with the session,
/// `PlainHttp` with the connection as it is, its first bytes taken; nothing else comes with a connection. Not
/// cancel-safe, and without a bound in time of its own.
pub async fn accept<O: Outbox>(mut socket: Socket<O>, config: Arc<ServerConfig>) -> (Handshake, Option<Conn<O>>) {
    let Read::Data(first) = socket.inbox.next().await else { return (Handshake::Closed, None) };
    // A method's first letter; a TLS record begins with its type, 20 to 23.
    if first.live().first().is_some_and(u8::is_ascii_uppercase) {
        return (Handshake::PlainHttp, Some(Conn::plain(socket)));
    }
    let session = match ServerConnection::new(config) {
        Ok(session) => shared(session.into()),
        Err(_) => return (Handshake::Refused, None),
    };
    match shake(socket, session, Some(first)).await {
        Ok(conn) => (if conn.is_resumed() { Handshake::Resumed } else { Handshake::Full }, Some(conn)),
        Err(error) => (outcome(&error), None),
    }
}

/// What a failed handshake with a client is counted as.
fn outcome(error: &io::Error) -> Handshake {
    use AlertDescription as Alert;
    if error.kind() != io::ErrorKind::InvalidData {
        return Handshake::Closed;
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA,
        )) => Handshake::Distrusted,
        _ => Handshake::Refused,
    }
}

fn refused(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The same error, in words for the operator where the protocol's own leave a question.
fn explained(error: io::Error) -> io::Error {
    use rustls::CertificateError as Fault;
    let text = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(Fault::UnknownIssuer)) => {
            "its certificate is of a CA that is not known here; `ca_file` adds one"
        }
        Some(rustls::Error::InvalidCertificate(Fault::Expired | Fault::ExpiredContext { .. })) => {
            "its certificate has ended"
        }
        Some(rustls::Error::InvalidCertificate(Fault::NotValidYet | Fault::NotValidYetContext { .. })) => {
            "its certificate is not good yet, or this machine's clock is behind"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

/// The session for both directions. Outside of the futures, which it would make large.
fn shared(mut session: Connection) -> Session {
    session.set_buffer_limit(Some(WRITE_BYTES_MAX));
    Rc::new(RefCell::new(session))
}

/// Runs the handshake of `session`, for which `first` has come already.
async fn shake<O: Outbox>(socket: Socket<O>, session: Session, first: Option<Segment>) -> io::Result<Conn<O>> {
    let mut inbound =
        TlsInbound { raw: socket.inbox, session: Rc::clone(&session), cipher: first, closed: false, broken: None };
    let mut outbound = TlsOutbound { raw: socket.outbox, session };
    loop {
        let decrypted = inbound.decrypt();
        // In a failure this is the alert, which tells the peer why.
        let flushed = outbound.flush(FLIGHT_BYTES).await;
        decrypted?;
        flushed?;
        if !outbound.session.borrow().is_handshaking() {
            break;
        }
        match inbound.raw.next().await {
            Read::Data(cipher) => inbound.cipher = Some(cipher),
            Read::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            Read::Failed(kind) => return Err(kind.into()),
        }
    }
    Ok(Conn { inbound: Inbound::Tls(inbound), outbound: Outbound::Tls(outbound), peer: socket.peer })
}

type Session = Rc<RefCell<Connection>>;

/// The reading side.
pub struct TlsInbound {
    raw: Inbox,
    session: Session,
    /// Ciphertext that the session has not taken yet: it stops when it holds enough plaintext.
    cipher: Option<Segment>,
    /// `close_notify` has come.
    closed: bool,
    /// The peer has broken the protocol.
    broken: Option<io::ErrorKind>,
}

impl TlsInbound {
    /// The next plaintext. A connection that ends without `close_notify` is `Failed(UnexpectedEof)`: a truncation.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        loop {
            if let Some(read) = self.plaintext() {
                return Poll::Ready(read);
            }
            if let Some(kind) = self.broken {
                return Poll::Ready(Read::Failed(kind));
            }
            if self.cipher.is_none() {
                match self.raw.poll_next(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Read::Data(cipher)) => self.cipher = Some(cipher),
                    Poll::Ready(Read::End) => return Poll::Ready(Read::Failed(io::ErrorKind::UnexpectedEof)),
                    Poll::Ready(failed) => return Poll::Ready(failed),
                }
            }
            let _ = self.decrypt(); // a failure is in `broken`
        }
    }

    /// Ready once the peer has said `close_notify` or the TCP connection has ended. What comes is decrypted as far as
    /// the session takes it: the end may stand behind it.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.closed || self.broken.is_some() {
                return Poll::Ready(());
            }
            let _ = self.decrypt();
            if self.cipher.is_some() {
                return self.raw.poll_gone(cx);
            }
            match self.raw.poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Read::Data(cipher)) => self.cipher = Some(cipher),
                Poll::Ready(Read::End | Read::Failed(_)) => return Poll::Ready(()),
            }
        }
    }

    /// See `Inbound::expect`.
    pub fn expect(&mut self, bytes: usize) {
        self.raw.expect(bytes);
    }

    /// Feeds waiting ciphertext to the session, as much as it takes.
    fn decrypt(&mut self) -> io::Result<()> {
        let Some(mut cipher) = self.cipher.take() else { return Ok(()) };
        let mut session = self.session.borrow_mut();
        loop {
            let state = session.process_new_packets().map_err(|error| {
                self.broken = Some(io::ErrorKind::InvalidData);
                refused(error)
            })?;
            self.closed |= state.peer_has_closed();
            if cipher.is_empty() || self.closed {
                return Ok(());
            }
            if state.plaintext_bytes_to_read() >= PLAINTEXT_BYTES_MAX {
                break;
            }
            match session.read_tls(&mut cipher.live()) {
                Ok(taken) if taken > 0 => cipher.consume(taken),
                _ => {
                    self.broken = Some(io::ErrorKind::InvalidData);
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        self.cipher = Some(cipher);
        Ok(())
    }

    /// What the session has decrypted already; `None` when it needs more ciphertext.
    fn plaintext(&mut self) -> Option<Read> {
        let mut session = self.session.borrow_mut();
        let waiting = session.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read());
        if waiting == 0 {
            return self.closed.then_some(Read::End);
        }
        let mut segment = Segment::with_room(waiting);
        segment.fill_with(|spare| session.reader().read(spare).unwrap_or(0));
        (!segment.is_empty()).then_some(Read::Data(segment))
    }
}

impl<O: Outbox> Conn<O> {
    /// Whether this is a TLS session that resumes an earlier one.
    pub fn is_resumed(&self) -> bool {
        match &self.inbound {
            Inbound::Plain(_) => false,
            Inbound::Tls(tls) => tls.session.borrow().handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// The writing side.
pub struct TlsOutbound<O> {
    raw: O,
    session: Session,
}

impl<O: Outbox> TlsOutbound<O> {
    /// Encrypts and writes all of `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            let taken = self.session.borrow_mut().writer().write(rest);
            match taken {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    written += taken;
                    self.flush(taken + 2 * RECORD_EXTRA_BYTES).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says `close_notify` and ends the writing side. Waits as long as the peer does not read.
    pub async fn finish(&mut self) {
        self.session.borrow_mut().send_close_notify();
        let _ = self.flush(2 * RECORD_EXTRA_BYTES).await;
        self.raw.finish();
    }

    /// Drops the connection at once.
    pub fn abort(&mut self) {
        self.raw.abort();
    }

    /// Writes what the session wants to send, about `bytes` at a time.
    async fn flush(&mut self, bytes: usize) -> io::Result<()> {
        while self.session.borrow().wants_write() {
            let mut cipher = Segment::with_room(bytes);
            while self.session.borrow().wants_write() && cipher.room() > 0 {
                self.session.borrow_mut().write_tls(&mut Filling(&mut cipher))?;
            }
            self.raw.write(cipher).await.0?;
        }
        Ok(())
    }
}

/// Lets rustls write its records into a segment.
struct Filling<'a>(&'a mut Segment);

impl Write for Filling<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0.room());
        self.0.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
