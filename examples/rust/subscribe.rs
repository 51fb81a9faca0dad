//! Keeps a list of events in a file, each once, whatever happens: the cursor stands in the same file as the work, so both are
//! there or neither is. Kill it at any time and start it again; it goes on where it was.
//!
//! Start a cluster with `playhouse up`, then `cargo run --release -p examples --bin subscribe -- events.txt`; nodes elsewhere
//! follow as HOST:PORT. `--kind order` before the file keeps only events of orders.
//!
//! The file holds one line for each event. A line that begins with `cursor` ends a batch: what stands behind the last such line
//! was not written whole, and is cut off at the next start.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::Duration,
};

use proto::events::v1::{EventBatch, Filter, Start, SubscribeRequest, events_client::EventsClient, start::At};
use tonic::{Code, Status};

/// The nodes that `playhouse up` starts.
const NODES: [&str; 3] = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
/// The pause before the next node is tried.
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut kinds = Vec::new();
    let mut words = env::args().skip(1).peekable();
    while words.next_if(|word| word == "--kind").is_some() {
        kinds.push(words.next().ok_or("--kind is followed by a kind")?);
    }
    let path = words.next().ok_or("the name of a file is missing")?;
    let mut nodes: Vec<String> = words.collect();
    if nodes.is_empty() {
        nodes = NODES.map(str::to_owned).to_vec();
    }
    let mut work = Work::open(Path::new(&path))?;
    for node in nodes.iter().cycle() {
        match follow(node, &kinds, &mut work).await {
            Err(Stop::Status(status)) if status.code() == Code::InvalidArgument => {
                return Err(format!("the cluster does not know this subscription: {}", status.message()).into());
            }
            Err(Stop::Status(status)) => eprintln!("{node}: {}; going on at the next node", status.message()),
            Err(Stop::File(error)) => return Err(error.into()),
            Ok(()) => eprintln!("{node}: the stream has ended; going on at the next node"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Why a stream was left.
enum Stop {
    Status(Status),
    File(std::io::Error),
}

/// Writes down what one node sends, for as long as it does.
async fn follow(node: &str, kinds: &[String], work: &mut Work) -> Result<(), Stop> {
    let connected = EventsClient::connect(format!("http://{node}")).await;
    let mut client = connected.map_err(|error| Stop::Status(Status::unavailable(error.to_string())))?;
    let at = match &work.cursor {
        Some(cursor) => At::Cursor(cursor.clone()),
        None => At::Beginning(true),
    };
    let request = SubscribeRequest {
        start: Some(Start { at: Some(at) }),
        filter: Some(Filter {
            kinds: kinds.to_vec(),
            ..Filter::default()
        }),
        ..SubscribeRequest::default()
    };
    let mut batches = client.subscribe(request).await.map_err(Stop::Status)?.into_inner();
    while let Some(batch) = batches.message().await.map_err(Stop::Status)? {
        work.take(batch).map_err(Stop::File)?;
    }
    Ok(())
}

/// The file: events, and the cursor behind them.
struct Work {
    file: File,
    cursor: Option<String>,
}

impl Work {
    /// Opens the file, and cuts off what was not written whole.
    fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut cursor = None;
        let (mut at, mut end) = (0, 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            at += line.len();
            if let Some(found) = line.strip_prefix(b"cursor ").and_then(|line| line.strip_suffix(b"\n")) {
                cursor = Some(String::from_utf8_lossy(found).into_owned());
                end = at;
            }
        }
        file.set_len(end as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, cursor })
    }

    /// Adds a batch: its events and its cursor in one write, then on the device.
    fn take(&mut self, batch: EventBatch) -> std::io::Result<()> {
        if batch.events.is_empty() {
            // Nothing to write down; the next cursor says as much.
            self.cursor = Some(batch.cursor);
            return Ok(());
        }
        let mut lines = String::new();
        for event in &batch.events {
            // Ids have no line ends.
            let _ = writeln!(lines, "{}/{} {} {}", event.kind, event.id, event.version, event.name);
        }
        let _ = writeln!(lines, "cursor {}", batch.cursor);
        self.file.write_all(lines.as_bytes())?;
        self.file.sync_data()?;
        self.cursor = Some(batch.cursor);
        Ok(())
    }
}
