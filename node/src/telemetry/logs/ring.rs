//! The latest log lines of this process, and who wants those that come.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use proto::telemetry::v1::LogEntry;
use tokio::sync::broadcast;

/// Lines that are kept, and their bytes, about.
const LINES_MAX: usize = 5_000;
const BYTES_MAX: usize = 4 << 20;
/// Lines that may wait for a reader; one that is slower is told how many it missed.
const WAITING_MAX: usize = 2_048;
/// What a line takes beside its texts.
const LINE_BYTES: usize = 200;

/// The latest lines.
pub(crate) struct Ring {
    node: u32,
    run: u64,
    kept: Mutex<Kept>,
    news: broadcast::Sender<Arc<LogEntry>>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Arc<LogEntry>>,
    bytes: usize,
    last: u64,
}

impl Ring {
    /// Of a process that starts now.
    pub(crate) fn new(node: u32) -> Self {
        Self {
            node,
            run: now_ns(),
            kept: Mutex::default(),
            news: broadcast::channel(WAITING_MAX).0,
        }
    }

    /// The node that it is; 0 for what is none.
    pub(crate) fn node(&self) -> u32 {
        self.node
    }

    /// When the process started: its lines are numbered anew.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// Takes a line; gives it with its number.
    pub(crate) fn push(&self, line: LogEntry) -> Arc<LogEntry> {
        let mut kept = self.kept.lock();
        kept.last += 1;
        let line = Arc::new(LogEntry {
            node: self.node,
            run: self.run,
            number: kept.last,
            ..line
        });
        kept.bytes += bytes_of(&line);
        kept.lines.push_back(Arc::clone(&line));
        while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= bytes_of(&oldest);
        }
        // Within the lock, so that a reader who looks at what is kept and then waits misses none. An error means that nobody
        // waits.
        let _ = self.news.send(Arc::clone(&line));
        line
    }

    /// The lines that are kept and those that come, without a gap.
    pub(crate) fn follow(&self) -> (Vec<Arc<LogEntry>>, broadcast::Receiver<Arc<LogEntry>>) {
        let kept = self.kept.lock();
        (kept.lines.iter().cloned().collect(), self.news.subscribe())
    }

    /// The lines that are kept, the oldest first.
    pub(crate) fn lines(&self) -> Vec<Arc<LogEntry>> {
        self.kept.lock().lines.iter().cloned().collect()
    }
}

fn bytes_of(line: &LogEntry) -> usize {
    let fields: usize = line.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    LINE_BYTES + line.message.len() + line.target.len() + fields
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogEntry {
        LogEntry {
            message: text.to_owned(),
            ..LogEntry::default()
        }
    }

    #[test]
    fn the_oldest_lines_go_and_numbers_go_on() {
        let ring = Ring::new(3);
        for number in 0..LINES_MAX + 10 {
            ring.push(line(&number.to_string()));
        }
        let lines = ring.lines();
        assert_eq!((lines.len(), lines[0].number, lines[0].node), (LINES_MAX, 11, 3));
        for _ in 0..10 {
            ring.push(line(&"x".repeat(BYTES_MAX / 4)));
        }
        assert!(ring.lines().len() < 5);
    }

    #[test]
    fn a_reader_sees_every_line_once_or_hears_how_many_it_missed() {
        let ring = Ring::new(1);
        ring.push(line("before"));
        let (kept, mut news) = ring.follow();
        ring.push(line("after"));
        assert_eq!((kept.len(), news.try_recv().expect("one").number), (1, 2));
        for _ in 0..WAITING_MAX + 7 {
            ring.push(line("many"));
        }
        assert!(matches!(
            news.try_recv(),
            Err(broadcast::error::TryRecvError::Lagged(7))
        ));
    }
}
