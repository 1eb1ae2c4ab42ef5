//! Where text leaves the process: a thread of its own that may block on a slow terminal or a full pipe, behind a
//! bounded queue that nobody else waits for.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

/// Pieces that wait to be written; with `PIECE_BYTES` each this is 8 MiB.
const PIECES_MAX: usize = 128;
/// A piece is handed over when it has grown to this.
pub const PIECE_BYTES: usize = 64 * 1024;
/// How long the end waits for what is still to be written.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// The two streams that are written.
pub struct Outputs {
    /// The access log.
    pub log: Box<dyn Write + Send>,
    /// What an operator should know.
    pub notices: Box<dyn Write + Send>,
}

impl Outputs {
    /// Standard output and standard error.
    ///
    /// # Errors
    /// When a descriptor cannot be duplicated.
    pub fn standard() -> io::Result<Outputs> {
        // As files, because the standard library's own handles are buffered by line and locked.
        let log = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let notices = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Ok(Outputs { log: Box::new(log), notices: Box::new(notices) })
    }

    /// Whether the access log of `standard` goes to a terminal, and whether that wants colours.
    pub fn terminal() -> (bool, bool) {
        let terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        (terminal, terminal && !plain)
    }
}

enum Piece {
    Log(Vec<u8>),
    Notice(Vec<u8>),
}

/// The way to the writing thread.
pub struct Sink {
    pieces: SyncSender<Piece>,
}

/// Waits for the writing thread at the end.
pub struct SinkEnd {
    done: Receiver<()>,
}

impl Sink {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn open(mut outputs: Outputs) -> io::Result<(Sink, SinkEnd)> {
        let (pieces, waiting) = sync_channel::<Piece>(PIECES_MAX);
        let (finished, done) = sync_channel(1);
        thread::Builder::new().name("forebay-log".into()).spawn(move || {
            while let Ok(piece) = waiting.recv() {
                let written = match piece {
                    Piece::Log(bytes) => outputs.log.write_all(&bytes).and_then(|()| outputs.log.flush()),
                    // Standard error may be closed while the log still has a reader.
                    Piece::Notice(bytes) => outputs.notices.write_all(&bytes).or(Ok(())),
                };
                if written.is_err() {
                    break; // the reader is gone
                }
            }
            drop(waiting); // from here on every piece counts as lost
            let _ = finished.send(());
        })?;
        Ok((Sink { pieces }, SinkEnd { done }))
    }

    /// Hands log lines over; `false` when they are lost, because the output is slower than the log or gone.
    #[must_use]
    pub fn log(&self, lines: Vec<u8>) -> bool {
        self.pieces.try_send(Piece::Log(lines)).is_ok()
    }

    /// Tells the operator something; lost when there is no room, because nothing may wait for it.
    pub fn notice(&self, text: &str) {
        let _ = self.pieces.try_send(Piece::Notice(format!("forebay: {text}\n").into_bytes()));
    }
}

impl SinkEnd {
    /// Waits until all is written, once every `Sink` is gone; `false` when the output did not take it in time.
    pub fn wait(self) -> bool {
        !matches!(self.done.recv_timeout(CLOSE_MAX), Err(RecvTimeoutError::Timeout))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crossbeam::queue::SegQueue;
    use std::sync::{Arc, mpsc};

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub struct Kept(Arc<SegQueue<Vec<u8>>>);

    impl Kept {
        /// All that was written since the last call.
        pub fn take(&self) -> String {
            let bytes: Vec<u8> = std::iter::from_fn(|| self.0.pop()).flatten().collect();
            String::from_utf8(bytes).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Blocks until the other end of a channel is dropped.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writes_in_order_and_ends() {
        let (log, notices) = (Kept::default(), Kept::default());
        let (sink, end) =
            Sink::open(Outputs { log: Box::new(log.clone()), notices: Box::new(notices.clone()) }).unwrap();
        assert!(sink.log(b"one\n".to_vec()));
        sink.notice("something");
        assert!(sink.log(b"two\n".to_vec()));
        drop(sink);
        assert!(end.wait());
        assert_eq!(log.take(), "one\ntwo\n");
        assert_eq!(notices.take(), "forebay: something\n");
    }

    #[test]
    fn a_stuck_output_loses_lines_and_holds_nobody_up() {
        let (release, stuck) = mpsc::channel();
        let (sink, end) = Sink::open(Outputs { log: Box::new(Stuck(stuck)), notices: Box::new(io::sink()) }).unwrap();
        let taken = (0..PIECES_MAX * 2).filter(|_| sink.log(b"line\n".to_vec())).count();
        assert!((PIECES_MAX..=PIECES_MAX + 1).contains(&taken), "{taken} taken: the queue, and one being written");
        drop((release, sink));
        assert!(end.wait());
    }

    #[test]
    fn a_closed_output_loses_lines() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sink, end) = Sink::open(Outputs { log: Box::new(Closed), notices: Box::new(io::sink()) }).unwrap();
        assert!(sink.log(b"line\n".to_vec()));
        assert!(end.wait(), "the thread has ended");
        assert!(!sink.log(b"line\n".to_vec()));
    }
}
