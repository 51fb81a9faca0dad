//! The files of the log, as the log's library sees them: those of the file system, where the faults of [`crate::faults`] may make writes
//! and syncs fail or last. What follows from that is the library's own way of meeting it.

use std::{
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use crate::faults::Faults;

type Plain = <DefaultFileSystem as FileSystem>::Handle;

/// The file system of the log.
pub(super) struct Device(pub(super) Arc<Faults>);

/// One file.
pub(super) struct DeviceFile {
    plain: Arc<Plain>,
    faults: Arc<Faults>,
}

/// One file that is written.
pub(super) struct DeviceWriter {
    plain: <DefaultFileSystem as FileSystem>::Writer,
    faults: Arc<Faults>,
}

impl Device {
    fn file(&self, plain: Plain) -> DeviceFile {
        DeviceFile {
            plain: Arc::new(plain),
            faults: Arc::clone(&self.0),
        }
    }
}

impl FileSystem for Device {
    type Handle = DeviceFile;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = DeviceWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<DeviceFile> {
        self.0.before_write()?;
        DefaultFileSystem.create(path).map(|plain| self.file(plain))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<DeviceFile> {
        DefaultFileSystem.open(path, permission).map(|plain| self.file(plain))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, file: Arc<DeviceFile>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(Arc::clone(&file.plain))
    }

    fn new_writer(&self, file: Arc<DeviceFile>) -> io::Result<DeviceWriter> {
        Ok(DeviceWriter {
            plain: DefaultFileSystem.new_writer(Arc::clone(&file.plain))?,
            faults: Arc::clone(&self.0),
        })
    }
}

impl Handle for DeviceFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.plain.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.plain.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.before_sync()?;
        self.plain.sync()
    }
}

impl Write for DeviceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.faults.before_write()?;
        self.plain.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.plain.flush()
    }
}

impl Seek for DeviceWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.plain.seek(to)
    }
}

impl WriteExt for DeviceWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.plain.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.faults.before_write()?;
        self.plain.allocate(offset, size)
    }
}
