//! What the data path allocates, counted: nothing for an event of a stream in its steady state, and a stated number for a
//! small request. A binary of its own, since it brings its own allocator; forebay runs inside it, on its own threads, and
//! only those are counted. And what connections hold, as resident memory of the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // this is a test
#![allow(clippy::disallowed_types, clippy::print_stdout, clippy::print_stderr)] // nor a worker

use forebay::{boot, config};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Allocations for one small request on warm connections. On io_uring eight are expected, two fewer where epoll finds
/// everything there at once: the exchange's future, the scan's room for a key, the list of the body's segments, the fields
/// of the answer's head, and a timer for each of four waits (the next head, the sending, the answer's head, its body).
const REQUEST_ALLOCATIONS_MAX: u64 = 10;
/// Resident bytes that a connection adds while it is idle, and while it carries a stream that says nothing. About half is
/// what the allocator rounds up, and varies: a read that stays large (64 KiB) is what must not go unseen.
const IDLE_BYTES_MAX: u64 = 16 * 1024;
/// See `IDLE_BYTES_MAX`; a stream has two connections.
const STREAM_BYTES_MAX: u64 = 24 * 1024;
/// And while it carries a stream that pours, and does not read it: what is being written, what was read behind it, and the
/// beginning of an event.
const STALLED_BYTES_MAX: u64 = 128 * 1024;
/// Timers of the worker's housekeeping and of the relay that may fall into a measured window.
const TIMERS_MAX: u64 = 2;
/// Longer than anything here takes.
const STUCK: Duration = Duration::from_secs(30);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_WORKER: Cell<Option<bool>> = const { Cell::new(None) };
}

/// The system's allocator, and a count of what workers ask of it.
struct Counting;

impl Counting {
    fn count() {
        let Ok(known) = IS_WORKER.try_with(Cell::get) else { return };
        let is_worker = known.unwrap_or_else(|| {
            let mut name = [0_u8; 16];
            // SAFETY: PR_GET_NAME writes at most 16 bytes to the address it is given.
            unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
            let is_worker = name.starts_with(b"forebay-") && name[8].is_ascii_digit();
            // A thread gets its name after its first allocations.
            if is_worker {
                let _ = IS_WORKER.try_with(|known| known.set(Some(true)));
            }
            is_worker
        });
        if is_worker {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

const KEY: &str = "test-key-of-alice";
const BODY: &str = r#"{"model":"claude-x","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"stream":true}"#;

/// Runs the test of that name in a process of its own: the count is one for all, and forebay's log would be the test's.
/// True in that process.
fn alone(test: &str) -> bool {
    const MARK: &str = "FOREBAY_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(MARK, "1").stdout(Stdio::null());
    let out = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    print!("{said}");
    false
}

/// A configuration in front of `upstream`.
fn text(upstream: SocketAddr, driver: &str) -> String {
    use std::fmt::Write as _;
    let mut hash = String::new();
    for byte in forebay::auth::key::digest(KEY.as_bytes()) {
        write!(hash, "{byte:02x}").unwrap();
    }
    format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n[runtime]\nworkers = 1\ndriver = \"{driver}\"\n\
         [[upstream]]\nname = \"main\"\nprovider = \"anthropic\"\nbase_url = \"http://{upstream}\"\n\
         credentials = [{{ name = \"org\", env = \"PROVIDER_KEY\" }}]\n[[key]]\nname = \"alice\"\nhash = \"sha256:{hash}\"\n"
    )
}

/// Starts forebay in this process, in front of `upstream`; where it listens.
fn forebay(upstream: SocketAddr, driver: &str) -> (boot::Running, SocketAddr) {
    let machine = config::host::Machine { env: &|_| Some("sk-provider".to_owned()) };
    let table = config::parse(Path::new("memory.toml"), &text(upstream, driver), &machine).unwrap();
    let running = boot::start(table).unwrap();
    let address = running.addresses[0];
    (running, address)
}

/// An upstream that answers every request with what `script` does to its connection.
fn upstream(script: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = script.clone();
            thread::spawn(move || {
                let mut stream = stream;
                stream.set_nodelay(true).unwrap();
                while let Some(is_get) = request_is_get(&mut stream) {
                    if is_get {
                        let list = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"data\":[]}";
                        stream.write_all(list).unwrap();
                    } else {
                        script(&mut stream);
                    }
                }
            });
        }
    });
    address
}

/// Reads one request to the end of its body; whether it was a GET. `None` when there is no more.
fn request_is_get(stream: &mut TcpStream) -> Option<bool> {
    let (mut all, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let length = stream.read(&mut piece).ok().filter(|length| *length > 0)?;
        all.extend_from_slice(&piece[..length]);
        let Some(head) = all.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&all[..head]).unwrap();
        let body = text
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split("\r\n").next().and_then(|digits| digits.parse().ok()).unwrap());
        if all.len() >= head + 4 + body {
            return Some(text.starts_with("GET "));
        }
    }
}

fn client(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(STUCK)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, body: &str) {
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
}

/// Reads until `end` has come.
fn read_to(stream: &mut TcpStream, end: &[u8]) {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while !all.ends_with(end) {
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "the answer ended: {}", all.escape_ascii());
        all.extend_from_slice(&piece[..length]);
    }
}

/// Allocations of the workers while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    work();
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

#[test]
fn an_event_of_a_running_stream_allocates_nothing() {
    const EVENT: &[u8] =
        b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"hello\"}}\n\n";
    if !alone("an_event_of_a_running_stream_allocates_nothing") {
        return;
    }
    for driver in ["auto", "epoll"] {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let origin = upstream(move |stream| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            while wait.lock().unwrap().recv().is_ok() {
                let chunk = [format!("{:x}\r\n", EVENT.len()).as_bytes(), EVENT, b"\r\n"].concat();
                stream.write_all(&chunk).unwrap();
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
        });
        let (running, address) = forebay(origin, driver);
        let mut stream = client(address);
        ask(&mut stream, BODY);
        let mut event = || {
            go.send(()).unwrap();
            read_to(&mut stream, b"\"hello\"}}\n\n\r\n");
        };
        (0..200).for_each(|_| event());
        let windows: Vec<u64> = (0..40).map(|_| allocations(|| (0..50).for_each(|_| event()))).collect();
        let silent = windows.iter().filter(|count| **count == 0).count();
        assert!(silent >= 10, "{driver}: allocations in windows of 50 events: {windows:?}");
        let total: u64 = windows.iter().sum();
        assert!(total <= TIMERS_MAX * windows.len() as u64, "{driver}: {total} in 2,000 events: {windows:?}");
        drop(go);
        read_to(&mut stream, b"0\r\n\r\n");
        running.stop().unwrap();
    }
}

#[test]
fn a_small_request_allocates_a_stated_number() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_1\r\ncontent-length: 13\r\n\r\n{\"type\":\"ok\"}";
    const REQUESTS: u64 = 500;
    if !alone("a_small_request_allocates_a_stated_number") {
        return;
    }
    for driver in ["auto", "epoll"] {
        let origin = upstream(|stream| stream.write_all(ANSWER).unwrap());
        let (running, address) = forebay(origin, driver);
        let mut stream = client(address);
        let mut request = || {
            ask(&mut stream, BODY);
            read_to(&mut stream, b"{\"type\":\"ok\"}");
        };
        (0..100).for_each(|_| request());
        let each = allocations(|| (0..REQUESTS).for_each(|_| request())).div_ceil(REQUESTS);
        eprintln!("{driver}: {each} allocations a request");
        assert!(each <= REQUEST_ALLOCATIONS_MAX, "{driver}: {each} allocations a request");
        assert!(each > 0, "nothing is counted");
        drop(stream);
        running.stop().unwrap();
    }
}

/// Resident memory of a forebay that runs as a process of its own, in bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Raises the limit of open files as far as the system lets us; how many there may be.
fn open_files_max() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one `rlimit` to the address it is given.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit reads one `rlimit` from the address it is given.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    usize::try_from(limit.rlim_max).unwrap_or(usize::MAX)
}

/// The real program, in front of `upstream`.
struct Process(std::process::Child, SocketAddr);

impl Process {
    fn start(upstream: SocketAddr, driver: &str) -> Process {
        use std::io::BufRead as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.toml");
        std::fs::write(&path, text(upstream, driver)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("serve").arg("--config").arg(&path).env("PROVIDER_KEY", "sk-provider");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let address = said.find_map(|line| {
            let line = line.unwrap();
            line.split_once("listening on http://")?.1.split_whitespace().next()?.parse().ok()
        });
        thread::spawn(move || said.for_each(drop));
        Process(child, address.expect("forebay listens"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "memory settles; there is no event to wait for")]
/// Bytes for each of the connections that `open` makes, by the slope between a fifth of them and all.
fn bytes_each(process: &Process, count: usize, open: impl Fn() -> TcpStream) -> u64 {
    let mut held: Vec<TcpStream> = (0..count / 5).map(|_| open()).collect();
    thread::sleep(Duration::from_millis(200));
    let (before, few) = (resident(process.0.id()), held.len());
    held.extend((few..count).map(|_| open()));
    thread::sleep(Duration::from_millis(200));
    resident(process.0.id()).saturating_sub(before) / (count - few) as u64
}

#[test]
fn idle_connections_and_idle_streams_cost_little() {
    const EVENT: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
    let count = ((open_files_max().saturating_sub(200)) / 3).min(1_000);
    assert!(count >= 100, "the system lets us open too few files for this test");
    for driver in ["auto", "epoll"] {
        let origin = upstream(|stream| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}{:x}\r\n{EVENT}\r\n", EVENT.len()).as_bytes()).unwrap();
        });
        let process = Process::start(origin, driver);
        let idle = bytes_each(&process, count, || {
            // One exchange first: what it needed must not stay.
            let mut stream = client(process.1);
            stream.write_all(b"HEAD /api/hello HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            read_to(&mut stream, b"\r\n\r\n");
            stream
        });
        // As large as a conversation: it grows the reads, and they must shrink again.
        let body = BODY.replace("hi", &"a conversation ".repeat(10_000));
        let streaming = bytes_each(&process, count, || {
            let mut stream = client(process.1);
            ask(&mut stream, &body);
            read_to(&mut stream, b"\"ping\"}\n\n\r\n");
            stream
        });
        println!("{driver}: {idle} bytes for an idle connection, {streaming} for an idle stream ({count} of each)");
        assert!(idle <= IDLE_BYTES_MAX, "{driver}: {idle} bytes for an idle connection");
        assert!(streaming <= STREAM_BYTES_MAX, "{driver}: {streaming} bytes for an idle stream");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "buffers fill; there is no event to wait for")]
fn a_stalled_stream_holds_a_bounded_amount() {
    // Parts of events at the end of reads are held too.
    let event = format!("event: ping\ndata: {}\n\n", "x".repeat(15_000));
    open_files_max();
    for driver in ["auto", "epoll"] {
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let origin = upstream(move |stream| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            while stream.write_all(chunk.as_bytes()).is_ok() {}
        });
        let process = Process::start(origin, driver);
        let stalled = bytes_each(&process, 50, || {
            let mut stream = client(process.1);
            ask(&mut stream, BODY);
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            // Until every buffer on the way is full.
            thread::sleep(Duration::from_millis(100));
            stream
        });
        println!("{driver}: {stalled} bytes for a stalled stream");
        assert!(stalled <= STALLED_BYTES_MAX, "{driver}: {stalled} bytes for a stalled stream");
        assert!(stalled > 16 * 1024, "{driver}: {stalled} bytes: nothing has stalled");
    }
}
