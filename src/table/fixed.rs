//! What a running process cannot take from a new table: sockets that are bound, threads that run. A reload keeps what
//! is in force of these, and the difference (`meaning`) says that it needs a restart.

use super::{Listener, Table};

impl Table {
    /// Takes from `running` what only a restart can change. A listener that stays where it is takes its other settings
    /// from this table; exchanges know their listener by its number, so numbers stay too.
    pub fn hold(&mut self, running: &Table) {
        let mut wanted: Vec<Option<Listener>> = std::mem::take(&mut self.listeners).into_iter().map(Some).collect();
        let keep = |old: &Listener| {
            let same = wanted.iter_mut().find(|new| new.as_ref().is_some_and(|new| new.address == old.address));
            same.and_then(Option::take).unwrap_or_else(|| old.clone())
        };
        self.listeners = running.listeners.iter().map(keep).collect();
        self.admin = running.admin;
        self.health = running.health;
        self.runtime = running.runtime;
        self.log = running.log;
    }
}
