//! One connection's task panics among a thousand, and nobody else notices. The real event loops, sockets and data path;
//! only the loop that accepts is the test's, for a panic that can be ordered has no place in a shipped binary.

use crate::support::*;
use arc_swap::ArcSwap;
use forebay::{
    base::{Rng, Span},
    config::{self as configuration, host::Machine},
    net::Conn,
    rt::{
        Runtime,
        ring::{Ring, mono, wall},
    },
    serve::{Shard, connection, shard::Shared},
    table::live::{Addresses, Live},
    telemetry::{Core, Record},
    upstream::Health,
};
use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
};

const CONNECTIONS: usize = 1_000;
const UNLUCKY: usize = 500;

/// A task that panics once it is time to, when it has something to do.
struct Unlucky {
    task: Pin<Box<dyn Future<Output = ()>>>,
    is_time: Arc<AtomicBool>,
}

impl Future for Unlucky {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_time.load(Ordering::SeqCst) {
            // Without the hook: its backtrace is of no use.
            std::panic::resume_unwind(Box::new("ordered"));
        }
        self.task.as_mut().poll(cx)
    }
}

/// One worker's things.
struct House {
    core: Arc<Core>,
    shared: Shared,
    panics: Arc<AtomicU64>,
    is_time: Arc<AtomicBool>,
}

impl House {
    fn new(upstream: SocketAddr) -> House {
        let machine = Machine { env: &|_| Some(PROVIDER_KEY.to_owned()) };
        let text = config(&format!("http://{upstream}"), "");
        let table = configuration::parse(Path::new("test.toml"), &text, &machine).unwrap();
        let mut live = Live::unknown(1);
        live.addresses[0] = Addresses { known: [upstream].into(), resolved_at: Some(wall()), ..Addresses::default() };
        let shared = Shared {
            upstreams: Arc::new(ArcSwap::from_pointee(Health::default().grown_for(&table))),
            table: Arc::new(ArcSwap::from_pointee(table)),
            live: Arc::new(ArcSwap::from_pointee(live)),
            tls: Arc::new(ArcSwap::from_pointee(vec![None])),
            ratios: Arc::default(),
            bodies: Arc::default(),
            draining: Arc::default(),
        };
        House { core: Arc::new(Core::new()), shared, panics: Arc::default(), is_time: Arc::default() }
    }

    /// Serves so many connections, one more once there was the panic, and ends when all have ended.
    fn run(&self, force_epoll: bool, listener: TcpListener) {
        let (core, shared) = (Arc::clone(&self.core), self.shared.clone());
        Ring::run(force_epoll, Arc::clone(&self.panics), |ring, _| async move {
            let shard = Rc::new(Shard::new(ring.clone(), 0, Arc::clone(&core), shared, Rng(1).draw()));
            let listener = ring.listen(listener).unwrap();
            for number in 0..=CONNECTIONS {
                let socket = listener.accept().await.unwrap().stay();
                let (core, shard) = (Arc::clone(&core), Rc::clone(&shard));
                let task = Box::pin(async move {
                    let _open = core.counters.connections.hold();
                    connection(shard, Conn::plain(socket), 0).await;
                });
                if number == UNLUCKY {
                    ring.spawn(Unlucky { task, is_time: Arc::clone(&self.is_time) });
                } else {
                    ring.spawn(task);
                }
            }
            while core.counters.connections.get() > 0 {
                ring.sleep_until(mono().after(Span::from_ms(5))).await;
            }
        })
        .unwrap();
    }
}

/// An upstream whose streams go on, each event of all of them at the same time, when the round is raised.
fn in_rounds(round: &Arc<(Mutex<usize>, Condvar)>) -> Upstream {
    let round = Arc::clone(round);
    Upstream::plain(move |_, stream| {
        stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
        for (number, name) in ["message_start", "content_block_delta", "message_stop"].into_iter().enumerate() {
            drop(round.1.wait_while(round.0.lock().unwrap(), |round| *round < number).unwrap());
            if stream.write_all(chunk(&event(name, "")).as_bytes()).is_err() {
                return false;
            }
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    })
}

#[test]
fn of_a_thousand_connections_one_panics_and_the_others_go_on() {
    many_files();
    for force_epoll in [false, true] {
        let round = Arc::new((Mutex::new(0), Condvar::new()));
        let raise = || {
            *round.0.lock().unwrap() += 1;
            round.1.notify_all();
        };
        let upstream = in_rounds(&round);
        let house = House::new(upstream.address);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let open = || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(STUCK)).unwrap();
            let mut client = Client(stream);
            client.send(post(BODY).as_bytes());
            assert!(read_head(&mut client.0).unwrap().starts_with("HTTP/1.1 200"));
            assert!(client.read_chunk().unwrap().starts_with(event("message_start", "").as_bytes()));
            client
        };
        let records: Vec<Record> = thread::scope(|scope| {
            let worker = scope.spawn(|| house.run(force_epoll, listener));
            let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| open()).collect();
            assert_eq!(house.core.counters.streams.get(), CONNECTIONS as i64, "all of them live");
            house.is_time.store(true, Ordering::SeqCst);
            raise();
            let went_on = |client: &mut Client| client.read_chunk() == Some(event("content_block_delta", "").into());
            let harmed: Vec<_> = (0..CONNECTIONS).filter(|number| !went_on(&mut clients[*number])).collect();
            assert_eq!(harmed, [UNLUCKY], "one ended, without its end");
            assert_eq!(house.panics.load(Ordering::SeqCst), 1);
            clients.remove(UNLUCKY);
            raise();
            for client in &mut clients {
                assert_eq!(client.read_chunk().unwrap(), event("message_stop", "").as_bytes());
                assert_eq!(client.read_chunk(), None);
            }
            // The same core serves on: old connections, and a new one.
            for client in clients.iter_mut().take(10) {
                client.send(post(BODY).as_bytes());
                assert_eq!(client.read().unwrap().status(), 200);
            }
            drop(clients);
            let mut late = open();
            while late.read_chunk().is_some() {}
            drop(late);
            worker.join().unwrap();
            std::iter::from_fn(|| house.core.pop()).collect()
        });
        let endings = |slug: &str| records.iter().filter(|record| record.ending.slug() == slug).count();
        assert_eq!((records.len(), endings("complete")), (CONNECTIONS + 11, CONNECTIONS + 10));
        let told = records.iter().find(|record| record.ending.slug() != "complete").map(|record| record.reason);
        assert_eq!(told, Some("internal"), "the log tells of the one, too");
        let counters = &house.core.counters;
        let levels = [&counters.connections, &counters.exchanges, &counters.streams, &counters.bodies_bytes];
        assert_eq!(levels.map(forebay::telemetry::Gauge::get), [0; 4], "what was taken is given back");
    }
}
