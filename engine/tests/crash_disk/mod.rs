//! A disk in memory that loses power, or fails once, at a chosen operation.
//!
//! ```text
//! file    durable bytes (of its last sync) | bytes written since
//! folder  durable names (of its last sync) | names set and removed since, each for itself
//! ```
//!
//! What is left after a power cut: the durable bytes and any length of what was appended since; the
//! durable names and any of the later changes, since nothing says in which order they get to the disk.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use engine::council::rng::Rng;
use engine::disk::{Disk, DiskFile};

#[derive(Clone, Copy)]
pub(crate) enum Ends {
    /// From this operation on nothing works any more; it itself may have happened in part.
    PowerCut {
        at: u64,
    },
    /// This operation fails, in part perhaps, and all others work.
    Error {
        at: u64,
    },
    Never,
}

#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    bytes: Vec<u8>,
}

type Names = BTreeMap<PathBuf, usize>;
/// A change of names that is one step on the disk.
type Change = Vec<(PathBuf, Option<usize>)>;

fn apply(change: &Change, names: &mut Names) {
    for (path, file) in change {
        match file {
            Some(file) => names.insert(path.clone(), *file),
            None => names.remove(path),
        };
    }
}

struct State {
    files: Vec<File>,
    names: Names,
    durable_names: Names,
    changes: Vec<Change>,
    operations: u64,
    ends: Ends,
    rng: Rng,
}

/// A handle; its clones are the same disk.
#[derive(Clone)]
pub(crate) struct CrashDisk(Arc<Mutex<State>>);

struct CrashFile {
    disk: Arc<Mutex<State>>,
    file: usize,
}

/// What becomes of one operation.
#[derive(PartialEq)]
enum Fate {
    Done,
    /// It fails although it has happened, or as far as it has.
    FailsAfter,
    Fails,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

fn failed() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl State {
    fn fate(&mut self) -> Fate {
        self.operations += 1;
        let at = match self.ends {
            Ends::PowerCut { at } if self.operations > at => return Fate::Fails,
            Ends::PowerCut { at } | Ends::Error { at } => at,
            Ends::Never => return Fate::Done,
        };
        match (self.operations == at, self.rng.chance(1, 2)) {
            (false, _) => Fate::Done,
            (true, true) => Fate::FailsAfter,
            (true, false) => Fate::Fails,
        }
    }

    /// Carries out a change unless it fails before.
    fn run<T>(&mut self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let fate = self.fate();
        if fate == Fate::Fails {
            return Err(failed());
        }
        let done = change(self)?;
        if fate == Fate::FailsAfter { Err(failed()) } else { Ok(done) }
    }

    fn change_names(&mut self, change: Change) {
        apply(&change, &mut self.names);
        self.changes.push(change);
    }

    fn file_of(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl CrashDisk {
    pub(crate) fn new(seed: u64, ends: Ends) -> CrashDisk {
        CrashDisk(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            operations: 0,
            ends,
            rng: Rng::new(seed ^ 0xd15c),
        })))
    }

    pub(crate) fn operations(&self) -> u64 {
        lock(&self.0).operations
    }

    /// The power is off.
    pub(crate) fn has_ended(&self) -> bool {
        let state = lock(&self.0);
        matches!(state.ends, Ends::PowerCut { at } if state.operations >= at)
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What the next life finds, on a disk that works.
    pub(crate) fn left(&self) -> CrashDisk {
        let mut state = lock(&self.0);
        let mut names = state.durable_names.clone();
        for change in state.changes.clone() {
            if state.rng.chance(1, 2) {
                apply(&change, &mut names);
            }
        }
        let mut files = Vec::new();
        for file in state.files.clone() {
            let bytes = if file.bytes.starts_with(&file.durable) {
                let more = state.rng.below((file.bytes.len() - file.durable.len()) as u64 + 1);
                file.bytes[..file.durable.len() + more as usize].to_vec()
            } else if state.rng.chance(1, 2) {
                file.bytes
            } else {
                file.durable
            };
            files.push(File { durable: bytes.clone(), bytes });
        }
        let seed = state.rng.draw();
        let left = CrashDisk::new(seed, Ends::Never);
        {
            let mut state = lock(&left.0);
            state.files = files;
            state.durable_names = names.clone();
            state.names = names;
        }
        left
    }

    /// Makes it end at an operation counted from now.
    pub(crate) fn end(&self, ends: Ends) {
        let mut state = lock(&self.0);
        state.operations = 0;
        state.ends = ends;
    }
}

impl Write for CrashFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.disk);
        let fate = state.fate();
        let most = match fate {
            Fate::Done => bytes.len(),
            Fate::FailsAfter => state.rng.below(bytes.len() as u64 + 1) as usize,
            Fate::Fails => 0,
        };
        state.files[self.file].bytes.extend_from_slice(&bytes[..most]);
        if fate == Fate::Done { Ok(most) } else { Err(failed()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for CrashFile {
    fn sync(&mut self) -> io::Result<()> {
        let file = self.file;
        lock(&self.disk).run(|state| {
            let file = &mut state.files[file];
            file.durable = file.bytes.clone();
            Ok(())
        })
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        let file = self.file;
        lock(&self.disk).run(|state| {
            state.files[file].bytes.truncate(len as usize);
            Ok(())
        })
    }

    fn twin(&self) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(CrashFile { disk: self.disk.clone(), file: self.file }))
    }
}

impl Disk for CrashDisk {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = lock(&self.0).run(|state| {
            let file = state.files.len();
            state.files.push(File::default());
            state.change_names(vec![(path.to_path_buf(), Some(file))]);
            Ok(file)
        })?;
        Ok(Box::new(CrashFile { disk: self.0.clone(), file }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = lock(&self.0).run(|state| state.file_of(path))?;
        Ok(Box::new(CrashFile { disk: self.0.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let bytes = lock(&self.0).run(|state| {
            let file = state.file_of(path)?;
            Ok(state.files[file].bytes.clone())
        })?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let state = lock(&self.0);
        Ok(state.files[state.file_of(path)?].bytes.len() as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        lock(&self.0).run(|state| {
            let file = state.file_of(from)?;
            state.change_names(vec![(from.to_path_buf(), None), (to.to_path_buf(), Some(file))]);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.0).run(|state| {
            state.file_of(path)?;
            state.change_names(vec![(path.to_path_buf(), None)]);
            Ok(())
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = lock(&self.0);
        let inside = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|p| Some(p.file_name()?.to_str()?.to_string())).collect())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        lock(&self.0).run(|state| {
            state.durable_names = state.names.clone();
            state.changes.clear();
            Ok(())
        })
    }
}
