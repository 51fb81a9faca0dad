//! A subscriber in a process of its own (`examples/rust/subscribe.rs`), to be killed at any time, and what its file must say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, Command};

/// A subscriber that keeps events in a file.
#[derive(Debug)]
pub struct Subscriber {
    program: String,
    path: PathBuf,
    words: Vec<String>,
    child: Option<Child>,
    kills: u64,
}

impl Subscriber {
    /// One that is not running yet: the program (`subscriber!` for tests), the file, the kind of entities, the nodes.
    pub fn new(program: &str, path: &Path, kind: &str, nodes: &[String]) -> Self {
        let mut words = vec!["--kind".to_owned(), kind.to_owned(), path.display().to_string()];
        words.extend_from_slice(nodes);
        Self {
            program: program.to_owned(),
            path: path.to_owned(),
            words,
            child: None,
            kills: 0,
        }
    }

    /// Starts it; it goes on from what its file says.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(&mut self) {
        let child = Command::new(&self.program)
            .args(&self.words)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the subscriber can be started");
        self.child = Some(child);
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it has ended by itself.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let ended = child.try_wait().expect("it is a child of this process");
        assert!(ended.is_none(), "the subscriber has ended by itself: {ended:?}");
        child.kill().await.expect("it can be killed");
        self.kills += 1;
    }

    /// How often it was killed.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// How far it is with each entity; or which event came twice, too early, or out of order. What stands behind the last
    /// cursor does not count: it is cut off at the next start.
    pub fn seen(&self) -> Result<BTreeMap<String, u64>, String> {
        let text = match fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.to_string()),
        };
        let (mut seen, mut batch) = (BTreeMap::new(), Vec::new());
        for line in text.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else { break };
            if !line.starts_with("cursor ") {
                batch.push(line);
                continue;
            }
            for line in batch.drain(..) {
                let (entity, rest) = line.split_once(' ').ok_or_else(|| format!("no event: {line:?}"))?;
                let version = rest.split(' ').next().and_then(|version| version.parse::<u64>().ok());
                let version = version.ok_or_else(|| format!("no version: {line:?}"))?;
                let last = seen.entry(entity.to_owned()).or_insert(0);
                if version != *last + 1 {
                    return Err(format!("{entity} has version {version} after {last}"));
                }
                *last = version;
            }
        }
        Ok(seen)
    }
}

/// The path of the subscriber under test. Cargo tells it to the tests only, so this is a macro.
#[macro_export]
macro_rules! subscriber {
    () => {
        env!("CARGO_BIN_EXE_subscriber-under-test")
    };
}
