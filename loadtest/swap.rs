//! Certificates that are exchanged under load: clients that come anew for every request, and clients that stay, over
//! TLS, while the files change places. None may fail, and both certificates must be seen.

use super::{
    http::AnswerReader,
    process, reload,
    shapes::{self, ANSWER},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// What to do.
pub struct Plan {
    /// Where clients connect.
    pub to: SocketAddr,
    /// The key that they show.
    pub key: String,
    /// The CA's certificate.
    pub ca: PathBuf,
    /// Certificate and key as the proxy reads them.
    pub live: [PathBuf; 2],
    /// The pairs that take turns: certificate, key, certificate, key.
    pub pairs: [PathBuf; 4],
    /// How many exchanges.
    pub swaps: usize,
    /// The time between two.
    pub every: Duration,
    /// A process that must be told by SIGHUP.
    pub hang_up: Option<u32>,
}

/// What came out.
#[derive(Default)]
pub struct Swapped {
    /// Requests that were answered.
    pub requests: usize,
    /// Handshakes.
    pub handshakes: usize,
    /// Connections that were closed between two requests.
    pub reopened: usize,
    /// Requests and handshakes that failed.
    pub faults: Vec<String>,
    /// Exchanges after which no new connection was given the new certificate.
    pub unseen: usize,
}

const PATIENCE: Duration = Duration::from_secs(10);
/// Clients that come anew for each request, and clients that stay.
const COMING: usize = 3;
const STAYING: usize = 3;
const FAULTS_MAX: usize = 50;
const NAME: &str = "localhost";

/// Runs the plan.
///
/// # Errors
/// When files cannot be read or written.
pub fn run(plan: &Plan) -> io::Result<Swapped> {
    let config = Arc::new(config(plan)?);
    let request = shapes::request(&plan.key, None, &shapes::request_body(4_000));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for number in 0..COMING + STAYING {
            let (config, request, stop) = (&config, &request, &stop);
            clients.push(scope.spawn(move || client(plan.to, config, request, stop, number >= COMING)));
        }
        let unseen = swap_all(plan, &config);
        stop.store(true, Ordering::Relaxed);
        let mut all = Swapped { unseen: unseen?, ..Swapped::default() };
        for client in clients {
            let one = client.join().map_err(|_| io::Error::other("a client broke off"))?;
            all.requests += one.requests;
            all.handshakes += one.handshakes;
            all.reopened += one.reopened;
            all.faults.extend(one.faults);
        }
        Ok(all)
    })
}

fn config(plan: &Plan) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(&plan.ca).map_err(io::Error::other)?;
    roots.add(ca).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
}

/// Puts the pairs into place in turn; after how many exchanges the new one was not seen before the next.
fn swap_all(plan: &Plan, config: &Arc<ClientConfig>) -> io::Result<usize> {
    let [a, a_key, b, b_key] = &plan.pairs;
    let mut unseen = 0;
    thread::sleep(plan.every / 2);
    for number in 0..plan.swaps {
        let (cert, key) = if number % 2 == 0 { (b, b_key) } else { (a, a_key) };
        let until = Instant::now() + plan.every;
        // Not at the same moment: between the two, what lies there is no pair.
        reload::put(&plan.live[0], &fs::read_to_string(cert)?)?;
        thread::sleep(Duration::from_millis(20));
        reload::put(&plan.live[1], &fs::read_to_string(key)?)?;
        if let Some(pid) = plan.hang_up {
            process::hang_up(pid)?;
        }
        let wanted = CertificateDer::from_pem_file(cert).map_err(io::Error::other)?;
        let mut is_seen = false;
        while Instant::now() < until {
            // A session that is resumed shows the certificate that it began with.
            let mut fresh = ClientConfig::clone(config);
            fresh.resumption = Resumption::disabled();
            let fresh = Arc::new(fresh);
            is_seen |= connect(plan.to, &fresh)
                .is_ok_and(|connection| connection.conn.peer_certificates().and_then(<[_]>::first) == Some(&wanted));
            thread::sleep(Duration::from_millis(100));
        }
        unseen += usize::from(!is_seen);
    }
    Ok(unseen)
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

fn connect(to: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Connection> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut connection = StreamOwned::new(session, stream);
    connection.conn.complete_io(&mut connection.sock)?;
    Ok(connection)
}

fn client(to: SocketAddr, config: &Arc<ClientConfig>, request: &[u8], stop: &AtomicBool, stays: bool) -> Swapped {
    let mut seen = Swapped::default();
    let mut held: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) && seen.faults.len() < FAULTS_MAX {
        let is_warm = held.is_some();
        let result = match held.take() {
            Some(connection) => Ok(connection),
            None => connect(to, config).inspect(|_| seen.handshakes += 1),
        };
        match result.and_then(|mut connection| ask(&mut connection, request).map(|()| connection)) {
            Ok(connection) => {
                seen.requests += 1;
                held = Some(connection).filter(|_| stays);
            }
            // Closed while it was idle: every client asks again on another connection, and so does this one.
            Err(error) if is_warm && closed(&error) => seen.reopened += 1,
            Err(error) => seen.faults.push(error.to_string()),
        }
        // Load, and a machine that others use too.
        thread::sleep(Duration::from_millis(if stays { 5 } else { 10 }));
    }
    seen
}

fn closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn ask(connection: &mut Connection, request: &[u8]) -> io::Result<()> {
    connection.write_all(request)?;
    connection.flush()?;
    let (mut reader, mut body, mut buffer) = (AnswerReader::default(), Vec::new(), [0; 4096]);
    loop {
        let count = connection.read(&mut buffer)?;
        let bytes = buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
        if reader.feed(bytes, |payload| body.extend_from_slice(payload)).map_err(io::Error::other)? {
            let right = reader.status == 200 && body == ANSWER.as_bytes();
            let wrong = || io::Error::other(format!("status {} and {} bytes", reader.status, body.len()));
            return if right { Ok(()) } else { Err(wrong()) };
        }
    }
}
