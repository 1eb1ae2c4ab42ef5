//! The race in virtual time: a machine whose clock moves to the next timer when nothing else can happen.

use super::*;
use crate::{
    base::{Mono, Wall},
    rt::{
        Outbox, Read, Segment,
        inbox::{Feeder, inbox},
        ring::Ring,
    },
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::{Context, Waker},
};

/// What an address does when it is connected to.
#[derive(Clone, Copy)]
enum Site {
    /// Accepts after so many milliseconds.
    Accepts(u64),
    /// Refuses after so many.
    Refuses(u64),
    /// Says nothing.
    Silent,
}

/// What a peer answers to the first write.
type Answers = HashMap<SocketAddr, &'static str>;

#[derive(Default)]
struct World {
    now: Cell<u64>,
    timers: RefCell<Vec<u64>>,
    sites: RefCell<HashMap<SocketAddr, Site>>,
    answers: RefCell<Answers>,
    /// When each connection was begun, in milliseconds, and to where.
    begun: RefCell<Vec<(u64, SocketAddr)>>,
    /// Connections and attempts that are open.
    open: Cell<usize>,
    written: RefCell<Vec<u8>>,
}

#[derive(Clone, Default)]
struct Machine(Rc<World>);

/// Counts itself as open as long as it lives.
struct Held(Rc<World>);

impl Held {
    fn new(world: &Rc<World>) -> Held {
        world.open.set(world.open.get() + 1);
        Held(Rc::clone(world))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

struct Pipe {
    held: Held,
    feeder: Feeder,
    answer: Option<&'static str>,
}

impl Outbox for Pipe {
    async fn write(&mut self, segment: Segment) -> (io::Result<()>, Segment) {
        self.held.0.written.borrow_mut().extend_from_slice(segment.live());
        match self.answer.take() {
            Some("") => _ = self.feeder.deliver(Read::End),
            Some(answer) => _ = self.feeder.deliver(Read::Data(Segment::copy_of(answer.as_bytes()))),
            None => {}
        }
        (Ok(()), segment)
    }

    fn finish(&mut self) {}

    fn abort(&mut self) {}
}

impl Runtime for Machine {
    type Outbox = Pipe;

    fn now(&self) -> Mono {
        Mono(self.0.now.get())
    }

    fn wall(&self) -> Wall {
        Wall(0)
    }

    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static {
        let world = Rc::clone(&self.0);
        poll_fn(move |_| {
            if world.now.get() >= at.0 {
                return Poll::Ready(());
            }
            world.timers.borrow_mut().push(at.0);
            Poll::Pending
        })
    }

    fn spawn(&self, _: impl Future<Output = ()> + 'static) {}

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Socket<Pipe>>> + 'static {
        let (machine, held) = (self.clone(), Held::new(&self.0));
        self.0.begun.borrow_mut().push((self.now().0 / 1_000_000, to));
        let site = self.0.sites.borrow().get(&to).copied().unwrap_or(Site::Silent);
        let answer = self.0.answers.borrow().get(&to).copied();
        async move {
            match site {
                Site::Accepts(ms) => machine.sleep_until(machine.now().after(Span::from_ms(ms))).await,
                Site::Refuses(ms) => {
                    machine.sleep_until(machine.now().after(Span::from_ms(ms))).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Site::Silent => std::future::pending().await,
            }
            let (inbox, feeder) = inbox();
            Ok(Socket { inbox, outbox: Pipe { held, feeder, answer }, peer: to })
        }
    }
}

impl Machine {
    fn with(sites: &[(SocketAddr, Site)]) -> Machine {
        let machine = Machine::default();
        machine.0.sites.borrow_mut().extend(sites.iter().copied());
        machine
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            self.0.timers.borrow_mut().clear();
            if let Poll::Ready(value) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return value;
            }
            let next = self.0.timers.borrow().iter().copied().min().expect("nothing will ever happen");
            self.0.now.set(next);
        }
    }

    fn ms(&self) -> u64 {
        self.0.now.get() / 1_000_000
    }

    fn begun(&self) -> Vec<(u64, SocketAddr)> {
        self.0.begun.borrow().clone()
    }
}

fn endpoint() -> Endpoint {
    Endpoint { tls: None, via: None, guard: Guard::Public, connect: Span::from_secs(5), handshake: Span::from_secs(5) }
}

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 443))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 443))
}

fn race(machine: &Machine, endpoint: &Endpoint, addresses: &[SocketAddr]) -> Result<SocketAddr, DialError> {
    let conn = machine.run(dial(machine, endpoint, addresses));
    assert_eq!(machine.0.open.get(), usize::from(conn.is_ok()), "the losers are dropped");
    conn.map(|conn| conn.peer)
}

#[test]
fn families_take_turns_and_keep_their_order() {
    let order = |addresses: &[SocketAddr]| Vec::from(interleaved(addresses.iter().copied()));
    assert_eq!(order(&[]), []);
    assert_eq!(order(&[v4(1), v4(2)]), [v4(1), v4(2)]);
    assert_eq!(order(&[v6(1), v6(2), v6(3), v4(1)]), [v6(1), v4(1), v6(2), v6(3)]);
    assert_eq!(order(&[v4(1), v4(2), v4(3), v6(1), v6(2)]), [v4(1), v6(1), v4(2), v6(2), v4(3)]);
    assert_eq!(order(&[v4(1), v6(1), v6(2), v6(3)]), [v4(1), v6(1), v6(2), v6(3)]);
}

#[test]
fn a_good_first_address_is_the_only_one_tried() {
    let machine = Machine::with(&[(v6(1), Site::Accepts(249)), (v4(1), Site::Accepts(0))]);
    assert_eq!(race(&machine, &endpoint(), &[v6(1), v4(1)]).unwrap(), v6(1));
    assert_eq!((machine.begun(), machine.ms()), (vec![(0, v6(1))], 249));
}

#[test]
fn a_silent_address_costs_its_head_start_only() {
    let machine = Machine::with(&[(v4(1), Site::Accepts(10))]);
    assert_eq!(race(&machine, &endpoint(), &[v6(1), v6(2), v4(1)]).unwrap(), v4(1));
    assert_eq!(machine.begun(), [(0, v6(1)), (250, v4(1))]);
    assert_eq!(machine.ms(), 260);
}

#[test]
fn a_slow_first_address_still_wins_against_slower_ones() {
    let machine = Machine::with(&[(v6(1), Site::Accepts(400)), (v4(1), Site::Accepts(300))]);
    assert_eq!(race(&machine, &endpoint(), &[v6(1), v4(1)]).unwrap(), v6(1));
    assert_eq!((machine.begun().len(), machine.ms()), (2, 400));
}

#[test]
fn a_refusal_starts_the_next_at_once() {
    let machine = Machine::with(&[(v6(1), Site::Refuses(3)), (v4(1), Site::Refuses(4)), (v6(2), Site::Accepts(5))]);
    assert_eq!(race(&machine, &endpoint(), &[v6(1), v6(2), v4(1)]).unwrap(), v6(2));
    assert_eq!(machine.begun(), [(0, v6(1)), (3, v4(1)), (7, v6(2))]);
    assert_eq!(machine.ms(), 12);
}

#[test]
fn the_whole_race_is_bounded() {
    let machine = Machine::default();
    let addresses: Vec<SocketAddr> = (0..200).map(v4).collect();
    let error = race(&machine, &endpoint(), &addresses).unwrap_err();
    assert_eq!(error.kind, Kind::ConnectTimeout);
    assert!(error.detail.contains("no connection within 5000 ms"), "{}", error.detail);
    assert_eq!(machine.begun().len(), ADDRESSES_MAX);
    assert_eq!(machine.ms(), 5_000 + 250 * (ADDRESSES_MAX as u64 - 1));
}

#[test]
fn no_address_is_no_name() {
    assert_eq!(race(&Machine::default(), &endpoint(), &[]).unwrap_err().kind, Kind::NameUnresolved);
}

#[test]
fn what_the_guard_refuses_is_not_connected_to() {
    let private = SocketAddr::from(([10, 0, 0, 1], 443));
    let metadata = SocketAddr::from(([169, 254, 169, 254], 443));
    let machine =
        Machine::with(&[(private, Site::Accepts(0)), (metadata, Site::Accepts(0)), (v4(1), Site::Accepts(0))]);
    assert_eq!(race(&machine, &endpoint(), &[private, metadata, v4(1)]).unwrap(), v4(1));
    let error = race(&machine, &endpoint(), &[private]).unwrap_err();
    assert_eq!(error.kind, Kind::AddressRefused);
    assert!(error.detail.contains("10.0.0.1, which is a private address"), "{}", error.detail);
    let inside = Endpoint { guard: Guard::Inside, ..endpoint() };
    assert_eq!(race(&machine, &inside, &[metadata]).unwrap_err().kind, Kind::AddressRefused);
    assert_eq!(machine.begun().len(), 1, "{:?}", machine.begun());
    assert_eq!(race(&machine, &inside, &[private]).unwrap(), private);
}

fn through_a_proxy() -> Endpoint {
    let via = Via::new(("proxy.example", 3128), ("api.example", 443), Some(("me", "secret")));
    Endpoint { via: Some(Arc::new(via)), ..endpoint() }
}

/// Dials through proxies that answer like this.
fn ask(answers: &[&'static str]) -> (Machine, Result<Conn<Pipe>, DialError>) {
    let proxies: Vec<SocketAddr> = (1..=answers.len() as u8).map(v4).collect();
    let sites: Vec<_> = proxies.iter().map(|proxy| (*proxy, Site::Accepts(1))).collect();
    let machine = Machine::with(&sites);
    machine.0.answers.borrow_mut().extend(proxies.iter().copied().zip(answers.iter().copied()));
    let conn = machine.run(dial(&machine, &through_a_proxy(), &proxies));
    (machine, conn)
}

#[test]
fn bytes_behind_the_proxys_answer_belong_to_the_target() {
    let answers = [
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 Connection established\r\nProxy-Agent: x\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nhello",
    ];
    for answer in answers {
        let (machine, conn) = ask(&[answer]);
        let mut conn = conn.unwrap();
        let written = String::from_utf8(machine.0.written.borrow().clone()).unwrap();
        assert!(written.starts_with("CONNECT api.example:443 HTTP/1.1\r\n") && written.ends_with("\r\n\r\n"));
        let Read::Data(bytes) = machine.run(conn.inbound.next()) else { panic!("{answer}") };
        assert_eq!(bytes.live(), b"hello", "{answer}");
    }
}

#[test]
fn what_a_proxy_does_not_like_is_told_as_the_proxys() {
    for (answer, kind, what) in [
        ("HTTP/1.1 407 No\r\n\r\n", Kind::ProxyRefused, "refused the credentials that forebay has for it (407)"),
        ("HTTP/1.1 403 No\r\n\r\n", Kind::ProxyRefused, "does not let forebay through to api.example:443 (status 403)"),
        ("HTTP/1.1 302 No\r\n\r\n", Kind::ProxyRefused, "(status 302)"),
        ("HTTP/1.1 502 No\r\n\r\n", Kind::ProxyFailed, "could not connect to api.example:443 (status 502)"),
        ("", Kind::ProxyFailed, "closed the connection instead of answering CONNECT"),
        ("SSH-2.0-x\r\n", Kind::ProxyFailed, "not HTTP/1.1"),
    ] {
        let (machine, conn) = ask(&[answer]);
        let error = conn.err().expect(answer);
        assert_eq!(error.kind, kind, "{answer}");
        assert!(error.detail.starts_with("the proxy proxy.example:3128 "), "{}", error.detail);
        assert!(error.detail.contains(what), "{}", error.detail);
        assert!(!error.detail.contains("secret") && !error.detail.contains("bWU6c2VjcmV0"), "{}", error.detail);
        assert_eq!(machine.0.open.get(), 0);
    }
}

#[test]
fn another_address_of_the_proxy_is_asked_only_when_that_can_help() {
    let (machine, conn) = ask(&["", "HTTP/1.1 200 OK\r\n\r\n"]);
    assert_eq!(conn.unwrap().peer, v4(2));
    assert_eq!(machine.begun().len(), 2);
    let (machine, conn) = ask(&["HTTP/1.1 407 No\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"]);
    assert_eq!(conn.err().map(|error| error.kind), Some(Kind::ProxyRefused));
    assert_eq!(machine.begun().len(), 1);
}

#[test]
fn a_proxy_that_says_nothing_or_is_away_is_named_too() {
    let machine = Machine::with(&[(v4(1), Site::Accepts(0)), (v4(2), Site::Refuses(0))]);
    let error = race(&machine, &through_a_proxy(), &[v4(1)]).unwrap_err();
    assert_eq!((error.kind, machine.ms()), (Kind::ProxyFailed, 5_000));
    assert!(error.detail.contains("proxy.example:3128 did not answer CONNECT within 5000 ms"), "{}", error.detail);
    let error = race(&machine, &through_a_proxy(), &[v4(2)]).unwrap_err();
    assert_eq!(error.kind, Kind::ProxyFailed);
    assert!(error.detail.contains("proxy.example:3128 cannot be reached: 192.0.2.2:443"), "{}", error.detail);
}

/// An address on this machine that drops every attempt to connect: its queue is full for ever.
fn full() -> (SocketAddr, socket2::Socket, std::net::TcpStream) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let filler = std::net::TcpStream::connect(address).unwrap();
    (address, socket, filler)
}

#[test]
fn a_dead_address_is_passed_by_on_both_drivers() {
    for force_epoll in [false, true] {
        let (dead, _socket, _filler) = full();
        let good = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [dead, good.local_addr().unwrap()];
        Ring::run(force_epoll, Arc::default(), |ring, _| async move {
            let inside = Endpoint { guard: Guard::Inside, ..endpoint() };
            let conn = dial(&ring, &inside, &addresses).await.unwrap();
            assert_eq!(conn.peer, addresses[1]);
            // Alone it costs its time, which is what the race has saved.
            let none = Endpoint { connect: Span::from_ms(300), ..inside };
            let error = dial(&ring, &none, &addresses[..1]).await.err().unwrap();
            assert_eq!(error.kind, Kind::ConnectTimeout, "{error:?}");
        })
        .unwrap();
    }
}
