//! What becomes of a folder that is damaged.
//!
//! A replica whose log or state is not what it was must not go on under its name: it has forgotten what it promised. It comes back as
//! one whose folder was lost does (`docs/decisions/2026-11-20-replica-incarnations.md`): under a new name, with everything fetched from
//! its peers. What was there is set aside, never deleted: if the peers should turn out not to have it, it is all that there is.
//!
//! That it was here before is written into the new folder's identity. Such a node is let in by the others or waits for them; it never
//! begins a new cluster, not even if all of them lost their folders.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Holds why a folder that cannot be used is damaged, if that was found while the node ran.
const NOTE: &str = "damaged.txt";
/// Where the parts of a damaged folder go, below it. Those of an earlier time make room.
const ASIDE: &str = "damaged";
/// What belongs to a replica's promises, and goes together.
const PARTS: [&str; 5] = ["identity.json", "log", "state", "erase.json", NOTE];

/// Notes that the folder is damaged, for the next start. What cannot be noted is found again then.
pub(crate) fn note(folder: &Path, reason: &str) {
    if let Err(error) = fs::write(folder.join(NOTE), reason) {
        tracing::warn!(%error, "that the data folder is damaged could not be noted in it");
    }
}

/// Why the folder is damaged, if that was noted.
pub(crate) fn noted(folder: &Path) -> Option<String> {
    let bytes = fs::read(folder.join(NOTE)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Puts everything that a replica's promises rest on aside. Says where it is now.
pub(crate) fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    let aside = folder.join(ASIDE);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(&aside)?;
    for part in PARTS {
        match fs::rename(folder.join(part), aside.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_set_aside_whole_and_its_note_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for round in ["first", "second"] {
            fs::create_dir(path("log")).expect("made");
            fs::write(path("log/file"), round).expect("written");
            fs::write(path("node.log"), "stays").expect("written");
            assert_eq!(noted(folder.path()), None);
            note(folder.path(), "a bit was flipped");
            assert_eq!(noted(folder.path()).as_deref(), Some("a bit was flipped"));
            let aside = set_aside(folder.path()).expect("set aside");
            assert_eq!(noted(folder.path()), None);
            assert_eq!(fs::read_to_string(aside.join("log/file")).expect("there"), round);
            assert!(!path("log").exists() && path("node.log").exists());
        }
    }
}
