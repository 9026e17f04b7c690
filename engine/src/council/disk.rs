//! The council's file: batches of records, each with a checksum, appended and synced.
//!
//! ```text
//! council.log:  batch batch batch ... zeros
//! batch:        | length u32 LE | CRC-32 of the payload u32 LE | payload: records as JSON |
//! ```
//!
//! A batch is one write, so that a crash can only spoil batches that were not synced: reading stops
//! at the first one that is torn or fails its checksum, and the file is cut there. Zeros are no batch: they are written
//! ahead, so that a batch lands where the file already has blocks. A sync of it is then a write of data alone, without
//! the file system's journal, which is what whoever waits for the council waits for. When the log has
//! grown long it is replaced: written aside, synced, renamed, and the directory synced.
//! A failed sync leaves unknown what is on disk: the file takes nothing more until the process has
//! started anew and read it. A write that failed, as on a full disk, has spoilt nothing that counts: the same batches are
//! written to the same place again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::record::{Batch, Record};

const NAME: &str = "council.log";
const ASIDE: &str = "council.log.new";
const HEAD_BYTES: usize = 8;
/// Zeros that are written at a time.
const AHEAD_BYTES: usize = 256 * 1024;

/// The bytes of one batch.
///
/// # Errors
/// When the batch is too long for its length field.
pub fn encode(records: &[Record]) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(records).map_err(io::Error::other)?;
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&crc(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// All records up to the first batch that is torn or damaged, and the length of what was read.
pub fn decode(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = vec![];
    let mut rest = bytes;
    while let Some((batch, after)) = decode_one(rest) {
        records.extend(batch);
        rest = after;
    }
    (records, bytes.len() - rest.len())
}

fn decode_one(bytes: &[u8]) -> Option<(Vec<Record>, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let (payload, after) = rest.split_at_checked(len)?;
    if crc(payload) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((serde_json::from_slice(payload).ok()?, after))
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes) as u32
}

/// The file, open for the next batch.
pub struct FileDisk {
    dir: PathBuf,
    file: Room,
    is_poisoned: bool,
}

/// A file whose end is written ahead.
struct Room {
    file: File,
    /// Bytes of batches; behind them there are zeros.
    used: u64,
    /// Bytes of the file.
    whole: u64,
}

impl Room {
    /// Of a file that has `used` bytes.
    fn of(file: File, used: u64) -> Self {
        let mut room = Self { file, used, whole: used };
        room.make(0);
        room
    }

    /// Writes zeros when there is no place for so many bytes, or none at all. A disk that is too full for them may have room for
    /// a batch.
    fn make(&mut self, bytes: usize) {
        let wanted = self.used + bytes as u64;
        if wanted < self.whole {
            return;
        }
        let zeros = vec![0; bytes + AHEAD_BYTES];
        if self.file.write_all_at(&zeros, self.used).is_ok() {
            self.whole = wanted + AHEAD_BYTES as u64;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.make(bytes.len());
        self.file.write_all_at(bytes, self.used)?;
        self.used += bytes.len() as u64;
        Ok(())
    }
}

impl FileDisk {
    /// Opens or makes the file in `dir`, cuts a torn tail, and gives back what is in it.
    ///
    /// # Errors
    /// What the file system said.
    pub fn open(dir: &Path) -> io::Result<(Self, Vec<Record>)> {
        let path = dir.join(NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => vec![],
            Err(e) => return Err(e),
        };
        let (records, valid) = decode(&bytes);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        let torn = &bytes[valid..];
        if let Some(last) = torn.iter().rposition(|byte| *byte != 0) {
            tracing::warn!(cut = last + 1, "the council's log had a torn tail");
        }
        // Nothing of what was torn may come to stand behind a later batch.
        file.set_len(valid as u64)?;
        let file = Room::of(file, valid as u64);
        file.file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok((Self { dir: dir.to_owned(), file, is_poisoned: false }, records))
    }

    /// Writes batches in their order, with one sync for all; on return they are durable if one asks for that.
    ///
    /// # Errors
    /// What the file system said. The same batches are to come again, and others behind them, if `may_try_again`.
    pub fn write(&mut self, batches: &[Batch]) -> io::Result<()> {
        if self.is_poisoned {
            return Err(io::Error::other("an earlier sync failed; the file must be read anew"));
        }
        let used = self.file.used;
        let from = superseded(batches);
        let done = self.write_all(&batches[from..]);
        if done.is_err() && !batches[from].rewrite {
            self.file.used = used;
        }
        done
    }

    /// What could not be written can be written again: none of it counts, and all that did before does.
    pub fn may_try_again(&self) -> bool {
        !self.is_poisoned
    }

    fn write_all(&mut self, batches: &[Batch]) -> io::Result<()> {
        let mut sync = false;
        for batch in batches {
            if batch.rewrite {
                self.replace(batch)?;
            } else {
                self.file.write(&encode(&batch.records)?)?;
                sync |= batch.sync;
            }
        }
        let done = if sync { self.file.file.sync_data() } else { Ok(()) };
        self.synced(done)
    }

    /// What a sync came to: when it failed, nobody knows what is on disk.
    fn synced(&mut self, done: io::Result<()>) -> io::Result<()> {
        self.is_poisoned = done.is_err();
        done
    }

    fn replace(&mut self, batch: &Batch) -> io::Result<()> {
        let aside = self.dir.join(ASIDE);
        let mut file = Room::of(File::create(&aside)?, 0);
        file.write(&encode(&batch.records)?)?;
        file.file.sync_all()?;
        std::fs::rename(&aside, self.dir.join(NAME))?;
        let done = File::open(&self.dir).and_then(|dir| dir.sync_all());
        self.file = file;
        self.synced(done)
    }
}

/// How many of these batches need not be written: a rewrite takes the place of what came before it.
pub fn superseded(batches: &[Batch]) -> usize {
    batches.iter().rposition(|b| b.rewrite).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn hard(term: u64) -> Record {
        Record::Hard { term, vote: 1, commit: 0 }
    }

    fn batch(number: u64, rewrite: bool, records: Vec<Record>) -> Batch {
        Batch { number, rewrite, sync: true, records }
    }

    #[test]
    fn torn_tail_is_cut_at_every_byte() {
        let (first, second) = (encode(&[hard(1)]).unwrap(), encode(&[hard(2), hard(3)]).unwrap());
        let whole = [first.clone(), second].concat();
        for cut in 0..whole.len() {
            let (records, valid) = decode(&whole[..cut]);
            let complete = cut >= first.len();
            assert_eq!(records.len(), usize::from(complete), "cut at {cut}");
            assert_eq!(valid, if complete { first.len() } else { 0 });
        }
        assert_eq!(decode(&whole).0.len(), 3);
    }

    #[test]
    fn a_flipped_bit_ends_the_log() {
        let whole = [encode(&[hard(1)]).unwrap(), encode(&[hard(2)]).unwrap()].concat();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(decode(&bytes).0.len() < 2, "bit flipped in byte {at}");
        }
    }

    #[test]
    fn zeros_ahead_are_no_batch_and_are_written_again_when_they_are_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = FileDisk::open(dir.path()).unwrap();
        let records: Vec<Record> = (0..AHEAD_BYTES as u64 / 100).map(hard).collect();
        for number in 1..=5 {
            disk.write(&[batch(number, false, records.clone())]).unwrap();
        }
        let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
        let (read, valid) = decode(&bytes);
        let whole = (0..5).flat_map(|_| records.clone());
        assert!(read.into_iter().eq(whole));
        assert!(valid > 2 * AHEAD_BYTES, "{valid} bytes are too few to try it");
        assert!(bytes.len() > valid && bytes[valid..].iter().all(|byte| *byte == 0));
    }

    /// A batch that was torn, longer than the next one: its rest would stand behind that.
    #[test]
    fn nothing_of_a_torn_batch_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = FileDisk::open(dir.path()).unwrap();
        disk.write(&[batch(1, false, vec![hard(1)])]).unwrap();
        let begin = disk.file.used as usize;
        // Within the torn batch's bytes a whole one, exactly where the next one will end.
        let next = encode(&[hard(2)]).unwrap();
        let torn = [vec![7; next.len()], encode(&[hard(9)]).unwrap()].concat();
        let mut bytes = std::fs::read(dir.path().join(NAME)).unwrap();
        bytes[begin..begin + torn.len()].copy_from_slice(&torn);
        std::fs::write(dir.path().join(NAME), bytes).unwrap();
        let (mut disk, records) = FileDisk::open(dir.path()).unwrap();
        assert_eq!(records, vec![hard(1)]);
        disk.write(&[batch(2, false, vec![hard(2)])]).unwrap();
        let (_, records) = FileDisk::open(dir.path()).unwrap();
        assert_eq!(records, vec![hard(1), hard(2)]);
    }

    #[test]
    fn what_was_written_is_read_again_and_a_rewrite_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, empty) = FileDisk::open(dir.path()).unwrap();
        assert!(empty.is_empty());
        disk.write(&[batch(1, false, vec![hard(1)])]).unwrap();
        disk.write(&[batch(2, false, vec![Record::Known(Arc::default())])]).unwrap();
        let (mut disk, records) = FileDisk::open(dir.path()).unwrap();
        assert_eq!(records, vec![hard(1), Record::Known(Arc::default())]);
        disk.write(&[batch(3, true, vec![hard(7)])]).unwrap();
        disk.write(&[batch(4, false, vec![hard(8)])]).unwrap();
        let (_, records) = FileDisk::open(dir.path()).unwrap();
        assert_eq!(records, vec![hard(7), hard(8)]);
        let (mut disk, _) = FileDisk::open(dir.path()).unwrap();
        let together = [
            batch(5, false, vec![hard(9)]),
            batch(6, true, vec![hard(10)]),
            batch(7, false, vec![hard(11)]),
        ];
        disk.write(&together).unwrap();
        let (_, records) = FileDisk::open(dir.path()).unwrap();
        assert_eq!(records, vec![hard(10), hard(11)], "what came before the rewrite is gone");
    }

    #[test]
    fn what_did_not_fit_is_written_again_to_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = FileDisk::open(dir.path()).unwrap();
        disk.write(&[batch(1, false, vec![hard(1)])]).unwrap();
        let batches = [batch(2, false, vec![hard(2)]), batch(3, false, vec![hard(3)])];
        // Nothing can be written by a descriptor that is only for reading.
        let path = dir.path().join(NAME);
        let full = std::mem::replace(&mut disk.file.file, File::open(&path).unwrap());
        disk.write(&batches).unwrap_err();
        assert!(disk.may_try_again());
        disk.file.file = full;
        let more = [batches.as_slice(), &[batch(4, false, vec![hard(4)])]].concat();
        disk.write(&more).unwrap();
        let (_, records) = FileDisk::open(dir.path()).unwrap();
        assert_eq!(records, (1..=4).map(hard).collect::<Vec<_>>());
    }

    #[test]
    fn rewrite_that_did_not_fit_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = FileDisk::open(dir.path()).unwrap();
        disk.write(&[batch(1, false, vec![hard(1)])]).unwrap();
        // A folder is in the way of what is written aside.
        std::fs::create_dir(dir.path().join(ASIDE)).unwrap();
        let batches = [batch(2, true, vec![hard(2)]), batch(3, false, vec![hard(3)])];
        disk.write(&batches).unwrap_err();
        assert!(disk.may_try_again());
        let (_, records) = FileDisk::open(dir.path()).unwrap();
        assert_eq!(records, vec![hard(1)]);
        std::fs::remove_dir(dir.path().join(ASIDE)).unwrap();
        disk.write(&batches).unwrap();
        let (_, records) = FileDisk::open(dir.path()).unwrap();
        assert_eq!(records, vec![hard(2), hard(3)]);
    }
}
