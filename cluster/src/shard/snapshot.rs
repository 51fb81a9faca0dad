//! A shard's rows in a file, for replicas that need more than the log holds.
//!
//! The leader writes the file from a checkpoint, so that the shard goes on meanwhile, and peers read it in chunks. The
//! receiver writes the rows under a new generation of the shard, and switches to it only once all of them are on its device.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use prost::Message;
use proto::cluster::v1 as pb;

use crate::{
    journal::keys::{self, Meta},
    store::{Batch, StateStore, StoreError},
};

/// Bytes of one chunk, about.
const CHUNK_BYTES: usize = 256 << 10;
/// The largest chunk that is read back: one row above the usual size.
const CHUNK_BYTES_MAX: usize = 64 << 20;

fn path(folder: &Path, shard: u32, index: u64) -> PathBuf {
    folder.join(format!("shard-{shard}-{index}.snapshot"))
}

/// Removes the snapshots of a shard. Whoever reads one goes on reading it.
pub(crate) fn remove(folder: &Path, shard: u32) -> std::io::Result<()> {
    remove_but(folder, shard, None)
}

fn remove_but(folder: &Path, shard: u32, keep: Option<&Path>) -> std::io::Result<()> {
    let mine = format!("shard-{shard}-");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&mine) && Some(entry.path().as_path()) != keep {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a shard's rows, as the last checkpoint left them. Must be called by the thread that makes the checkpoints.
pub(crate) fn write(store: &dyn StateStore, folder: &Path, shard: u32) -> Result<Meta, StoreError> {
    let failed = |error: std::io::Error| StoreError::Failed(error.to_string());
    let meta = store.get(keys::META)?;
    let meta = meta.ok_or_else(|| StoreError::Failed("the shard has no checkpoint yet".to_owned()))?;
    let meta: Meta = keys::decode(keys::META, &meta)?;
    let target = path(folder, shard, meta.applied.0);
    let next = target.with_extension("next");
    fs::create_dir_all(folder).map_err(failed)?;
    let mut file = BufWriter::new(File::create(&next).map_err(failed)?);
    let mut chunk = pb::SnapshotChunk::default();
    let mut bytes = 0;
    store.scan(&[], &[], &mut |key, value| {
        bytes += key.len() + value.len();
        chunk.pairs.push(pb::SnapshotPair {
            key: bytes::Bytes::copy_from_slice(key),
            value,
        });
        if bytes >= CHUNK_BYTES {
            bytes = 0;
            write_chunk(&mut file, &std::mem::take(&mut chunk)).map_err(failed)?;
        }
        Ok(true)
    })?;
    chunk.last = true;
    write_chunk(&mut file, &chunk).map_err(failed)?;
    file.flush().map_err(failed)?;
    fs::rename(&next, &target).map_err(failed)?;
    remove_but(folder, shard, Some(&target)).map_err(failed)?;
    Ok(meta)
}

fn write_chunk(file: &mut impl Write, chunk: &pb::SnapshotChunk) -> std::io::Result<()> {
    let bytes = chunk.encode_to_vec();
    file.write_all(&(bytes.len() as u32).to_be_bytes())?;
    file.write_all(&crc32fast::hash(&bytes).to_be_bytes())?;
    file.write_all(&bytes)
}

/// Reads a shard's snapshot chunk by chunk.
pub(crate) fn read(
    folder: &Path,
    shard: u32,
    index: u64,
) -> std::io::Result<impl Iterator<Item = std::io::Result<pb::SnapshotChunk>> + use<>> {
    let mut file = BufReader::new(File::open(path(folder, shard, index))?);
    Ok(std::iter::from_fn(move || read_chunk(&mut file).transpose()))
}

fn read_chunk(file: &mut impl Read) -> std::io::Result<Option<pb::SnapshotChunk>> {
    let mut head = [0; 8];
    match file.read_exact(&mut head) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four of eight bytes"));
    let (len, sum) = (number(&head[..4]) as usize, number(&head[4..]));
    if len > CHUNK_BYTES_MAX {
        return Err(std::io::Error::other("a damaged snapshot: its chunk is too large"));
    }
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    if crc32fast::hash(&bytes) != sum {
        return Err(std::io::Error::other("a damaged snapshot: wrong checksum"));
    }
    let chunk = pb::SnapshotChunk::decode(&bytes[..]).map_err(std::io::Error::other)?;
    Ok(Some(chunk))
}

/// Writes a received chunk.
pub(crate) fn store_chunk(store: &dyn StateStore, chunk: pb::SnapshotChunk) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    for pair in chunk.pairs {
        batch.put(pair.key.to_vec(), pair.value.to_vec());
    }
    store.write(batch)
}

/// Whether a completely received snapshot is the one that was announced.
pub(crate) fn is_complete(store: &dyn StateStore, index: u64) -> Result<bool, StoreError> {
    match store.get(keys::META)? {
        Some(bytes) => Ok(keys::decode::<Meta>(keys::META, &bytes)?.applied.0 == index),
        None => Ok(false),
    }
}
