//! The books with their data file: one JSON line for each call that was taken, read again at the start.
//!
//! A line is handed to the operating system before the call is answered, so it survives the end of this process, though
//! not a power cut: nothing that Playhouse promises rests on this file.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use actors::payment::provider::{Answer, Request};

use super::{
    ledger::{Entry, Ledger, Taken, Untaken},
    wire::LedgerPage,
};

/// The books, and where they are kept.
#[derive(Default)]
pub(super) struct Book {
    ledger: Ledger,
    file: Option<File>,
}

impl Book {
    /// Books that are kept in memory only.
    pub(super) fn in_memory() -> Self {
        Self::default()
    }

    /// Books that are kept in a file, with what it holds. A torn last line, whose call was never answered, is cut off.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut ledger = Ledger::default();
        let mut lines = BufReader::new(&mut file);
        let (mut line, mut good_bytes, mut number) = (String::new(), 0, 0_u64);
        loop {
            line.clear();
            let bytes = lines.read_line(&mut line)?;
            if bytes == 0 {
                break;
            }
            number += 1;
            if !line.ends_with('\n') {
                break;
            }
            let entry: Entry = serde_json::from_str(&line).map_err(|error| {
                let message = format!("line {number} of {} is no ledger line: {error}", path.display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?;
            ledger.apply(&entry);
            good_bytes += bytes as u64;
        }
        file.set_len(good_bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            ledger,
            file: Some(file),
        })
    }

    /// Takes a call, or gives the answer that its key has had.
    pub(super) fn take(
        &mut self,
        key: &str,
        request: Request,
        decline_over_minor: Option<i64>,
    ) -> io::Result<Result<Answer, Untaken>> {
        let entry = match self.ledger.decide(key, request, decline_over_minor) {
            Ok(Taken::New(entry)) => entry,
            Ok(Taken::Kept(answer)) => return Ok(Ok(answer)),
            Err(untaken) => return Ok(Err(untaken)),
        };
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(&entry).expect("an entry has string keys only");
            line.push(b'\n');
            let before = file.stream_position()?;
            if let Err(error) = file.write_all(&line) {
                // Half a line would make the next one unreadable.
                file.set_len(before)?;
                return Err(error);
            }
        }
        self.ledger.apply(&entry);
        Ok(Ok(entry.answer))
    }

    /// One page of the ledger.
    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> LedgerPage {
        self.ledger.page(after, limit)
    }
}
