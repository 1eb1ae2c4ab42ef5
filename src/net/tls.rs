//! TLS over an inbox and an outbox: rustls for the protocol, this file only moves bytes. Both directions share one
//! session; neither holds it over a wait. What the reading side has to send (a key update's answer) leaves with the
//! next write, as RFC 8446 section 4.6.3 allows.

use super::conn::{Conn, Inbound, Outbound};
use crate::rt::{Inbox, Outbox, Read, Segment, Socket};
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
use std::{
    cell::RefCell,
    io::{self, Read as _, Write},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

/// One TLS record with its overhead (RFC 8446 section 5.2), rounded up.
const RECORD_BYTES: usize = 18 * 1024;
/// Decrypted bytes that may wait in a session; rustls refuses more ciphertext above this.
const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;

/// Client settings for one upstream: the Mozilla roots and `extra_ca` (DER certificates).
///
/// # Errors
/// When one of `extra_ca` is not a certificate that can be trusted.
pub fn client_config(extra_ca: &[Vec<u8>]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for der in extra_ca {
        roots.add(der.clone().into())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
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
    let session =
        ClientConnection::new(config, name).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let session = Rc::new(RefCell::new(session));
    let mut inbound = TlsInbound { raw: socket.inbox, session: Rc::clone(&session), cipher: None, closed: false };
    let mut outbound = TlsOutbound { raw: socket.outbox, session, cipher: None };
    loop {
        outbound.flush().await?;
        if !outbound.session.borrow().is_handshaking() {
            break;
        }
        match inbound.raw.next().await {
            Read::Data(cipher) => {
                inbound.cipher = Some(cipher);
                if let Err(error) = inbound.decrypt() {
                    // The alert tells the peer why.
                    let _ = outbound.flush().await;
                    return Err(error);
                }
            }
            Read::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            Read::Failed(kind) => return Err(kind.into()),
        }
    }
    Ok(Conn { inbound: Inbound::Tls(inbound), outbound: Outbound::Tls(outbound), peer: socket.peer })
}

type Session = Rc<RefCell<ClientConnection>>;

/// The reading side.
pub struct TlsInbound {
    raw: Inbox,
    session: Session,
    /// Ciphertext that the session has not taken yet: it stops when it holds enough plaintext.
    cipher: Option<Segment>,
    closed: bool,
}

impl TlsInbound {
    /// The next plaintext. A connection that ends without `close_notify` is `Failed(UnexpectedEof)`: a truncation.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        loop {
            if let Some(read) = self.plaintext() {
                return Poll::Ready(read);
            }
            if self.cipher.is_none() {
                match self.raw.poll_next(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Read::Data(cipher)) => self.cipher = Some(cipher),
                    Poll::Ready(Read::End) if self.closed => return Poll::Ready(Read::End),
                    Poll::Ready(Read::End) => return Poll::Ready(Read::Failed(io::ErrorKind::UnexpectedEof)),
                    Poll::Ready(failed) => return Poll::Ready(failed),
                }
            }
            if let Err(error) = self.decrypt() {
                return Poll::Ready(Read::Failed(error.kind()));
            }
        }
    }

    /// Ready once the TCP connection has ended.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closed { Poll::Ready(()) } else { self.raw.poll_gone(cx) }
    }

    /// See `Inbound::expect`.
    pub fn expect(&mut self, bytes: usize) {
        self.raw.expect(bytes);
    }

    /// Feeds waiting ciphertext to the session, as much as it takes.
    fn decrypt(&mut self) -> io::Result<()> {
        let Some(mut cipher) = self.cipher.take() else { return Ok(()) };
        let mut session = self.session.borrow_mut();
        while !cipher.is_empty() {
            let taken = session.read_tls(&mut cipher.live())?;
            cipher.consume(taken);
            let state =
                session.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.closed |= state.peer_has_closed();
            if state.plaintext_bytes_to_read() >= PLAINTEXT_BYTES_MAX {
                break;
            }
            if taken == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if !cipher.is_empty() && !self.closed {
            self.cipher = Some(cipher);
        }
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

/// The writing side.
pub struct TlsOutbound<O> {
    raw: O,
    session: Session,
    /// The segment that the last ciphertext left in, for the next.
    cipher: Option<Segment>,
}

impl<O: Outbox> TlsOutbound<O> {
    /// Encrypts and writes all live bytes; hands the segment back as it was.
    pub async fn write(&mut self, segment: Segment) -> (io::Result<()>, Segment) {
        let mut written = 0;
        while written < segment.len() {
            let taken = self.session.borrow_mut().writer().write(&segment.live()[written..]);
            let flushed = match taken {
                Ok(taken) => {
                    written += taken;
                    self.flush().await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = flushed {
                return (Err(error), segment);
            }
        }
        (Ok(()), segment)
    }

    /// Says `close_notify` and ends the writing side.
    pub async fn finish(&mut self) {
        self.session.borrow_mut().send_close_notify();
        let _ = self.flush().await;
        self.raw.finish();
    }

    /// Drops the connection at once.
    pub fn abort(&mut self) {
        self.raw.abort();
    }

    /// Writes what the session wants to send.
    async fn flush(&mut self) -> io::Result<()> {
        loop {
            let mut cipher = self.cipher.take().unwrap_or_else(|| Segment::with_room(RECORD_BYTES));
            cipher.clear();
            while self.session.borrow().wants_write() && cipher.room() > 0 {
                self.session.borrow_mut().write_tls(&mut Filling(&mut cipher))?;
            }
            if cipher.is_empty() {
                self.cipher = Some(cipher);
                return Ok(());
            }
            let (result, cipher) = self.raw.write(cipher).await;
            self.cipher = Some(cipher);
            result?;
        }
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
