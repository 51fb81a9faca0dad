//! What is written: every Rust file says what it answers for, none is left half done, none grows without being noticed.

use crate::tree::{files, names, none, rust};

/// Lines of a Rust file. Past 400 a second look is due, past this the file is to be divided.
const LINES_MAX: usize = 600;
/// What half-done code is marked with. Each is put together here, or this file would offend.
const LEFTOVERS: [(&str, &str); 6] = [
    ("TO", "DO"),
    ("FIX", "ME"),
    ("HA", "CK"),
    ("todo", "!"),
    ("unimplemented", "!"),
    ("dbg", "!"),
];

/// Folders that exist on one machine only. Put together here for the same reason.
const MACHINE_PATHS: [(&str, &str); 6] = [
    ("/ho", "me/"),
    ("/ro", "ot/"),
    ("/wo", "rk/"),
    ("/Us", "ers/"),
    ("/tm", "p/wt"),
    ("../sha", "red"),
];

#[test]
fn every_rust_file_says_what_it_answers_for() {
    let findings: Vec<String> = rust()
        .iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| format!("{}:1: must begin with `//!` and a sentence", file.path))
        .collect();
    none("a file without a front page", &findings);
}

#[test]
fn nothing_is_left_half_done() {
    let mut findings = Vec::new();
    for file in rust() {
        for (number, line) in file.lines() {
            for (head, tail) in LEFTOVERS {
                let word = format!("{head}{tail}");
                if names(line, &word) {
                    findings.push(format!("{}:{number}: {word}", file.path));
                }
            }
        }
    }
    none("a leftover", &findings);
}

#[test]
fn no_rust_file_grows_without_being_noticed() {
    let mut findings = Vec::new();
    for file in rust() {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!(
                "{}:{lines}: has {lines} lines; at most {LINES_MAX} are allowed",
                file.path
            ));
        }
    }
    none("a file that is to be divided", &findings);
}

#[test]
fn nothing_names_a_folder_of_one_machine() {
    let mut findings = Vec::new();
    for file in files() {
        for (number, line) in file.lines() {
            for (head, tail) in MACHINE_PATHS {
                let path = format!("{head}{tail}");
                if line.contains(&path) {
                    findings.push(format!("{}:{number}: {path}", file.path));
                }
            }
        }
    }
    none("a path that exists on one machine only", &findings);
}
