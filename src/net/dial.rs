//! Opening a connection to an upstream: a race of its addresses for TCP (RFC 8305), then the proxy's `CONNECT` where one
//! is on the way, then TLS.
//!
//! The race: both families in turn, the next address 250 ms after the one before, or at once when that one failed. The
//! first to connect wins and the others are dropped. When the winner then fails, those that have not failed race again.

use super::{Conn, egress::Via, guard::Guard, tls, tunnel};
use crate::{
    base::{Kind, Span},
    rt::{Runtime, Socket, deadline},
};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

/// The head start of each address over the next; RFC 8305 section 5 recommends it.
pub const STAGGER: Span = Span::from_ms(250);
/// Addresses that one dial tries at most.
const ADDRESSES_MAX: usize = 16;

/// TLS settings, and the name that the certificate must carry.
pub type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// The same for every upstream slot; `None` for plain HTTP.
pub type TlsBySlot = Vec<Option<Tls>>;

/// Where and how to connect. What the addresses are is not known here: names are resolved by `control`.
#[derive(Clone)]
pub struct Endpoint {
    /// `None` is plain HTTP.
    pub tls: Option<Tls>,
    /// The proxy that the addresses belong to; `None` when they are the upstream's own.
    pub via: Option<Arc<Via>>,
    /// Which addresses may be connected to.
    pub guard: Guard,
    /// The longest wait for TCP, per address, and for a proxy's answer.
    pub connect: Span,
    /// The longest wait for the TLS handshake.
    pub handshake: Span,
}

/// Why no connection came about.
#[derive(Debug)]
pub struct DialError {
    /// The row of the failure table.
    pub kind: Kind,
    /// What the system or the proxy said, for the operator. Never a secret.
    pub detail: String,
}

/// Connects to the first of `addresses` that answers. Takes at most twice the time of TCP, proxy and TLS together, and a
/// head start for each address.
///
/// # Errors
/// The last address's failure; `NameUnresolved` when there is none, `AddressRefused` when the guard lets none through.
pub async fn dial<R: Runtime>(
    rt: &R,
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
) -> Result<Conn<R::Outbox>, DialError> {
    let mut race = Race::new(rt, endpoint, addresses);
    let until = rt.now().after(endpoint.connect).after(endpoint.handshake);
    loop {
        let socket = race.winner().await?;
        match establish(rt, endpoint, socket).await {
            Ok(conn) => return Ok(conn),
            // Another of its addresses would say the same.
            Err(error) if error.kind == Kind::ProxyRefused => return Err(error),
            Err(error) if rt.now() >= until => return Err(error),
            Err(error) => race.last = error,
        }
    }
}

/// The addresses in the order in which they are tried: the resolver's, but with the families in turn, that of the first
/// address first (RFC 8305 section 4).
pub fn interleaved(addresses: impl IntoIterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut first_is_v6 = None;
    let (mut first, mut second) = (VecDeque::new(), VecDeque::new());
    for address in addresses {
        let is_first = *first_is_v6.get_or_insert(address.is_ipv6()) == address.is_ipv6();
        if is_first { &mut first } else { &mut second }.push_back(address);
    }
    let mut order = VecDeque::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        order.extend(first.pop_front());
        order.extend(second.pop_front());
    }
    order
}

/// What came of one address: `None` when its time was up.
type Ended<R> = Option<io::Result<Socket<<R as Runtime>::Outbox>>>;

/// One address that is being connected to.
struct Runner<R: Runtime> {
    address: SocketAddr,
    ending: Pin<Box<dyn Future<Output = Ended<R>>>>,
}

struct Race<'a, R: Runtime> {
    rt: &'a R,
    endpoint: &'a Endpoint,
    waiting: VecDeque<SocketAddr>,
    running: Vec<Runner<R>>,
    last: DialError,
}

impl<'a, R: Runtime> Race<'a, R> {
    fn new(rt: &'a R, endpoint: &'a Endpoint, addresses: &[SocketAddr]) -> Race<'a, R> {
        let mut last = DialError { kind: Kind::NameUnresolved, detail: "the host name has no address".into() };
        let mut allowed = Vec::new();
        for address in addresses.iter().take(ADDRESSES_MAX) {
            match endpoint.guard.told(address.ip()) {
                Some(told) => last = DialError { kind: Kind::AddressRefused, detail: format!("it is at {told}") },
                None => allowed.push(*address),
            }
        }
        Race { rt, endpoint, waiting: interleaved(allowed), running: Vec::new(), last }
    }

    /// The first address to connect. The others go back to where they waited.
    async fn winner(&mut self) -> Result<Socket<R::Outbox>, DialError> {
        loop {
            self.start_next();
            if self.running.is_empty() {
                let none = DialError { kind: self.last.kind, detail: String::new() };
                return Err(std::mem::replace(&mut self.last, none));
            }
            match self.next_end().await {
                None => {}
                Some((_, Some(Ok(socket)))) => {
                    for loser in self.running.drain(..).rev() {
                        self.waiting.push_front(loser.address);
                    }
                    return Ok(socket);
                }
                Some((address, ended)) => self.last = self.failed(address, ended),
            }
        }
    }

    fn start_next(&mut self) {
        let Some(address) = self.waiting.pop_front() else { return };
        let (rt, until) = (self.rt.clone(), self.rt.now().after(self.endpoint.connect));
        let ending = Box::pin(async move { deadline(&rt, until, rt.connect(address)).await });
        self.running.push(Runner { address, ending });
    }

    /// The next address whose race is over; `None` when it is the next one's turn to start.
    async fn next_end(&mut self) -> Option<(SocketAddr, Ended<R>)> {
        let is_last = self.waiting.is_empty();
        let mut turn = pin!(self.rt.sleep_until(self.rt.now().after(STAGGER)));
        let running = &mut self.running;
        poll_fn(|cx| {
            for at in 0..running.len() {
                let Some(runner) = running.get_mut(at) else { break };
                if let Poll::Ready(ended) = runner.ending.as_mut().poll(cx) {
                    return Poll::Ready(Some((running.remove(at).address, ended)));
                }
            }
            if is_last { Poll::Pending } else { turn.as_mut().poll(cx).map(|()| None) }
        })
        .await
    }

    fn failed(&self, address: SocketAddr, ended: Ended<R>) -> DialError {
        let (kind, what) = match ended {
            Some(ended) => (Kind::ConnectFailed, ended.err().map_or_else(String::new, |error| error.to_string())),
            None => (Kind::ConnectTimeout, format!("no connection within {} ms", self.endpoint.connect.as_ms())),
        };
        match &self.endpoint.via {
            None => DialError { kind, detail: format!("{address}: {what}") },
            Some(via) => tunnel::failed(via, Kind::ProxyFailed, &format!("cannot be reached: {address}: {what}")),
        }
    }
}

/// What comes after TCP: the proxy, then TLS.
async fn establish<R: Runtime>(
    rt: &R,
    endpoint: &Endpoint,
    mut socket: Socket<R::Outbox>,
) -> Result<Conn<R::Outbox>, DialError> {
    let address = socket.peer;
    if let Some(via) = &endpoint.via {
        let opening = deadline(rt, rt.now().after(endpoint.connect), tunnel::open(socket, via));
        let Some(opened) = opening.await else {
            let what = format!("did not answer CONNECT within {} ms", endpoint.connect.as_ms());
            return Err(tunnel::failed(via, Kind::ProxyFailed, &what));
        };
        socket = opened?;
    }
    let Some((config, name)) = &endpoint.tls else { return Ok(Conn::plain(socket)) };
    let failed = |what: String| {
        let way = endpoint.via.as_ref().map_or_else(String::new, |via| format!("behind the proxy {}: ", via.name()));
        DialError { kind: Kind::TlsFailed, detail: format!("{way}{address}: {what}") }
    };
    let handshake = tls::connect(socket, Arc::clone(config), name.clone());
    match deadline(rt, rt.now().after(endpoint.handshake), handshake).await {
        Some(Ok(conn)) => Ok(conn),
        Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(failed(error.to_string())),
        Some(Err(error)) => Err(failed(format!("the handshake broke off: {error}"))),
        None => Err(failed(format!("no handshake within {} ms", endpoint.handshake.as_ms()))),
    }
}

#[cfg(test)]
mod tests;
