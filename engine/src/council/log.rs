//! Raft's log in memory, as the library wants to read it.

use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::record::{LogEntry, Record, Saved, SavedSnapshot};
use crate::topology::Topology;

/// Hard state, a snapshot and the entries after it.
pub(super) struct Log {
    pub(super) hard: HardState,
    base: Base,
    entries: Vec<Entry>,
    /// What a member that lacks the log is sent: newer than `base` after a change of voters.
    fresh: Snapshot,
}

/// The state that the first entry follows.
#[derive(Default)]
struct Base {
    index: u64,
    term: u64,
    conf: ConfState,
    topology: Arc<Topology>,
}

fn snapshot(index: u64, term: u64, conf: &ConfState, topology: &Topology) -> Snapshot {
    let data = serde_json::to_vec(topology).unwrap_or_default().into();
    let mut made = Snapshot { data, ..Snapshot::default() };
    let meta = made.mut_metadata();
    meta.index = index;
    meta.term = term;
    meta.set_conf_state(conf.clone());
    made
}

impl Log {
    pub(super) fn new(saved: Saved) -> Self {
        let base = saved.snapshot.map_or_else(Base::default, |s| {
            let SavedSnapshot { index, term, conf, topology } = s;
            Base { index, term, conf, topology }
        });
        let fresh = snapshot(base.index, base.term, &base.conf, &base.topology);
        let mut hard = saved.hard;
        hard.commit = hard.commit.max(base.index);
        hard.term = hard.term.max(base.term);
        // A commit index may have been written without the entries only if the disk lied.
        let entries: Vec<_> = saved.entries.into_iter().filter(|e| e.index > base.index).collect();
        let last = entries.last().map_or(base.index, |e| e.index);
        hard.commit = hard.commit.min(last);
        Self { hard, base, entries, fresh }
    }

    pub(super) fn base_index(&self) -> u64 {
        self.base.index
    }

    pub(super) fn base_topology(&self) -> &Topology {
        &self.base.topology
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn last(&self) -> u64 {
        self.entries.last().map_or(self.base.index, |e| e.index)
    }

    fn position(&self, index: u64) -> usize {
        usize::try_from(index - self.base.index - 1).unwrap_or(usize::MAX)
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.base.index < first.index && first.index <= self.last() + 1,
            "a gap in Raft's log"
        );
        self.entries.truncate(self.position(first.index));
        self.entries.extend_from_slice(entries);
    }

    /// A leader's snapshot takes the place of everything here.
    pub(super) fn install(&mut self, from: &Snapshot, topology: Topology) {
        let meta = from.get_metadata();
        self.base = Base {
            index: meta.index,
            term: meta.term,
            conf: meta.get_conf_state().clone(),
            topology: Arc::new(topology),
        };
        self.entries.clear();
        self.hard.commit = self.hard.commit.max(meta.index);
        self.fresh = from.clone();
    }

    /// Forgets the entries up to `index`, whose effect `topology` and `conf` hold.
    pub(super) fn compact(&mut self, index: u64, conf: ConfState, topology: &Topology) {
        let Ok(term) = self.term(index) else { return };
        self.entries.drain(..=self.position(index));
        self.fresh = snapshot(index, term, &conf, topology);
        self.base = Base { index, term, conf, topology: Arc::new(topology.clone()) };
    }

    /// Takes a snapshot to send, without forgetting anything.
    pub(super) fn refresh(&mut self, index: u64, conf: &ConfState, topology: &Topology) {
        if let Ok(term) = self.term(index) {
            self.fresh = snapshot(index, term, conf, topology);
        }
    }

    /// A full account, for a batch that replaces the file.
    pub(super) fn records(&self) -> Vec<Record> {
        let HardState { term, vote, commit, .. } = self.hard;
        let mut records = vec![];
        if self.base.index > 0 {
            records.push(Record::Snapshot {
                index: self.base.index,
                term: self.base.term,
                voters: self.base.conf.get_voters().to_vec(),
                learners: self.base.conf.get_learners().to_vec(),
                topology: self.base.topology.clone(),
            });
        }
        if !self.entries.is_empty() {
            records.push(Record::Append(self.entries.iter().map(LogEntry::from).collect()));
        }
        records.push(Record::Hard { term, vote, commit });
        records
    }
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.base.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.base.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let mut found = self.entries[self.position(low)..self.position(high)].to_vec();
        raft::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.index {
            return Ok(self.base.term);
        }
        if index < self.base.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let entry = self.entries.get(self.position(index));
        entry.map(|e| e.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        if self.fresh.get_metadata().index < request_index.max(1) {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.fresh.clone())
    }
}
