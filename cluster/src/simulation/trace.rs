//! What happened, in order: as a number to compare runs by, and as text for people when it is asked for.

use std::fmt::{self, Write as _};

/// The trace of a run.
pub(super) struct Trace {
    hash: u64,
    print: bool,
    kept: Option<Vec<String>>,
}

struct Hasher(u64);

impl fmt::Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text.bytes().fold(self.0, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Ok(())
    }
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            print,
            kept: None,
        }
    }

    /// From now on all lines are kept.
    pub(super) fn keep(&mut self) {
        self.kept = Some(Vec::new());
    }

    pub(super) fn take_kept(&mut self) -> Vec<String> {
        self.kept.take().unwrap_or_default()
    }

    pub(super) fn note(&mut self, now: u64, what: fmt::Arguments<'_>) {
        let mut hasher = Hasher(self.hash);
        write!(hasher, "{now} {what}").expect("the hasher takes everything");
        self.hash = hasher.0;
        if let Some(kept) = &mut self.kept {
            kept.push(format!("{now:>7} {what}"));
        }
        if self.print {
            println!("{now:>7} {what}");
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}
