//! Runs the program and keeps what it said.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

/// No command of a test takes longer.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(3);

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Fails the test unless the exit code is 0.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The one line of JSON.
    pub fn json(&self) -> Value {
        assert_eq!(
            self.stdout.lines().count(),
            1,
            "not one line: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Runs the program to its end.
pub async fn playhouse<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Finished {
    let run = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(COMMAND_TIMEOUT, run)
        .await
        .expect("the command ends in time")
        .expect("the command starts");
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
