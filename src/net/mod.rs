//! Connections: listening sockets, TLS, dialling, and the pool of idle upstream connections. Not HTTP: bytes only.

pub mod conn;
pub mod dial;
pub mod identity;
pub mod listener;
pub mod pool;
pub mod tls;
pub mod x509;

pub use conn::{Conn, Inbound, Outbound};
pub use dial::{DialError, Endpoint, Tls, dial};
pub use identity::Identity;
pub use pool::Pool;
pub use x509::Certificate;
