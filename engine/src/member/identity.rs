//! Who this member is: an ID made once and kept in its directory, which one process may use at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::topology::MemberId;

const ID_NAME: &str = "member-id";
const LOCK_NAME: &str = "member.lock";

/// The ID and the lock on the directory; the lock ends with the process.
pub struct Identity {
    pub id: MemberId,
    /// Random per process.
    pub boot: String,
    _lock: File,
}

/// `digits` random hexadecimal digits.
///
/// # Errors
/// When the system gives no randomness.
pub fn random_hex(digits: usize) -> io::Result<String> {
    let mut bytes = vec![0u8; digits.div_ceil(2)];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    text.truncate(digits);
    Ok(text)
}

impl Identity {
    /// # Errors
    /// `AddrInUse` when another process uses the directory; else what the file system said.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("another process uses {}", dir.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let path = dir.join(ID_NAME);
        let id = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => make(dir)?,
            Err(e) => return Err(e),
        };
        Ok(Self { id, boot: random_hex(16)?, _lock: lock })
    }

    /// Takes a new ID, on disk before this returns.
    ///
    /// # Errors
    /// What the file system said.
    pub fn renew(&mut self, dir: &Path) -> io::Result<()> {
        self.id = make(dir)?;
        Ok(())
    }
}

fn parse(text: &str) -> io::Result<MemberId> {
    let id = text.trim();
    if id.len() == 40 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(id.to_owned())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "member-id holds no ID of 40 digits"))
    }
}

/// Written aside and renamed: a crash leaves no half ID.
fn make(dir: &Path) -> io::Result<MemberId> {
    let id = random_hex(40)?;
    let aside = dir.join("member-id.new");
    let mut file = File::create(&aside)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(&aside, dir.join(ID_NAME))?;
    File::open(dir)?.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once_and_one_process_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path()).unwrap();
        assert_eq!(first.id.len(), 40);
        let error = Identity::open(dir.path()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let (id, boot) = (first.id.clone(), first.boot.clone());
        drop(first);
        let again = Identity::open(dir.path()).unwrap();
        assert_eq!(again.id, id);
        assert_ne!(again.boot, boot);
    }

    #[test]
    fn a_damaged_id_is_an_error_and_not_a_new_member() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(ID_NAME), "abc").unwrap();
        assert!(Identity::open(dir.path()).is_err());
    }
}
