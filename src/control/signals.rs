//! The signals that end the process: SIGINT and SIGTERM, waited for by a thread that does nothing else.

use std::{future::poll_fn, io, task::Poll};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT: someone at the terminal.
    Interrupt,
    /// SIGTERM: the service manager.
    Terminate,
}

impl Stop {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Stop::Interrupt => "SIGINT",
            Stop::Terminate => "SIGTERM",
        }
    }
}

/// Both signals, taken from the system's default (which would end the process) from `new` on, for good.
pub struct Signals {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over; one that comes before `wait` is kept. Call it before anything that must end in order.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn new() -> io::Result<Signals> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (interrupt, terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        Ok(Signals { runtime, interrupt, terminate })
    }

    /// Blocks until the next of them.
    pub fn wait(&mut self) -> Stop {
        let (interrupt, terminate) = (&mut self.interrupt, &mut self.terminate);
        self.runtime.block_on(poll_fn(|cx| {
            if terminate.poll_recv(cx).is_ready() {
                return Poll::Ready(Stop::Terminate);
            }
            interrupt.poll_recv(cx).map(|_| Stop::Interrupt)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_came_early_is_not_lost() {
        let mut signals = Signals::new().unwrap();
        for (number, stop) in [(libc::SIGTERM, Stop::Terminate), (libc::SIGINT, Stop::Interrupt)] {
            let kill = format!("kill -{number} {}", std::process::id());
            let sent = std::process::Command::new("sh").args(["-c", &kill]).status().unwrap();
            assert!(sent.success());
            assert_eq!(signals.wait(), stop);
        }
    }
}
