//! The way out for what the control thread asks on forebay's own account, by the rules that the workers go by: the same
//! first hop, the same guard, both families in turn, the same `CONNECT`, the same TLS settings. Only for threads that may
//! wait.

use super::resolve;
use crate::{
    base::{Span, bounds::INTERIM_ANSWERS_MAX},
    net::{
        Via,
        dial::{STAGGER, interleaved},
        tls, tunnel,
    },
    table::Upstream,
    wire::ResponseHead,
};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A connection that a request can be sent on.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Looks the upstream's first hop up and opens a connection to the upstream, TLS included where it has it. Takes as long
/// as it takes: whoever asks sets the bound.
///
/// # Errors
/// One line that says what did not work.
pub async fn open(upstream: &Upstream) -> Result<Box<dyn Stream>, String> {
    let addresses = resolve::addresses(upstream).await.map_err(|error| error.text.to_string())?;
    let stream = through(upstream, connect(&addresses).await?).await?;
    Ok(if upstream.tls { Box::new(secured(upstream, stream).await?) } else { Box::new(stream) })
}

/// The first address that takes a connection, each tried a little after the one before.
///
/// # Errors
/// What each address said.
pub async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let (mut waiting, mut running, mut errors) = (interleaved(addresses.iter().copied()), JoinSet::new(), Vec::new());
    loop {
        if let Some(address) = waiting.pop_front() {
            running
                .spawn(async move { TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}")) });
        }
        let turn = if waiting.is_empty() { Span(u64::MAX) } else { STAGGER };
        match tokio::time::timeout(turn.to_std(), running.join_next()).await {
            Err(_) => {}
            Ok(None) => return Err(errors.join("; ")),
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => errors.push(error),
            Ok(Some(Err(_))) => errors.push("internal error".into()),
        }
    }
}

/// Past the proxy, where one is on the way.
///
/// # Errors
/// What the proxy said.
pub async fn through(upstream: &Upstream, mut stream: TcpStream) -> Result<TcpStream, String> {
    if let Some(via) = &upstream.via {
        stream.write_all(via.request()).await.map_err(|error| format!("the proxy {}: {error}", via.name()))?;
        answer(via, &mut stream).await?;
    }
    Ok(stream)
}

/// Reads the answer to `CONNECT` byte by byte, so that none behind it is taken.
async fn answer(via: &Via, stream: &mut TcpStream) -> Result<(), String> {
    let (mut head, mut held, mut interim) = (ResponseHead::new(), Vec::new(), 0);
    loop {
        let byte = stream.read_u8().await;
        held.push(
            byte.map_err(|_| format!("the proxy {} closed the connection instead of answering CONNECT", via.name()))?,
        );
        match head.parse(&held, true) {
            Ok(None) => {}
            Ok(Some(_)) if head.status < 200 && interim < INTERIM_ANSWERS_MAX => {
                interim += 1;
                held.clear();
                head.reset();
            }
            Ok(Some(_)) => return tunnel::judge(via, head.status).map_err(|error| error.detail),
            Err(error) => return Err(format!("the proxy {} gave an answer that is not HTTP/1.1: {error}", via.name())),
        }
    }
}

/// TLS with the upstream, by the settings of the data path.
///
/// # Errors
/// Why it was not agreed on.
pub async fn secured(upstream: &Upstream, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let config = tls::client_config(&upstream.extra_ca).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(upstream.host.to_string()).map_err(|error| error.to_string())?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
}
