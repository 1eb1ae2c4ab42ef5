//! What the machine must give a crowd: descriptors, and addresses to come from.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Loopback addresses that clients come from: each has ports of its own, so that none runs short.
const SOURCES: u8 = 16;
/// A proxy that does not accept within this is broken.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Raises this process's limit of open files as far as the system lets us; how many there may be.
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_files() -> io::Result<u64> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    Ok(hard.unwrap_or(u64::MAX))
}

/// Refuses a plan that needs more descriptors than there are.
///
/// # Errors
/// When it does.
pub fn need_files(wanted: u64) -> io::Result<()> {
    let most = raise_files()?;
    if most >= wanted {
        return Ok(());
    }
    Err(io::Error::other(format!("{wanted} descriptors are needed and {most} may be had; raise `ulimit -Hn`")))
}

/// Client number `number`: from one of several source addresses where `to` is IPv4, with a receive buffer of about
/// `receive_bytes` if that is said.
///
/// # Errors
/// Those of bind(2) and connect(2).
pub fn connect(to: SocketAddr, number: usize, receive_bytes: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), None)?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if to.is_ipv4() {
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % usize::from(SOURCES)) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect_timeout(&to.into(), CONNECT_MAX)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Ends a connection by a reset, which leaves nothing behind on either side.
pub fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}
