//! The device that the data folder lies on, and what the parts of the folder take of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use opentelemetry::{KeyValue, metrics::Meter};
use parking_lot::Mutex;
use rustix::fs::statvfs;
use tokio::time::Instant;

/// Time between two looks: a folder may have many files.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// Files that one look counts at most; the rest is left out.
const FILES_MAX: usize = 100_000;
/// What the folder has beside its parts.
const OTHER: &str = "other";
/// The parts of the folder that are told apart, by the names that they have in it.
const PARTS: [&str; 4] = ["log", "state", "snapshots", OTHER];

/// Reads one figure.
type Read = fn(&Space) -> u64;

/// The last look.
#[derive(Debug, Clone, Default)]
struct Space {
    size: u64,
    free: u64,
    parts: BTreeMap<&'static str, u64>,
}

/// Looks at the folder now and then.
pub(super) struct Disk {
    folder: PathBuf,
    space: Arc<Mutex<Space>>,
    last: Mutex<Option<Instant>>,
}

impl Disk {
    pub(super) fn new(meter: &Meter, folder: &Path) -> Self {
        let space = Arc::new(Mutex::new(Space::default()));
        let gauges: [(_, _, Read); 2] = [
            (
                "playhouse.disk.size",
                "Bytes of the device that the data folder lies on.",
                |space| space.size,
            ),
            (
                "playhouse.disk.free",
                "Bytes of it that are free for the node.",
                |space| space.free,
            ),
        ];
        for (name, about, read) in gauges {
            let space = Arc::clone(&space);
            meter
                .u64_observable_gauge(name)
                .with_unit("By")
                .with_description(about)
                .with_callback(move |observer| observer.observe(read(&space.lock()), &[]))
                .build();
        }
        let shown = Arc::clone(&space);
        meter
            .u64_observable_gauge("playhouse.data.size")
            .with_unit("By")
            .with_description("Bytes that the parts of the data folder take.")
            .with_callback(move |observer| {
                for (part, bytes) in &shown.lock().parts {
                    observer.observe(*bytes, &[KeyValue::new("part", *part)]);
                }
            })
            .build();
        Self {
            folder: folder.to_owned(),
            space,
            last: Mutex::default(),
        }
    }

    /// Looks, unless it has just done so.
    pub(super) async fn look(&self) {
        let is_new = self.last.lock().is_some_and(|last| last.elapsed() < LOOK_INTERVAL);
        if is_new {
            return;
        }
        *self.last.lock() = Some(Instant::now());
        let folder = self.folder.clone();
        // Reading a folder may wait for the device.
        if let Ok(space) = tokio::task::spawn_blocking(move || measure(&folder)).await {
            *self.space.lock() = space;
        }
    }
}

fn measure(folder: &Path) -> Space {
    let device = statvfs(folder).ok();
    let mut parts: BTreeMap<_, _> = PARTS.iter().map(|part| (*part, 0)).collect();
    let mut open = vec![(folder.to_owned(), None)];
    let mut files = 0;
    while let Some((path, part)) = open.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let part = part.or_else(|| PARTS.iter().copied().find(|part| name.to_str() == Some(part)));
            // What is removed while it is looked at is not there.
            let Ok(about) = entry.metadata() else { continue };
            files += 1;
            if files > FILES_MAX {
                break;
            }
            if about.is_dir() {
                open.push((entry.path(), Some(part.unwrap_or(OTHER))));
            } else {
                *parts.entry(part.unwrap_or(OTHER)).or_default() += about.len();
            }
        }
    }
    Space {
        size: device.as_ref().map_or(0, |device| device.f_blocks * device.f_frsize),
        free: device.as_ref().map_or(0, |device| device.f_bavail * device.f_frsize),
        parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_part_by_part() {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, bytes) in [
            ("log/1", 10),
            ("log/deep/2", 5),
            ("state/a", 7),
            ("identity", 3),
            ("else/x", 2),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
            fs::write(path, vec![0; bytes]).expect("a file");
        }
        let space = measure(folder.path());
        let parts = [("log", 15), ("other", 5), ("snapshots", 0), ("state", 7)];
        assert_eq!(space.parts, parts.into());
        assert!(space.size > space.free && space.free > 0, "{space:?}");
    }

    #[test]
    fn a_folder_that_is_not_there_takes_nothing() {
        assert!(
            measure(Path::new("/nowhere/at/all"))
                .parts
                .values()
                .all(|bytes| *bytes == 0)
        );
    }
}
