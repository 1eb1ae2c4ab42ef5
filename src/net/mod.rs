//! Connections: listening sockets, TLS, dialling, and the pool of idle upstream connections. Not HTTP: bytes only.

pub mod conn;
pub mod dial;
pub mod listener;
pub mod pool;
pub mod tls;

pub use conn::{Conn, Inbound, Outbound};
pub use dial::{DialError, Endpoint, Tls, dial};
pub use pool::Pool;
