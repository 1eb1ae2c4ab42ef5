//! Connections: listening sockets, TLS, dialling, proxies on the way, and the pool of idle upstream connections. Not
//! HTTP: bytes only, but for a proxy's `CONNECT`.

pub mod conn;
pub mod dial;
pub mod egress;
pub mod guard;
pub mod identity;
pub mod listener;
pub mod pool;
pub mod tls;
pub mod tunnel;
pub mod x509;

pub use conn::{Conn, Inbound, Outbound};
pub use dial::{DialError, Endpoint, Tls, TlsBySlot, dial};
pub use egress::Via;
pub use guard::Guard;
pub use identity::Identity;
pub use pool::Pool;
pub use x509::Certificate;
