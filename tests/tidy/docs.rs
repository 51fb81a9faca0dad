//! What the documentation names is there: files, folders, pages that it links, and pages that nobody links.

use std::collections::BTreeSet;

use crate::tree::{File, extension, files, is_in, none, top};

/// Where a path in the documentation may begin: the folders and files at the top.
const TOPS: [&str; 13] = [
    "proto",
    "cluster",
    "actors",
    "node",
    "tests",
    "examples",
    "docs",
    ".ci",
    "README.md",
    "LICENSE",
    "Cargo.toml",
    "clippy.toml",
    "deny.toml",
];

fn pages() -> Vec<File> {
    let mut pages = files();
    pages.retain(|file| extension(&file.path) == "md" && (file.is_in("docs") || file.path == "README.md"));
    assert!(pages.len() > 5, "the pages are there");
    pages
}

/// Whether a piece of code in a page means a file or a folder of the tree.
fn is_path(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let names_place = text.contains('/') || TOPS.contains(&text);
    names_place && text.chars().all(is_plain) && TOPS.iter().any(|top| is_in(text, top))
}

/// What stands between backticks, outside of blocks of code.
fn code_spans(file: &File) -> Vec<(usize, String)> {
    let mut in_block = false;
    let mut spans = Vec::new();
    for (number, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span.to_owned())));
        }
    }
    spans
}

/// The targets of links, outside of blocks of code.
fn links(file: &File) -> Vec<(usize, String)> {
    let mut in_block = false;
    let mut links = Vec::new();
    for (number, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            links.extend(targets.map(|(target, _)| (number, target.to_owned())));
        }
    }
    links
}

/// A link's target as a path from the top; nothing for another site or a place on the same page.
fn linked(page: &str, target: &str) -> Option<String> {
    let target = target.split('#').next().unwrap_or_default();
    if target.is_empty() || target.contains("://") {
        return None;
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[test]
fn paths_in_the_documentation_exist() {
    let top = top();
    let mut findings = Vec::new();
    for page in pages() {
        for (number, path) in code_spans(&page).into_iter().filter(|(_, span)| is_path(span)) {
            if !top.join(&path).exists() {
                findings.push(format!("{}:{number}: `{path}` is not there", page.path));
            }
        }
    }
    none("the documentation names what is not there", &findings);
}

/// Files that a page shows: a line with nothing but the path and a colon, and below it the file as a block of code.
fn shown_files(page: &File) -> Vec<(usize, String, String)> {
    let lines: Vec<&str> = page.text.lines().collect();
    let mut shown = Vec::new();
    for (number, line) in page.lines() {
        let path = line.strip_prefix('`').and_then(|rest| rest.strip_suffix("`:"));
        let fence = lines.get(number + 1).is_some_and(|line| line.starts_with("```"));
        if let (Some(path), true) = (path, fence) {
            let block = lines[number + 2..].iter().take_while(|line| !line.starts_with("```"));
            let text: Vec<&str> = block.copied().collect();
            shown.push((number, path.to_owned(), text.join("\n")));
        }
    }
    shown
}

#[test]
fn files_that_a_page_shows_are_shown_as_they_are() {
    let mut findings = Vec::new();
    let mut count = 0;
    for page in pages() {
        for (number, path, text) in shown_files(&page) {
            count += 1;
            let file = std::fs::read_to_string(top().join(&path)).unwrap_or_default();
            if file.trim_end() != text {
                findings.push(format!("{}:{number}: `{path}` is another than it is shown", page.path));
            }
        }
    }
    none("a page shows a file that has changed", &findings);
    assert!(count > 5, "the pages show {count} files");
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let top = top();
    let mut findings = Vec::new();
    for page in pages() {
        for (number, target) in links(&page) {
            if let Some(path) = linked(&page.path, &target)
                && !top.join(&path).exists()
            {
                findings.push(format!("{}:{number}: {target} leads nowhere", page.path));
            }
        }
    }
    none("a link that leads nowhere", &findings);
}

#[test]
fn every_page_is_linked_from_another() {
    let pages = pages();
    let mut seen = BTreeSet::new();
    for page in &pages {
        seen.extend(
            links(page)
                .into_iter()
                .filter_map(|(_, target)| linked(&page.path, &target)),
        );
    }
    let findings: Vec<String> = pages
        .iter()
        .filter(|page| page.path != "README.md" && !seen.contains(&page.path))
        .map(|page| format!("{}:1: no page links it", page.path))
        .collect();
    none("a page that nobody finds", &findings);
}

#[test]
fn the_finders_find() {
    assert!(is_path("cluster/src/cluster.rs") && is_path("README.md") && is_path("tests/tidy"));
    assert!(!is_path("cluster") || top().join("cluster").exists());
    assert!(!is_path("order/42") && !is_path("cargo test") && !is_path("node N") && !is_path("a/b.rs"));
    assert_eq!(linked("docs/a.md", "../README.md"), Some("README.md".to_owned()));
    assert_eq!(
        linked("docs/decisions/x.md", "../a.md#top"),
        Some("docs/a.md".to_owned())
    );
    assert_eq!(linked("docs/a.md", "https://example.org/x"), None);
}
