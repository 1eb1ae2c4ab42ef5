//! One request that was sent with a credential, as its limits see it: what it took is given back exactly once, however
//! it ends. Hold it from the choice of the credential to the end of the answer.

use super::{CredentialState, ModelClass, Need, Room, Told, capacity::Taken};
use crate::{
    base::{Mono, Wall},
    table::CredentialLimits,
};
use std::sync::{Arc, atomic::Ordering::Relaxed};

/// A request under way. Dropping it is its end.
pub struct Sent {
    state: Arc<CredentialState>,
    class: ModelClass,
    limits: CredentialLimits,
    taken: Taken,
    began: Mono,
    /// The head of its answer has come.
    headed: bool,
}

impl Sent {
    /// A request is sent, whether there is room or not.
    pub fn begin(
        state: Arc<CredentialState>,
        class: ModelClass,
        need: Need,
        limits: CredentialLimits,
        now: Mono,
        wall: Wall,
    ) -> Sent {
        let taken = state.class(class).begin(need, now);
        state.declared.begin(need, taken.output, &limits, now, wall);
        state.in_flight.fetch_add(1, Relaxed);
        Sent { state, class, limits, taken, began: now, headed: false }
    }

    /// A request is sent if there is room behind all others that are under way: of several cores that saw the last room
    /// at once, one gets it. Otherwise nothing has been taken, and it says when there may be some.
    pub fn claim(
        state: Arc<CredentialState>,
        class: ModelClass,
        need: Need,
        limits: CredentialLimits,
        now: Mono,
        wall: Wall,
    ) -> Result<Sent, Room> {
        match state.room(class, need, &limits, now) {
            full @ (Room::At(_) | Room::Refused(_)) => return Err(full),
            Room::Now | Room::Paced(_) => {}
        }
        let sent = Sent::begin(state, class, need, limits, now, wall);
        match sent.holds(now) {
            Room::Now | Room::Paced(_) => Ok(sent),
            full @ (Room::At(_) | Room::Refused(_)) => {
                sent.state.declared.undo(need, &limits, now);
                Err(full)
            }
        }
    }

    fn holds(&self, now: Mono) -> Room {
        let declared = self.state.declared.holds(&self.limits, now);
        declared.map_or_else(|| self.state.class(self.class).holds(&self.taken, now), Room::At)
    }

    /// The head of its answer has come, whatever its status, and tells of limits: to be called then, since what is told is
    /// measured from then. Only the first call counts; `answered` and `refused` call it if nobody has.
    pub fn heard(&mut self, told: &Told, now: Mono) {
        if std::mem::replace(&mut self.headed, true) {
            return;
        }
        let class = self.state.class(self.class);
        // First what is told, then what is no longer pending: in between it counts twice, never not at all.
        class.learn(&self.taken, told, self.began, now);
        class.headed(&self.taken);
    }

    /// It was let in, whatever came of it then. For a 429 there is `refused`.
    pub fn answered(&mut self, told: &Told, now: Mono) {
        self.heard(told, now);
        self.state.class(self.class).accepted();
    }

    /// The upstream refused it for want of room (a 429 that is a matter of rate). The class is left alone until the
    /// moment that this returns.
    pub fn refused(&mut self, told: &Told, now: Mono) -> Mono {
        self.heard(told, now);
        self.state.class(self.class).refuse(&self.taken, told, now)
    }

    /// Its answer has ended, with so much output in tokens as a model counts them; then drop it. Without this, the declared
    /// limit on output counts what was expected, and nothing is learned of what to expect.
    pub fn finished(&mut self, output: u64, now: Mono) {
        self.state.class(self.class).produced(output);
        self.state.declared.answered(output, &self.limits, now);
    }

    /// When it was sent.
    pub fn began(&self) -> Mono {
        self.began
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let class = self.state.class(self.class);
        if !self.headed {
            class.headed(&self.taken);
        }
        class.ended(&self.taken);
        self.state.declared.end(self.taken.output);
        self.state.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
