//! Mail between workers: a connection that was accepted on a busy core goes to a less busy one, before a byte of it was
//! read. The kernel spreads new connections by a hash, and streams live for minutes: without this, some cores would have
//! twice what others have, and keep it.

use crate::telemetry::{Core, Counters};
use atomic_waker::AtomicWaker;
use crossbeam::queue::ArrayQueue;
use std::{future::poll_fn, net::TcpStream, sync::Arc, task::Poll};

/// Connections that may wait for one worker; past it, whoever accepted one keeps it.
const MAIL_MAX: usize = 256;
/// How much more a core must have than the other to give something away: less would be noise.
const SLACK: i64 = 4;
/// A live stream is work; a connection by itself is the chance of some.
const STREAM_WEIGHT: i64 = 4;

/// A connection on its way.
pub struct Parcel {
    /// The socket.
    pub stream: TcpStream,
    /// The number of the listener that accepted it.
    pub listener: usize,
}

struct LetterBox {
    mail: ArrayQueue<Parcel>,
    waker: AtomicWaker,
    core: Arc<Core>,
}

/// Every worker's letter box.
#[derive(Clone)]
pub struct Mesh(Arc<Vec<LetterBox>>);

impl Mesh {
    /// A box for each of `cores`, in their order.
    pub fn new(cores: &[Arc<Core>]) -> Mesh {
        let boxes = cores.iter().map(|core| LetterBox {
            mail: ArrayQueue::new(MAIL_MAX),
            waker: AtomicWaker::new(),
            core: Arc::clone(core),
        });
        Mesh(Arc::new(boxes.collect()))
    }

    /// Where a connection that `own` has accepted should go: to one other worker, picked by `dice`, if that has clearly
    /// less to do. Two choices are nearly as good as looking at all.
    pub fn better_than(&self, own: usize, dice: u64) -> Option<usize> {
        let others = self.0.len().checked_sub(1).filter(|others| *others > 0)?;
        let pick = (dice % others as u64) as usize;
        let other = if pick < own { pick } else { pick + 1 };
        let (own, target) = (self.0.get(own)?, self.0.get(other)?);
        (target.core.listening() && gives_away(own.load(), target.load())).then_some(other)
    }

    /// Sends a parcel; hands it back when that box is full.
    ///
    /// # Errors
    /// The parcel.
    pub fn send(&self, to: usize, parcel: Parcel) -> Result<(), Parcel> {
        let Some(target) = self.0.get(to) else { return Err(parcel) };
        target.mail.push(parcel)?;
        target.waker.wake();
        Ok(())
    }

    /// The next parcel for `own`.
    pub async fn receive(&self, own: usize) -> Option<Parcel> {
        let mine = self.0.get(own)?;
        poll_fn(|cx| {
            if let Some(parcel) = mine.mail.pop() {
                return Poll::Ready(Some(parcel));
            }
            mine.waker.register(cx.waker());
            // One may have come between the look and the registration.
            mine.mail.pop().map_or(Poll::Pending, |parcel| Poll::Ready(Some(parcel)))
        })
        .await
    }
}

impl LetterBox {
    fn load(&self) -> i64 {
        load(&self.core.counters).saturating_add(self.mail.len() as i64)
    }
}

fn load(counters: &Counters) -> i64 {
    counters.connections.get().saturating_add(counters.streams.get().saturating_mul(STREAM_WEIGHT))
}

fn gives_away(own: i64, other: i64) -> bool {
    own > other.saturating_add(SLACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use std::net::TcpListener;

    fn cores(loads: &[i64]) -> Vec<Arc<Core>> {
        let make = |load: &i64| {
            let core = Core::new();
            core.counters.connections.set(*load);
            core.set_listening(true);
            Arc::new(core)
        };
        loads.iter().map(make).collect()
    }

    #[test]
    fn only_a_clearly_less_busy_core_gets_something() {
        let mesh = Mesh::new(&cores(&[10, 10 - SLACK, 10 - SLACK - 1]));
        let targets: Vec<_> = (0..4).map(|dice| mesh.better_than(0, dice)).collect();
        assert_eq!(targets, [None, Some(2), None, Some(2)]);
        assert_eq!(mesh.better_than(2, 0), None);
        assert_eq!(Mesh::new(&cores(&[99])).better_than(0, 0), None, "alone");
        let cores = cores(&[99, 0]);
        cores[1].set_listening(false);
        assert_eq!(Mesh::new(&cores).better_than(0, 0), None, "a core that goes down takes nothing");
    }

    #[test]
    fn two_choices_level_what_a_hash_would_skew() {
        let cores = cores(&[0; 8]);
        let mesh = Mesh::new(&cores);
        let mut rng = Rng(1);
        // Eight in ten come in on two of eight cores.
        for _ in 0..4000 {
            let own = if rng.below(10) < 8 { rng.below(2) } else { rng.below(8) } as usize;
            let to = mesh.better_than(own, rng.draw()).unwrap_or(own);
            cores[to].counters.streams.add(1);
        }
        let streams: Vec<_> = cores.iter().map(|core| core.counters.streams.get()).collect();
        let (least, most) = (streams.iter().min().unwrap(), streams.iter().max().unwrap());
        assert!(most - least <= 25, "{streams:?}");
    }

    #[test]
    fn a_full_box_gives_the_parcel_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let parcel = || Parcel { stream: stream.try_clone().unwrap(), listener: 3 };
        let mesh = Mesh::new(&cores(&[0, 0]));
        for _ in 0..MAIL_MAX {
            assert!(mesh.send(1, parcel()).is_ok());
        }
        assert_eq!(mesh.send(1, parcel()).err().map(|parcel| parcel.listener), Some(3));
        assert!(mesh.send(7, parcel()).is_err(), "no such worker");
    }
}
