//! Opening a connection to an upstream: addresses in order, each with its own time to connect, then TLS.

use super::{Conn, tls};
use crate::{
    base::{Kind, Span},
    rt::{Runtime, deadline},
};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{io, net::SocketAddr, sync::Arc};

/// TLS settings, and the name that the certificate must carry.
pub type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// Where and how to connect. What the addresses are is not known here: names are resolved by `control`.
#[derive(Clone)]
pub struct Endpoint {
    /// `None` is plain HTTP.
    pub tls: Option<Tls>,
    /// The longest wait for TCP, per address.
    pub connect: Span,
    /// The longest wait for the TLS handshake.
    pub handshake: Span,
}

/// Why no connection came about.
#[derive(Debug)]
pub struct DialError {
    /// The row of the failure table.
    pub kind: Kind,
    /// What the system said, for the operator.
    pub detail: String,
}

/// Connects to the first of `addresses` that answers.
///
/// # Errors
/// The last address's failure; `NameUnresolved` when there is none.
pub async fn dial<R: Runtime>(
    rt: &R,
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
) -> Result<Conn<R::Outbox>, DialError> {
    let mut last = DialError { kind: Kind::NameUnresolved, detail: "the host name has no address".into() };
    for address in addresses {
        match dial_one(rt, endpoint, *address).await {
            Ok(conn) => return Ok(conn),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn dial_one<R: Runtime>(rt: &R, endpoint: &Endpoint, address: SocketAddr) -> Result<Conn<R::Outbox>, DialError> {
    let failed = |kind, what: String| DialError { kind, detail: format!("{address}: {what}") };
    let socket = match deadline(rt, rt.now().after(endpoint.connect), rt.connect(address)).await {
        Some(Ok(socket)) => socket,
        Some(Err(error)) => return Err(failed(Kind::ConnectFailed, error.to_string())),
        None => {
            return Err(failed(Kind::ConnectTimeout, format!("no connection within {} ms", endpoint.connect.as_ms())));
        }
    };
    let Some((config, name)) = &endpoint.tls else { return Ok(Conn::plain(socket)) };
    let handshake = tls::connect(socket, Arc::clone(config), name.clone());
    match deadline(rt, rt.now().after(endpoint.handshake), handshake).await {
        Some(Ok(conn)) => Ok(conn),
        Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Err(failed(Kind::TlsFailed, error.to_string()))
        }
        Some(Err(error)) => Err(failed(Kind::TlsFailed, format!("the handshake broke off: {error}"))),
        None => Err(failed(Kind::TlsFailed, format!("no handshake within {} ms", endpoint.handshake.as_ms()))),
    }
}
