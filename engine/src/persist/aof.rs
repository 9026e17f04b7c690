//! The log on disk: a base file, the files of what came after it, and the manifest that names them.
//!
//! Everything here is one thread's work, step by step, so that a crash between any two steps can be tried.
//! Order of a rewrite: the old file is synced, the new one made and listed; only when the new base is whole
//! and synced does the manifest name it, and only then do the old files go.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::manifest::{BYTES_MAX, Manifest, Part};
use crate::disk::{self, Disk, DiskFile};

pub struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    name: String,
    manifest: Manifest,
    /// The file that is written now, and how much of it is whole.
    file: Option<Box<dyn DiskFile>>,
    part: Option<Part>,
    len: u64,
    /// The file is named by the manifest: what is in it counts.
    listed: bool,
    unsynced: bool,
    next_seq: u64,
}

/// How far a log is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    seq: u64,
    len: u64,
}

impl Log {
    /// The log of a folder, with what its manifest says; nothing is opened for writing yet.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, name: &str) -> io::Result<Log> {
        let path = folder.join(format!("{name}.manifest"));
        let manifest = match disk::read(&*disk, &path, BYTES_MAX)? {
            None => Manifest::default(),
            Some(bytes) => {
                Manifest::parse(&String::from_utf8_lossy(&bytes)).map_err(io::Error::other)?
            }
        };
        Ok(Log {
            disk,
            folder: folder.to_path_buf(),
            name: name.to_string(),
            next_seq: manifest.last_seq() + 1,
            manifest,
            file: None,
            part: None,
            len: 0,
            listed: false,
            unsynced: false,
        })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn path(&self, part: &Part) -> PathBuf {
        self.folder.join(&part.name)
    }

    /// Bytes of the base and of all that came after it, as far as the manifest counts them.
    pub fn sizes(&self) -> (u64, u64) {
        let len = |p: &Part| self.disk.len(&self.path(p)).unwrap_or(0);
        (self.manifest.base.as_ref().map_or(0, len), self.manifest.incr.iter().map(len).sum())
    }

    /// Goes on writing the last file that the manifest names, behind `len` good bytes.
    /// `false` when there is none.
    pub fn go_on(&mut self, len: u64) -> io::Result<bool> {
        let Some(part) = self.manifest.incr.last().cloned() else { return Ok(false) };
        let path = self.path(&part);
        let mut file = self.disk.append(&path)?;
        if self.disk.len(&path)? != len {
            file.cut(len)?;
            file.sync()?;
        }
        (self.file, self.part, self.len, self.listed) = (Some(file), Some(part), len, true);
        Ok(true)
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the log has no file to write"));
        };
        self.unsynced = true;
        file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Cuts off what a failed write left behind.
    pub fn mend(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.cut(self.len))
    }

    /// What is written now is loaded at the next start.
    pub fn counts(&self) -> bool {
        self.listed
    }

    pub fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// The file by another handle, to be synced while it is written, and how far it is; `None`: it is synced.
    pub fn to_sync(&self) -> io::Result<Option<(Box<dyn DiskFile>, Mark)>> {
        let file = self.file.as_ref().filter(|_| self.unsynced);
        let mark = Mark { seq: self.next_seq, len: self.len };
        Ok(file.map(|file| file.twin()).transpose()?.map(|twin| (twin, mark)))
    }

    /// What was written up to the mark is synced.
    pub fn synced(&mut self, mark: Mark) {
        if mark == (Mark { seq: self.next_seq, len: self.len }) {
            self.unsynced = false;
        }
    }

    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file
            && self.unsynced
        {
            file.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Begins the next file, with `head` in it. `listed`: it continues the files before it. Otherwise it
    /// begins anew, and counts only from when its base is adopted. Gives its number.
    pub fn switch(&mut self, head: &[u8], listed: bool) -> io::Result<u64> {
        if listed {
            self.sync()?;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let part = Part { name: format!("{}.{seq}.incr.aof", self.name), seq, more: Vec::new() };
        let mut file = self.disk.create(&self.path(&part))?;
        file.write_all(head)?;
        file.sync()?;
        if listed {
            let mut manifest = self.manifest.clone();
            manifest.incr.push(part.clone());
            self.store(manifest)?;
        }
        self.file = Some(file);
        self.part = Some(part);
        self.len = head.len() as u64;
        self.listed = listed;
        self.unsynced = false;
        Ok(seq)
    }

    /// Where a new base is to be written before it is adopted.
    pub fn base_path(&self) -> PathBuf {
        self.folder.join(format!("temp-rewrite-{}.rdb", self.name))
    }

    /// Makes a whole, synced file the base of the log; `from` is the number of the first file behind it.
    pub fn adopt(&mut self, temporary: &Path, from: u64) -> io::Result<()> {
        let seq = self.next_seq;
        self.next_seq += 1;
        let base = Part { name: format!("{}.{seq}.base.rdb", self.name), seq, more: Vec::new() };
        self.disk.rename(temporary, &self.path(&base))?;
        // What was written behind the new base counts from now on, so it must be there.
        self.sync()?;
        let mut manifest = self.manifest.clone();
        if !self.listed {
            manifest.incr.extend(self.part.clone());
        }
        let (incr, old) =
            std::mem::take(&mut manifest.incr).into_iter().partition(|p| p.seq >= from);
        manifest.incr = incr;
        manifest.history.extend::<Vec<Part>>(old);
        manifest.history.extend(manifest.base.replace(base));
        self.store(manifest)?;
        self.listed = true;
        self.forget_history();
        Ok(())
    }

    /// Removes the superseded files. What cannot be removed stays listed and is tried at the next rewrite.
    fn forget_history(&mut self) {
        let mut manifest = self.manifest.clone();
        manifest.history.retain(|part| match self.disk.remove(&self.path(part)) {
            Ok(()) => false,
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        });
        if let Err(e) = self.store(manifest) {
            tracing::warn!(error = %e, "superseded files of the log stay in the manifest");
        }
    }

    fn store(&mut self, manifest: Manifest) -> io::Result<()> {
        // The names of the files are there before the manifest names them: a disk keeps no order among names.
        self.disk.sync_folder(&self.folder)?;
        let name = format!("{}.manifest", self.name);
        disk::replace(&*self.disk, &self.folder, &name, manifest.text().as_bytes())?;
        self.manifest = manifest;
        Ok(())
    }
}
