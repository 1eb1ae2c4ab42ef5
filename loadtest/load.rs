//! What both scenarios share: connections, the window in which is counted, and the row that comes out.

use super::{
    http::AnswerReader,
    process::{self, Sample, Usage},
};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where clients connect.
    pub to: SocketAddr,
    /// The key that they show.
    pub key: String,
    /// The processes that stand at `to`; empty when there is no proxy.
    pub pids: Vec<u32>,
    /// The provider behind it, asked for its own count.
    pub provider: Option<SocketAddr>,
    /// The provider's process, to see how busy the load's own side is.
    pub provider_pid: Option<u32>,
    /// Before the window.
    pub warm_up: Duration,
    /// The window.
    pub window: Duration,
}

/// Connections.
pub struct Fleet;

impl Fleet {
    /// Faults after which a run is given up.
    pub const FAULTS_MAX: usize = 100;

    /// Opens `count` connections.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn connect(to: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
        (0..count)
            .map(|_| {
                let stream = TcpStream::connect(to)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            })
            .collect()
    }
}

/// A histogram of nanoseconds, to a minute, known to a thousandth.
///
/// # Errors
/// None with these bounds.
pub fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)
}

/// The window: before it the target warms up, after it nothing counts.
pub struct Window {
    target: Target,
    /// When the warm-up began.
    pub began: Instant,
    idle: Sample,
    before: Option<(Sample, Sample)>,
    after: Option<(Sample, Sample)>,
}

impl Window {
    /// A window that begins with its warm-up now.
    pub fn new(target: &Target) -> Window {
        if let Some(provider) = target.provider {
            let _ = ask_stats(provider);
        }
        let idle = process::sample(&target.pids);
        Window { target: target.clone(), began: Instant::now(), idle, before: None, after: None }
    }

    /// Where clients connect.
    pub fn to(&self) -> SocketAddr {
        self.target.to
    }

    /// The warm-up's length.
    pub fn warm_up(&self) -> Duration {
        self.target.warm_up
    }

    /// Warm-up and window together.
    pub fn whole(&self) -> Duration {
        self.target.warm_up + self.target.window
    }

    /// When `look` is wanted next.
    pub fn next(&self) -> Instant {
        match (&self.before, &self.after) {
            (None, _) => self.began + self.target.warm_up,
            (_, None) => self.began + self.whole(),
            _ => self.began + self.whole() + Duration::from_secs(3600),
        }
    }

    /// Opens and closes the window when it is time.
    pub fn look(&mut self, now: Instant) {
        if self.after.is_some() || now < self.next() {
            return;
        }
        let mut load = vec![std::process::id()];
        load.extend(self.target.provider_pid);
        let samples = (process::sample(&self.target.pids), process::sample(&load));
        if self.before.is_none() { self.before = Some(samples) } else { self.after = Some(samples) }
    }

    /// Whether what happens now counts.
    pub fn is_open(&self) -> bool {
        self.before.is_some() && self.after.is_none()
    }

    /// Whether the window has closed.
    pub fn is_over(&self) -> bool {
        self.after.is_some()
    }

    /// What came out, with the provider's own count.
    pub fn measured(self, work: u64, faults: Vec<String>) -> Measured {
        let provider = self.target.provider.and_then(|provider| ask_stats(provider).ok());
        let (proxy, load) = match (&self.before, &self.after) {
            (Some(before), Some(after)) => (before.0.until(&after.0), before.1.until(&after.1)),
            _ => (Usage::default(), Usage::default()),
        };
        let idle_rss_kb = self.idle.until(&self.idle).rss_kb[0];
        let has_proxy = !self.target.pids.is_empty();
        let reopened = 0;
        let (delay, first, late) = (None, None, None);
        Measured { proxy, load, has_proxy, idle_rss_kb, work, faults, reopened, provider, delay, first, late }
    }
}

fn ask_stats(provider: SocketAddr) -> io::Result<serde_json::Value> {
    let mut stream = TcpStream::connect(provider)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /load/stats HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")?;
    let (mut reader, mut body, mut buffer) = (AnswerReader::default(), Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer)?;
        let bytes = buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
        if reader.feed(bytes, |payload| body.extend_from_slice(payload)).map_err(io::Error::other)? {
            return serde_json::from_slice(&body).map_err(io::Error::other);
        }
    }
}

/// What a run has shown.
pub struct Measured {
    proxy: Usage,
    load: Usage,
    has_proxy: bool,
    idle_rss_kb: u64,
    /// Requests or events in the window.
    pub work: u64,
    /// What went wrong, in the order it did.
    pub faults: Vec<String>,
    /// Connections that were opened again.
    pub reopened: usize,
    provider: Option<serde_json::Value>,
    /// From due to done, or from sent to received.
    pub delay: Option<Histogram<u64>>,
    /// From a stream's request to its first event.
    pub first: Option<Histogram<u64>>,
    /// How late requests were sent, in an open loop.
    pub late: Option<Histogram<u64>>,
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Quantiles {
        let us = |ns: u64| (ns as f64 / 100.0).round() / 10.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: us(histogram.max()) }
    }
}

/// One run, as a line of JSON.
#[derive(Serialize)]
struct Row<'a> {
    round: u32,
    system: &'a str,
    case: &'a str,
    unit: &'a str,
    seconds: f64,
    work: u64,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_mb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_rss_mb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_us: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_event_us: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send_late_us: Option<Quantiles>,
    /// Of one core: the generator and the provider together.
    load_busy_pct: f64,
    proxy_busy_pct: f64,
    /// Of one core: everybody else on this machine.
    foreign_pct: f64,
    /// By CPU: busy, stolen by the hypervisor.
    cpu_busy_stolen_pct: &'a [[f64; 2]],
    threads_ended: usize,
    faults: usize,
    fault_kinds: Vec<&'a str>,
    provider: &'a Option<serde_json::Value>,
}

impl Measured {
    /// A quantile of the delay, in milliseconds.
    pub fn delay_ms(&self, quantile: f64) -> f64 {
        self.delay.as_ref().map_or(f64::NAN, |delay| delay.value_at_quantile(quantile) as f64 / 1e6)
    }

    /// As a line of JSON.
    ///
    /// # Errors
    /// None in practice.
    pub fn row(&self, round: u32, system: &str, case: &str, unit: &str) -> Result<String, serde_json::Error> {
        let seconds = self.proxy.seconds;
        let us = |ns: u64| ns as f64 / 1000.0;
        let mb = |kb: u64| kb as f64 / 1024.0;
        let busy = |usage: &Usage| usage.cpu_ns as f64 / 1e7 / usage.seconds.max(1e-9);
        let all: f64 = self.proxy.cpus.iter().map(|[busy, _]| busy).sum();
        let mut fault_kinds: Vec<&str> = self.faults.iter().map(String::as_str).collect();
        fault_kinds.sort_unstable();
        fault_kinds.dedup();
        fault_kinds.truncate(5);
        serde_json::to_string(&Row {
            round,
            system,
            case,
            unit,
            seconds,
            work: self.work,
            per_second: self.work as f64 / seconds.max(1e-9),
            cpu_us: (self.has_proxy && self.work > 0).then(|| us(self.proxy.cpu_ns) / self.work as f64),
            rss_mb: self.has_proxy.then(|| mb(self.proxy.rss_kb[1])),
            idle_rss_mb: self.has_proxy.then(|| mb(self.idle_rss_kb)),
            delay_us: self.delay.as_ref().map(Quantiles::of),
            first_event_us: self.first.as_ref().map(Quantiles::of),
            send_late_us: self.late.as_ref().map(Quantiles::of),
            load_busy_pct: busy(&self.load),
            proxy_busy_pct: busy(&self.proxy),
            foreign_pct: (all - busy(&self.proxy) - busy(&self.load)).max(0.0),
            cpu_busy_stolen_pct: &self.proxy.cpus,
            threads_ended: self.proxy.tasks_ended,
            faults: self.faults.len(),
            fault_kinds,
            provider: &self.provider,
        })
    }
}
