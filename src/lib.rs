//! forebay: the edge router that an engineering org puts in front of its coding agents.
//!
//! The modules, in floor order. A module imports only from floors below its own, and siblings do not import each
//! other; `tests/tidy.rs` holds them to it. To understand the product, read `serve/exchange.rs`.

pub mod auth; //      4  the credential in a head -> a caller; pure
pub mod base; //      0  time, units, bounds, and the one table of failures
pub mod boot; //      8  build all, pin the workers, wait for a signal
pub mod cli; //       9  one file a command
pub mod config; //    4  the configuration as written, its errors, and its compilation; pure but for reading files
pub mod control; //   7  the thread that may block: names, logs, the admin listener
pub mod dialect; //   2  what an API's bodies mean; pure
pub mod meter; //     4  the tap: usage seen in an answer as it passes; pure
pub mod mock; //      5  the simulated provider
pub mod net; //       2  listener, TLS, dialling, connection pool
pub mod rt; //        1  the only door to the machine: clock, tasks, sockets, ring or epoll
pub mod serve; //     5  one client's connection, one exchange: the story
#[cfg(any(test, feature = "sim"))]
pub mod sim; //       8  a seeded world to run `serve` in, and its judge
pub mod table; //     3  the compiled, immutable configuration; pure
pub mod telemetry; // 1  per-core counters, and the record of one exchange
pub mod upstream; //  4  what is known of upstreams while they run: health, room, caches; choosing; pure
pub mod wire; //      1  bytes of HTTP/1.1, SSE and JSON; pure
pub mod worker; //    6  one core's loop
