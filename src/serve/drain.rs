//! How far one core has come on its way down, and the waiting of those who must know.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// The stages, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// New work is welcome.
    #[default]
    Serving,
    /// No new connection is taken; one without a request ends; exchanges in flight go on.
    Closing,
    /// Time is up: streams are broken, so that their clients see it.
    Ending,
}

/// One core's stage.
#[derive(Default)]
pub struct Drain {
    stage: Cell<Stage>,
    /// Who waits for `Closing`: connections without a request. As long as there ever were such connections at once.
    waiting: RefCell<Vec<Option<Waker>>>,
    /// The places in `waiting` that nobody has.
    free: RefCell<Vec<usize>>,
}

impl Drain {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Goes on to `stage`, and wakes everyone who waits.
    pub fn advance(&self, stage: Stage) {
        self.stage.set(stage);
        self.waiting.take().into_iter().flatten().for_each(Waker::wake);
    }

    /// Ready once the stage is past `Serving`.
    pub async fn closing(&self) {
        let mut place = Place { drain: self, at: None };
        poll_fn(|cx| {
            if self.stage.get() > Stage::Serving {
                return Poll::Ready(());
            }
            place.put(cx.waker());
            Poll::Pending
        })
        .await;
    }
}

/// A waiter's place, given back when it stops waiting.
struct Place<'a> {
    drain: &'a Drain,
    at: Option<usize>,
}

impl Place<'_> {
    fn put(&mut self, waker: &Waker) {
        let mut waiting = self.drain.waiting.borrow_mut();
        let at = self.at.or_else(|| self.drain.free.borrow_mut().pop()).unwrap_or(waiting.len());
        match waiting.get_mut(at) {
            Some(place) => *place = Some(waker.clone()),
            None => waiting.push(Some(waker.clone())),
        }
        self.at = Some(at);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.drain.waiting.borrow_mut();
        if let Some(place) = self.at.and_then(|at| waiting.get_mut(at)) {
            *place = None;
            self.drain.free.borrow_mut().extend(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::Future, pin::pin, task::Context};

    #[test]
    fn waiters_are_woken_and_places_are_reused() {
        let drain = Drain::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let (mut a, mut b) = (pin!(drain.closing()), pin!(drain.closing()));
            assert!(a.as_mut().poll(&mut cx).is_pending() && b.as_mut().poll(&mut cx).is_pending());
            assert!(a.as_mut().poll(&mut cx).is_pending(), "polled again, it keeps its place");
        }
        assert_eq!(drain.waiting.borrow().len(), 2);
        let mut late = pin!(drain.closing());
        assert!(late.as_mut().poll(&mut cx).is_pending());
        drain.advance(Stage::Closing);
        assert!(late.as_mut().poll(&mut cx).is_ready());
        assert!(pin!(drain.closing()).poll(&mut cx).is_ready());
    }
}
