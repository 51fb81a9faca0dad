//! The files of the tree, without git: every file below the top but what is built, fetched or left by a running cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that are no part of the project. In a linked work tree `.git` is a file.
const SKIPPED: [&str; 6] = [
    "target",
    ".git",
    "playhouse-data",
    "node_modules",
    "__pycache__",
    "proptest-regressions",
];

/// A text file: its path from the top, with forward slashes, and its content.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// Lines of code with their numbers: without those that are only a comment.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    pub(crate) fn is_in(&self, place: &str) -> bool {
        is_in(&self.path, place)
    }
}

/// Whether a path is a place, or lies below it.
pub(crate) fn is_in(path: &str, place: &str) -> bool {
    path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}

/// The top of the tree.
pub(crate) fn top() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies below the top").to_owned()
}

/// All text files.
pub(crate) fn files() -> Vec<File> {
    let top = top();
    let mut paths = Vec::new();
    walk(&top, &mut paths);
    paths.sort();
    assert!(paths.len() > 100, "the walk found {} files only", paths.len());
    paths
        .into_iter()
        .filter_map(|path| {
            // What is no UTF-8 is no text.
            let text = fs::read_to_string(&path).ok()?;
            let path = path.strip_prefix(&top).expect("it was found below the top");
            let path = path.to_string_lossy().replace('\\', "/");
            Some(File { path, text })
        })
        .collect()
}

/// All Rust files.
pub(crate) fn rust() -> Vec<File> {
    let mut files = files();
    files.retain(|file| extension(&file.path) == "rs");
    files
}

/// What follows the last dot of a path.
pub(crate) fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("a folder that can be opened can be listed");
        let path = entry.path();
        let name = entry.file_name();
        let kind = entry.file_type().expect("what is listed has a type");
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if kind.is_dir() {
            walk(&path, paths);
        } else if kind.is_file() {
            paths.push(path);
        }
    }
}

/// Fails with every finding, one a line.
#[track_caller]
pub(crate) fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Whether a line names a word, not as a part of a longer one.
pub(crate) fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open = word.ends_with("::") || word.ends_with('!') || !after.is_some_and(is_part);
        !before.is_some_and(is_part) && open
    })
}
