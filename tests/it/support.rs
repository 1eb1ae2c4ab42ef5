//! What the loopback tests share: an upstream that a test scripts byte by byte, forebay as its users run it (the
//! binary, with a config file), and a client that sends and reads raw bytes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Longer than anything here takes on a busy machine; what takes longer is stuck.
pub const STUCK: Duration = Duration::from_secs(30);

/// The key that `config` lets in.
pub const KEY: &str = "test-key-of-alice";
/// The credential that `config` holds for the upstream.
pub const PROVIDER_KEY: &str = "sk-provider-secret";

/// Both drivers, by the environment variable that forces epoll.
pub const DRIVERS: [(&str, &str); 2] = [("io_uring", "0"), ("epoll", "1")];

/// A request as the upstream read it.
#[derive(Clone, Debug)]
pub struct Got {
    pub head: String,
    pub body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// Which request it is, counted from 0 over all connections.
    pub number: usize,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

/// Lets this process, and what it starts, open as many files as the system allows.
pub fn many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one `rlimit` to the address it is given.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit reads one `rlimit` from the address it is given.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// A scripted upstream. The script answers one request; false closes the connection.
pub struct Upstream {
    pub address: SocketAddr,
    pub got: mpsc::Receiver<Got>,
}

impl Upstream {
    /// An upstream for clients: forebay's own question for the list of models is answered outside the script.
    pub fn start<C: Read + Write + 'static>(
        wrap: impl Fn(TcpStream) -> C + Send + Sync + 'static,
        script: impl Fn(&Got, &mut C) -> bool + Send + Sync + 'static,
    ) -> Upstream {
        Upstream::scripted(wrap, script, false)
    }

    /// The same; `all` leaves every request to the script.
    pub fn scripted<C: Read + Write + 'static>(
        wrap: impl Fn(TcpStream) -> C + Send + Sync + 'static,
        script: impl Fn(&Got, &mut C) -> bool + Send + Sync + 'static,
        all: bool,
    ) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, got) = mpsc::channel();
        let (wrap, script, numbers) = (Arc::new(wrap), Arc::new(script), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let (wrap, script, numbers, sender) = (wrap.clone(), script.clone(), numbers.clone(), sender.clone());
                thread::spawn(move || {
                    stream.set_read_timeout(Some(STUCK)).unwrap();
                    let mut stream = wrap(stream);
                    while let Some((head, body)) = read_request(&mut stream) {
                        if !all && head.starts_with("GET ") && head.contains("/v1/models") {
                            stream.write_all(answer("200 OK", "", "{\"data\":[]}").as_bytes()).unwrap();
                            continue;
                        }
                        let got = Got { head, body, connection, number: numbers.fetch_add(1, Ordering::SeqCst) };
                        let _ = sender.send(got.clone());
                        if !script(&got, &mut stream) {
                            return;
                        }
                    }
                });
            }
        });
        Upstream { address, got }
    }

    /// A plain upstream.
    pub fn plain(script: impl Fn(&Got, &mut TcpStream) -> bool + Send + Sync + 'static) -> Upstream {
        Upstream::start(|stream| stream, script)
    }

    pub fn next(&self) -> Got {
        self.got.recv_timeout(STUCK).expect("the upstream should have been asked")
    }
}

/// A whole answer with a length.
pub fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// One chunk.
pub fn chunk(payload: &str) -> String {
    format!("{:x}\r\n{payload}\r\n", payload.len())
}

/// One event of a stream.
pub fn event(name: &str, rest: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n")
}

pub const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn read_request(stream: &mut impl Read) -> Option<(String, Vec<u8>)> {
    let head = read_head(stream)?;
    let length: usize = header(&head, "content-length").map_or(0, |v| v.parse().unwrap());
    assert!(header(&head, "transfer-encoding").is_none(), "requests go on with their length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Reads up to and with the empty line; `None` when the connection ends before.
pub fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// forebay, as its users run it.
pub struct Forebay {
    child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// Of all listeners, in the order of the config.
    pub addresses: Vec<SocketAddr>,
    pub log: BufReader<ChildStdout>,
    /// What it says on standard error once it listens.
    pub notices: mpsc::Receiver<String>,
    _folder: tempfile::TempDir,
}

impl Forebay {
    /// Starts the binary with `config` on the driver that `force_epoll` names, and waits until it listens.
    pub fn start(config: &str, force_epoll: &str) -> Forebay {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.toml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("serve").arg("--config").arg(&path);
        let listeners = config.matches("[listen]").count(); // `[[listen]]` has it inside
        Forebay::spawn_with(command, force_epoll, folder, listeners)
    }

    /// Starts `command`, which must be forebay with one listener.
    pub fn spawn(command: Command, force_epoll: &str, folder: tempfile::TempDir) -> Forebay {
        Forebay::spawn_with(command, force_epoll, folder, 1)
    }

    fn spawn_with(mut command: Command, force_epoll: &str, folder: tempfile::TempDir, listeners: usize) -> Forebay {
        let mut child = command
            .env("MONOIO_FORCE_LEGACY_DRIVER", force_epoll)
            .env("PROVIDER_KEY", PROVIDER_KEY)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut addresses, mut admin) = (Vec::new(), None);
        while addresses.len() < listeners || admin.is_none() {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "forebay did not start:\n{said}");
            addresses.extend(after(&line, "listening on http://").or_else(|| after(&line, "listening on https://")));
            admin = admin.or_else(|| after(&line, "admin on http://"));
            said.push_str(&line);
        }
        // Whatever else it says must not fill the pipe.
        let (sender, notices) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = sender.send(line);
            }
        });
        let log = BufReader::new(child.stdout.take().unwrap());
        let address = addresses[0];
        Forebay { child, address, admin: admin.unwrap(), addresses, log, notices, _folder: folder }
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(STUCK)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    /// One request on its own connection.
    pub fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect();
        client.send(request.as_bytes());
        client.read().expect("an answer")
    }

    /// The next line of the access log.
    pub fn logged(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// A document of the admin listener's.
    pub fn admin(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(STUCK)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        Client(stream).read().unwrap()
    }
}

impl Drop for Forebay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn after(line: &str, mark: &str) -> Option<SocketAddr> {
    let rest = line.split_once(mark)?.1;
    rest.split(|c: char| c.is_whitespace() || c == '/' || c == ',').next()?.parse().ok()
}

/// A config with one upstream at `upstream` and one key, and `more` behind.
pub fn config(upstream: &str, more: &str) -> String {
    use std::fmt::Write as _;
    let mut hash = String::new();
    for byte in forebay::auth::key::digest(KEY.as_bytes()) {
        write!(hash, "{byte:02x}").unwrap();
    }
    format!(
        "[org]\ncontact = \"#ai-platform\"\n[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n[runtime]\nworkers = 1\n\
         [[upstream]]\nname = \"main\"\nprovider = \"anthropic\"\nbase_url = \"{upstream}\"\ncredentials = [{{ name = \"org\", env = \"PROVIDER_KEY\" }}]\n\
         [[key]]\nname = \"alice\"\nhash = \"sha256:{hash}\"\n{more}"
    )
}

/// A client's connection, in plain HTTP or over TLS.
pub struct Client<S = TcpStream>(pub S);

/// An answer as the client saw it.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
    /// The framing came to its end.
    pub complete: bool,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The message of an error envelope.
    pub fn message(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(value["type"], "error");
        value["error"]["message"].as_str().unwrap().to_owned()
    }
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Reads one chunk's payload; `None` at the last one or when the connection ends.
    pub fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            if self.0.read(&mut byte).ok()? == 0 {
                return None;
            }
            line.push(byte[0]);
        }
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut payload = vec![0; length + 2];
        self.0.read_exact(&mut payload).ok()?;
        payload.truncate(length);
        (length > 0).then_some(payload)
    }

    /// Reads a whole answer; `None` when the connection ends before its head.
    pub fn read(&mut self) -> Option<Answer> {
        let head = read_head(&mut self.0)?;
        let (mut body, mut complete) = (Vec::new(), true);
        if let Some(length) = header(&head, "content-length") {
            body.resize(length.parse().unwrap(), 0);
            let mut filled = 0;
            while filled < body.len() {
                match self.0.read(&mut body[filled..]) {
                    Ok(n) if n > 0 => filled += n,
                    _ => break,
                }
            }
            complete = filled == body.len();
            body.truncate(filled);
        } else if header(&head, "transfer-encoding").is_some() {
            (body, complete) = self.read_chunks();
        } else if !head.starts_with("HTTP/1.1 204") {
            complete = self.0.read_to_end(&mut body).is_ok();
        }
        Some(Answer { head, body, complete })
    }

    fn read_chunks(&mut self) -> (Vec<u8>, bool) {
        let (mut raw, mut byte) = (Vec::new(), [0]);
        let mut body = Vec::new();
        loop {
            raw.clear();
            while !raw.ends_with(b"\r\n") {
                match self.0.read(&mut byte) {
                    Ok(1) => raw.push(byte[0]),
                    _ => return (body, false),
                }
            }
            let length = usize::from_str_radix(std::str::from_utf8(&raw).unwrap().trim(), 16).unwrap();
            let mut payload = vec![0; length + 2];
            if self.0.read_exact(&mut payload).is_err() {
                return (body, false);
            }
            assert!(payload.ends_with(b"\r\n"));
            if length == 0 {
                return (body, true);
            }
            body.extend_from_slice(&payload[..length]);
        }
    }
}

/// A `POST /v1/messages` by alice with `body`.
pub fn post(body: &str) -> String {
    post_with("", body)
}

/// The same with more fields, each ending with CRLF.
pub fn post_with(fields: &str, body: &str) -> String {
    format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\nHost: forebay\r\nx-api-key: {KEY}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub const BODY: &str =
    r#"{"model":"claude-x","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
