//! What is in a node's data folder: opened and looked through before the node says a word to anybody.
//!
//! A folder that is damaged is set aside, and the node comes back as one whose folder was lost, with everything from its peers. That is only
//! done where there are peers; a node that is alone says what is wrong and ends, with its folder as it was.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use super::SNAPSHOTS;
use crate::{
    config::Config,
    faults::Faults,
    journal::Shard,
    shard::tell,
    store::{
        StoreError, damage,
        erase::Erasure,
        identity::{Identity, IdentityError},
        log::{Log, StoredGroup},
        state::StateDb,
    },
};

/// Everything in a data folder.
pub(super) struct Folder {
    pub(super) identity: Identity,
    pub(super) erasure: Erasure,
    pub(super) log: Log,
    pub(super) db: StateDb,
    /// The replicas, by shard.
    pub(super) held: BTreeMap<u32, Held>,
}

/// A replica as it was found.
pub(super) struct Held {
    pub(super) stored: StoredGroup,
    pub(super) state: Shard,
}

/// Why a folder cannot be opened.
enum OpenError {
    /// What is in it is not what was written.
    Damaged(String),
    /// It cannot be used now.
    Unusable(String),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        if error.is_damage() {
            Self::Damaged(error.to_string())
        } else {
            Self::Unusable(error.to_string())
        }
    }
}

impl From<IdentityError> for OpenError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Damaged(reason) => Self::Damaged(reason),
            IdentityError::Unusable(reason) => Self::Unusable(reason),
        }
    }
}

/// Opens a node's data folder; or says why that cannot be.
pub(super) fn open(config: &Config, faults: &Arc<Faults>) -> Result<Folder, String> {
    let folder = &config.data;
    let found = match damage::noted(folder) {
        Some(reason) => Err(OpenError::Damaged(reason)),
        None => open_as(config, faults, false),
    };
    let reason = match found {
        Ok(folder) => return Ok(folder),
        Err(OpenError::Unusable(reason)) => return Err(reason),
        Err(OpenError::Damaged(reason)) => reason,
    };
    let has_peers = !config.join.is_empty() || config.members.iter().any(|member| member.id != config.node);
    if !has_peers {
        return Err(format!(
            "the data folder {} is damaged: {reason}. There is no other node to fetch its content from; nothing was changed in it",
            folder.display()
        ));
    }
    let aside = damage::set_aside(folder).map_err(|error| {
        format!(
            "the data folder {} is damaged: {reason}; and it cannot be set aside: {error}",
            folder.display()
        )
    })?;
    let text = format!(
        "the data folder is damaged: {reason}. It is set aside in {}, and this node fetches everything from its peers",
        aside.display()
    );
    tracing::error!("{text}");
    tell(&text);
    match open_as(config, faults, true) {
        Ok(folder) => Ok(folder),
        Err(OpenError::Damaged(reason) | OpenError::Unusable(reason)) => Err(reason),
    }
}

fn open_as(config: &Config, faults: &Arc<Faults>, is_lost: bool) -> Result<Folder, OpenError> {
    let folder = &config.data;
    let identity = Identity::open(folder, config.node, is_lost)?;
    // Snapshots are made for those who need them now; what is left of an earlier run is of no use.
    match std::fs::remove_dir_all(folder.join(SNAPSHOTS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(OpenError::Unusable(format!("{}: {error}", folder.display())));
        }
        _ => {}
    }
    // The libraries below are not always polite about what they cannot read.
    let opened = catch_unwind(AssertUnwindSafe(|| open_stores(folder, faults, &identity)));
    let (erasure, log, db, held) = match opened {
        Ok(opened) => opened?,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            let reason = format!("it cannot be read ({})", said.unwrap_or("a panic"));
            return Err(OpenError::Damaged(reason));
        }
    };
    Ok(Folder {
        identity,
        erasure,
        log,
        db,
        held,
    })
}

type Stores = (Erasure, Log, StateDb, BTreeMap<u32, Held>);

fn open_stores(folder: &Path, faults: &Arc<Faults>, identity: &Identity) -> Result<Stores, StoreError> {
    let erasure = Erasure::open(folder)?;
    let log = Log::open(&folder.join("log"), faults)?;
    let db = StateDb::open(&folder.join("state"), faults)?;
    let held = identity
        .held()
        .into_keys()
        .map(|shard| Ok((shard, held(&log, &db, shard)?)));
    let held = held.collect::<Result<_, StoreError>>()?;
    Ok((erasure, log, db, held))
}

/// A replica, from its last checkpoint and the log behind it.
pub(super) fn held(log: &Log, db: &StateDb, shard: u32) -> Result<Held, StoreError> {
    let damaged = |reason: String| StoreError::Damaged {
        key: format!("shard {shard}"),
        reason,
    };
    let stored = log.group(shard)?;
    let stored = stored.ok_or_else(|| damaged("the log knows nothing of it".to_owned()))?;
    db.keep_only(shard, stored.generation)?;
    let state = Shard::open(db.shard(shard, stored.generation)?)?;
    let (applied, begins) = (state.meta().applied.0, stored.cut.0);
    let ends = begins + stored.entries.len() as u64;
    if !(begins..=ends).contains(&applied) {
        return Err(damaged(format!(
            "its state ends at {applied}, and the log reaches from {begins} to {ends}"
        )));
    }
    Ok(Held { stored, state })
}
