//! The real machine: monoio, on io_uring where the kernel lets us and on epoll elsewhere. The only file that names it.
#![allow(clippy::disallowed_methods)] // this is where the clock is read and where tasks start

use super::{
    Outbox, Read, Runtime, Segment, Socket,
    inbox::{Feeder, inbox},
};
use crate::base::{Mono, Wall};
use monoio::{
    IoUringDriver, LegacyDriver, RuntimeBuilder,
    buf::{IoBuf, IoBufMut},
    io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable},
    net::TcpStream,
};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

/// Submission-queue entries: enough that a busy loop turn never overflows the completion queue (twice as long).
const RING_ENTRIES: u32 = 4096;

/// What drives a worker's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, completions run when the worker asks (Linux 6.1).
    RingDeferred,
    /// io_uring, completions run at the next system call (Linux 6.0).
    RingCooperative,
    /// io_uring without flags.
    RingPlain,
    /// epoll: forced, or io_uring is not there (old kernel, `io_uring_disabled`, a container's seccomp profile).
    Epoll,
}

impl Driver {
    /// As it stands in logs and metrics.
    pub const fn slug(self) -> &'static str {
        match self {
            Driver::RingDeferred => "io_uring+defer_taskrun",
            Driver::RingCooperative => "io_uring+coop_taskrun",
            Driver::RingPlain => "io_uring",
            Driver::Epoll => "epoll",
        }
    }

    /// Why this driver and not a better one, for the operator.
    pub fn reason(self, forced: bool) -> &'static str {
        match self {
            Driver::RingDeferred => "the kernel offers everything",
            Driver::RingCooperative => "the kernel has no DEFER_TASKRUN (Linux 6.1)",
            Driver::RingPlain => "the kernel has no SINGLE_ISSUER (Linux 6.0)",
            Driver::Epoll if forced => "forced by the configuration",
            Driver::Epoll if std::env::var("MONOIO_FORCE_LEGACY_DRIVER").is_ok_and(|v| !matches!(&*v, "" | "0")) => {
                "forced by MONOIO_FORCE_LEGACY_DRIVER"
            }
            Driver::Epoll => "io_uring is not available: an old kernel, kernel.io_uring_disabled, or a seccomp profile",
        }
    }
}

/// The machine as one worker sees it.
#[derive(Clone)]
pub struct Ring {
    panics: Arc<AtomicU64>,
}

impl Ring {
    /// Builds this thread's event loop and runs `work` on it to its end. `panics` counts contained panics.
    ///
    /// Ring flags are tried in order, then epoll; `force_epoll` or `MONOIO_FORCE_LEGACY_DRIVER=1` skip the ring.
    ///
    /// # Errors
    /// When not even an epoll loop can be built.
    pub fn run<F: Future>(
        force_epoll: bool,
        panics: Arc<AtomicU64>,
        work: impl FnOnce(Ring, Driver) -> F,
    ) -> io::Result<F::Output> {
        let ring = Ring { panics };
        if !force_epoll && monoio::utils::detect_uring() {
            for driver in [Driver::RingDeferred, Driver::RingCooperative, Driver::RingPlain] {
                let builder = RuntimeBuilder::<IoUringDriver>::new()
                    .with_entries(RING_ENTRIES)
                    .uring_builder(flags(driver))
                    .enable_timer();
                if let Ok(mut runtime) = builder.build() {
                    return Ok(runtime.block_on(work(ring, driver)));
                }
            }
        }
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
        Ok(runtime.block_on(work(ring, Driver::Epoll)))
    }

    /// Accepts on `listener`, which must be bound and listening. One task for ever: an accept that is dropped would
    /// lose a connection.
    ///
    /// # Errors
    /// When the descriptor cannot be registered with the event loop.
    pub fn listen(&self, listener: std::net::TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        let listener = monoio::net::TcpListener::from_std(listener)?;
        Ok(Listener { listener, ring: self.clone() })
    }

    /// Takes over a connection that was accepted on another core.
    ///
    /// # Errors
    /// When the peer has left already, or the descriptor cannot be registered with the event loop.
    pub fn adopt(&self, stream: std::net::TcpStream) -> io::Result<Socket<RingOutbox>> {
        let peer = stream.peer_addr()?;
        stream.set_nonblocking(true)?;
        Ok(self.socket(TcpStream::from_std(stream)?, peer))
    }

    fn socket(&self, stream: TcpStream, peer: SocketAddr) -> Socket<RingOutbox> {
        // Without it, every small event would wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let fd = stream.as_raw_fd();
        let (read, write) = stream.into_split();
        let (inbox, feeder) = inbox();
        self.spawn(feed(read, feeder));
        Socket { inbox, outbox: RingOutbox { write, fd }, peer }
    }
}

/// A listening socket.
pub struct Listener {
    listener: monoio::net::TcpListener,
    ring: Ring,
}

impl Listener {
    /// The next connection. Must not be dropped while it waits.
    ///
    /// # Errors
    /// Those of accept(2); `InvalidInput` after `ListenerCloser::close`.
    pub async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.listener.accept().await?;
        Ok(Accepted { stream, peer, ring: self.ring.clone() })
    }

    /// The handle that makes a waiting `accept` return.
    pub fn closer(&self) -> ListenerCloser {
        ListenerCloser(self.listener.as_raw_fd())
    }
}

/// A connection that nobody has read from yet.
pub struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    ring: Ring,
}

impl Accepted {
    /// Stays on this core.
    pub fn stay(self) -> Socket<RingOutbox> {
        self.ring.socket(self.stream, self.peer)
    }

    /// Leaves this core, for another one's `Ring::adopt`.
    ///
    /// # Errors
    /// When there is no descriptor left to carry it.
    pub fn leave(&self) -> io::Result<std::net::TcpStream> {
        // SAFETY: `stream` keeps the descriptor open while it is borrowed here.
        let fd = unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) };
        Ok(fd.try_clone_to_owned()?.into())
    }
}

/// Stops a listener. Must not outlive it.
pub struct ListenerCloser(RawFd);

impl ListenerCloser {
    /// Stops listening: the waiting `accept` fails and new clients are refused.
    pub fn close(&self) {
        // SAFETY: shutdown(2) touches no memory; at worst the descriptor is not a socket and the call fails.
        unsafe { libc::shutdown(self.0, libc::SHUT_RDWR) };
    }
}

fn flags(driver: Driver) -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    match driver {
        Driver::RingDeferred => builder.setup_single_issuer().setup_defer_taskrun(),
        Driver::RingCooperative => builder.setup_single_issuer().setup_coop_taskrun(),
        Driver::RingPlain | Driver::Epoll => &mut builder,
    };
    builder
}

/// The monotonic clock, for threads that have no `Ring`. The same on every core and in every process of the machine, so
/// that a simulated provider's time stamps can be read by a load generator.
pub fn mono() -> Mono {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call, which writes nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Mono((time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64))
}

/// The wall clock, for threads that have no `Ring`.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Pins this thread to one CPU.
///
/// # Errors
/// When the CPU is not one that the process may use.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    monoio::utils::bind_to_cpu_set([cpu]).map_err(io::Error::from)
}

impl Runtime for Ring {
    type Outbox = RingOutbox;

    fn now(&self) -> Mono {
        mono()
    }

    fn wall(&self) -> Wall {
        wall()
    }

    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static {
        // Boxed: a timer has 640 bytes and 128-byte alignment, and every future that may wait would hold one for good.
        Box::pin(monoio::time::sleep(at.since(mono()).to_std()))
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        monoio::spawn(Contained { task, panics: Arc::clone(&self.panics) });
    }

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Socket<RingOutbox>>> + 'static {
        let ring = self.clone();
        async move {
            let stream = TcpStream::connect_addr(to).await?;
            Ok(ring.socket(stream, to))
        }
    }
}

/// A task that a panic ends alone.
struct Contained<F> {
    task: F,
    panics: Arc<AtomicU64>,
}

impl<F: Future<Output = ()>> Future for Contained<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: only to reach the fields; nothing is moved out of `this`.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: `task` is pinned as long as the whole is: it is reached here only, and never moved.
        let task = unsafe { Pin::new_unchecked(&mut this.task) };
        catch_unwind(AssertUnwindSafe(|| task.poll(cx))).unwrap_or_else(|_| {
            this.panics.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(())
        })
    }
}

/// The one reader of a socket. Its read is never dropped; it ends when the peer does, or when the outbox has shut the
/// connection down.
async fn feed(mut stream: OwnedReadHalf<TcpStream>, feeder: Feeder) {
    while feeder.vacancy().await {
        let (result, segment) = stream.read(feeder.segment()).await;
        let more = match result {
            Ok(0) => feeder.deliver(Read::End),
            Ok(_) => feeder.deliver(Read::Data(segment)),
            Err(error) => feeder.deliver(Read::Failed(error.kind())),
        };
        if !more {
            return;
        }
    }
}

/// The writing side of a monoio socket.
pub struct RingOutbox {
    write: OwnedWriteHalf<TcpStream>,
    fd: RawFd,
}

impl Outbox for RingOutbox {
    async fn write(&mut self, segment: Segment) -> (io::Result<()>, Segment) {
        let (result, segment) = self.write.write_all(segment).await;
        (result.map(|_| ()), segment)
    }

    async fn write_kept(&mut self, kept: &Rc<Segment>) -> io::Result<()> {
        self.write.write_all(Kept(Rc::clone(kept))).await.0.map(|_| ())
    }

    fn finish(&mut self) {
        // SAFETY: `write` keeps the descriptor open; shutdown(2) touches no memory.
        unsafe { libc::shutdown(self.fd, libc::SHUT_WR) };
    }

    fn abort(&mut self) {
        // Connecting to "nothing" is how Linux drops a TCP connection at once with a reset, and it ends the standing
        // read too. SO_LINGER would wait for the last close, and the shutdown in `drop` would send a clean FIN first.
        // SAFETY: `sockaddr` is plain old data; all zeroes with AF_UNSPEC is what connect(2) asks for here.
        let nothing: libc::sockaddr = unsafe { std::mem::zeroed() };
        debug_assert_eq!(i32::from(nothing.sa_family), libc::AF_UNSPEC);
        let bytes = std::mem::size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: `write` keeps the descriptor open; `nothing` lives through the call and `bytes` is its size.
        unsafe { libc::connect(self.fd, &raw const nothing, bytes) };
    }
}

impl Drop for RingOutbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What was being written is not whole, and a close would look as if it were.
            self.abort();
        }
        // The reader task still holds the descriptor: its read must return for the connection to close.
        // SAFETY: `write` keeps the descriptor open; shutdown(2) touches no memory.
        unsafe { libc::shutdown(self.fd, libc::SHUT_RDWR) };
    }
}

// SAFETY: the live bytes are initialised (the whole buffer is, from its birth) and do not move while the segment is
// borrowed by an operation, which owns it: they are on the heap.
unsafe impl IoBuf for Segment {
    fn read_ptr(&self) -> *const u8 {
        self.live().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

/// Bytes that are needed again. An operation that was given up holds its share until the kernel has let go of them.
struct Kept(Rc<Segment>);

// SAFETY: as for `Segment`; nobody can change a segment that is shared, and this share lives as long as the operation.
unsafe impl IoBuf for Kept {
    fn read_ptr(&self) -> *const u8 {
        self.0.live().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }
}

// SAFETY: `write_ptr` and `bytes_total` describe the spare part of one heap buffer, which does not move while an
// operation owns the segment; `set_init` only moves the border of the live bytes, and no further than the buffer.
unsafe impl IoBufMut for Segment {
    fn write_ptr(&mut self) -> *mut u8 {
        self.spare_mut().as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.spare_mut().len()
    }

    unsafe fn set_init(&mut self, read: usize) {
        self.grew(read);
    }
}

/// Whether the kernel lets this process have a ring at all.
pub fn ring_available() -> bool {
    monoio::utils::detect_uring()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    /// Runs one accepted connection on both drivers; the peer is a plain thread.
    fn both_drivers(peer: fn(std::net::TcpStream), serve: impl AsyncFn(Socket<RingOutbox>)) {
        for force_epoll in [false, true] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let thread = std::thread::spawn(move || peer(std::net::TcpStream::connect(address).unwrap()));
            Ring::run(force_epoll, Arc::default(), |ring, driver| {
                let serve = &serve;
                assert_eq!(driver == Driver::Epoll, force_epoll || !ring_available());
                async move { serve(ring.listen(listener).unwrap().accept().await.unwrap().stay()).await }
            })
            .unwrap();
            thread.join().unwrap();
        }
    }

    #[test]
    fn bytes_go_through_and_an_end_is_seen() {
        both_drivers(
            |mut peer| {
                peer.write_all(&[7; 10_000].repeat(10)).unwrap();
                peer.shutdown(std::net::Shutdown::Write).unwrap();
                let mut back = Vec::new();
                peer.read_to_end(&mut back).unwrap();
                assert_eq!(back, [7; 10_000].repeat(10));
            },
            async |mut socket| {
                while let Read::Data(segment) = socket.inbox.next().await {
                    socket.outbox.write(segment).await.0.unwrap();
                }
            },
        );
    }

    #[test]
    fn dropping_both_ends_closes_although_a_read_is_standing() {
        both_drivers(|mut peer| assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0), async |socket| drop(socket));
    }

    #[test]
    fn an_abort_is_a_reset() {
        both_drivers(
            |mut peer| assert_eq!(peer.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionReset),
            async |mut socket| socket.outbox.abort(),
        );
    }

    #[test]
    fn a_panic_ends_one_task_and_is_counted() {
        let panics = Arc::new(AtomicU64::new(0));
        Ring::run(false, Arc::clone(&panics), |ring, _| async move {
            ring.spawn(async { panic!("contained") });
            ring.sleep_until(mono().after(crate::base::Span::from_ms(2))).await;
        })
        .unwrap();
        assert_eq!(panics.load(Ordering::Relaxed), 1);
    }
}
