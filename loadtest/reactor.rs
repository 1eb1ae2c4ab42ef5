//! One thread's event loop: readiness by epoll, and waits that end within microseconds of their time.
//!
//! Deliberately not forebay's own runtime: what measures must not share the faults, or the batching, of what is
//! measured. An async runtime's timers also tick in milliseconds, which is longer than most of what is measured here.

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    thread::set_current_timer_slack,
};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

/// Events taken from the kernel at once.
const BATCH: usize = 256;

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The key that it was added under.
    pub key: u64,
    /// Bytes, an end or a failure can be read.
    pub readable: bool,
    /// More can be written.
    pub writable: bool,
}

/// The loop.
pub struct Reactor {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Reactor {
    /// A loop that watches nothing.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Reactor> {
        // The kernel may end waits 50 us late to save wake-ups; that is what is measured here, so it may not.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        Ok(Reactor { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// Watches for bytes to read.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn add(&self, fd: impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?)
    }

    /// Watches, besides bytes to read, for room to write, or no longer.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn want_room(&self, fd: impl AsFd, key: u64, wanted: bool) -> io::Result<()> {
        let room = if wanted { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN | room)?)
    }

    /// Watches for nothing but an end of the connection in both directions, or for bytes to read again.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn pause(&self, fd: impl AsFd, key: u64, paused: bool) -> io::Result<()> {
        let flags = if paused { epoll::EventFlags::empty() } else { epoll::EventFlags::IN };
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(key), flags)?)
    }

    /// Waits until something is ready, or until `until`; puts what is ready into `ready`.
    ///
    /// # Errors
    /// Those of epoll_pwait2(2), but for an interruption.
    pub fn wait(&mut self, until: Instant, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                key: event.data.u64(),
                readable: flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR),
                writable: flags.contains(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

/// Reads once; `None` when there is nothing to read yet, `Some(0)` at the end.
///
/// # Errors
/// Those of read(2).
pub fn read(mut stream: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(into) {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes what the socket takes, and says how much that was.
///
/// # Errors
/// Those of write(2).
pub fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match stream.write(bytes.get(done..).unwrap_or_default()) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
