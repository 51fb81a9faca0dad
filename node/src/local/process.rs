//! One process of a local cluster: started, watched and signalled by the launcher, which is its parent.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use miette::Report;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How much of a log is shown when its process ends too early.
const LOG_TAIL_BYTES: u64 = 4_096;
/// How many lines of it.
const LOG_TAIL_LINES: usize = 12;

/// In the child: end when the parent ends, however it ends, so that a launcher killed by SIGKILL leaves nothing
/// behind. Gives the exit code at once if the parent has gone already.
pub(crate) fn die_with_parent(parent: u32) -> Option<ExitCode> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("cannot ask to end with the launcher: {error}");
    }
    // The parent may have ended before the line above took effect.
    let actual = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    (actual != Some(parent)).then_some(ExitCode::FAILURE)
}

/// Runs a node or the provider to its end on all cores.
pub(crate) fn block_on<E: Into<Report>>(service: impl Future<Output = Result<(), E>>) -> ExitCode {
    let result = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(service).map_err(Into::into),
        Err(error) => Err(miette::miette!("the runtime cannot start: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("{report:?}");
            ExitCode::FAILURE
        }
    }
}

/// What to run, and its life so far.
#[derive(Debug)]
pub(crate) struct Process {
    /// For messages, for example `node 2`.
    pub(crate) name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    is_paused: bool,
}

impl Process {
    /// Not started yet.
    pub(crate) fn new(name: impl Into<String>, program: &Path, arguments: Vec<String>, log: PathBuf) -> Self {
        Self {
            name: name.into(),
            program: program.to_owned(),
            arguments,
            log,
            child: None,
            is_paused: false,
        }
    }

    /// Starts it. Must be called on the main thread, with whose end the process ends.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .args(["--die-with-parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: Ctrl-C in the terminal reaches the launcher only, which then stops all in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        self.is_paused = false;
        Ok(())
    }

    /// Its number while it runs. The number stays its own until [`Self::ended`] has seen it end.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Where its log lies.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Tells once that it has ended by itself or by someone else's hand.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn set_paused(&mut self, paused: bool) -> io::Result<()> {
        self.signal(if paused { Signal::STOP } else { Signal::CONT })?;
        self.is_paused = paused;
        Ok(())
    }

    /// SIGTERM. A paused process is let go on first, or the signal would wait.
    pub(crate) fn ask_to_end(&mut self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)
    }

    /// SIGKILL, and waits for the end.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        if let Some(child) = &mut self.child {
            child.kill().await?;
        }
        self.child = None;
        Ok(())
    }

    /// Waits for its end, then SIGKILL.
    pub(crate) async fn end_within(&mut self, limit: Duration) -> io::Result<()> {
        if let Some(child) = &mut self.child
            && timeout(limit, child.wait()).await.is_err()
        {
            child.kill().await?;
        }
        self.child = None;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        match pid {
            Some(pid) => Ok(kill_process(pid, signal)?),
            None => Ok(()),
        }
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("{} cannot be read: {error}", self.log.display()))
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut content = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut content)?;
    let text = String::from_utf8_lossy(&content);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.log");
        let lines: Vec<String> = (0..2_000).map(|n| format!("line {n}")).collect();
        fs::write(&path, lines.join("\n")).expect("written");
        let tail = tail(&path).expect("is there");
        assert_eq!(tail.lines().count(), LOG_TAIL_LINES);
        assert!(tail.ends_with("line 1999"));
    }
}
