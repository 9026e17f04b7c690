//! What the council keeps on disk: records, and what a member knows after reading them again.
//!
//! The log is a list of records; the last word on each matter counts. A batch either extends the log
//! or, when the log has grown long, replaces it by a full account of the present.

use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, EntryType, HardState};
use serde::{Deserialize, Serialize};

use super::hex;
use crate::topology::Topology;

/// One fact, durable once its batch is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The newest topology that this member has been told of: its cluster, too.
    Known(Arc<Topology>),
    /// Raft's term, vote and commit index.
    Hard { term: u64, vote: u64, commit: u64 },
    /// Raft's state machine up to `index`, which all entries up to there went into.
    Snapshot {
        index: u64,
        term: u64,
        voters: Vec<u64>,
        learners: Vec<u64>,
        topology: Arc<Topology>,
    },
    /// Entries of Raft's log; they replace those from the first one's index on.
    Append(Vec<LogEntry>),
}

/// One entry of Raft's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    pub index: u64,
    pub term: u64,
    /// It changes the voters.
    pub conf: bool,
    #[serde(with = "hex")]
    pub data: Vec<u8>,
    #[serde(with = "hex")]
    pub context: Vec<u8>,
}

/// Records to be made durable together, in the order of `number`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub number: u64,
    /// The records take the place of everything before.
    pub rewrite: bool,
    /// `false`: losing the batch would only cost time, so that no sync need be waited for.
    pub sync: bool,
    pub records: Vec<Record>,
}

/// What a member had on disk when it started.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    pub known: Option<Arc<Topology>>,
    pub(super) hard: HardState,
    pub(super) snapshot: Option<SavedSnapshot>,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct SavedSnapshot {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) conf: ConfState,
    pub(super) topology: Arc<Topology>,
}

impl Saved {
    /// Takes in the next record in the order of writing.
    pub fn replay(&mut self, record: Record) {
        match record {
            Record::Known(topology) => self.known = Some(topology),
            Record::Hard { term, vote, commit } => {
                self.hard.term = term;
                self.hard.vote = vote;
                self.hard.commit = commit;
            }
            Record::Snapshot { index, term, voters, learners, topology } => {
                let mut conf = ConfState::default();
                conf.set_voters(voters);
                conf.set_learners(learners);
                self.entries.retain(|e| e.index > index);
                self.snapshot = Some(SavedSnapshot { index, term, conf, topology });
            }
            Record::Append(entries) => {
                if let Some(first) = entries.first() {
                    self.entries.retain(|e| e.index < first.index);
                }
                self.entries.extend(entries.into_iter().map(Entry::from));
            }
        }
    }

    /// Everything in `records`, in the order of writing.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Self {
        let mut saved = Self::default();
        records.into_iter().for_each(|r| saved.replay(r));
        saved
    }

    pub(super) fn has_log(&self) -> bool {
        self.snapshot.is_some() || self.hard.term > 0
    }
}

impl From<&Entry> for LogEntry {
    fn from(e: &Entry) -> Self {
        Self {
            index: e.index,
            term: e.term,
            conf: e.get_entry_type() == EntryType::EntryConfChange,
            data: e.data.to_vec(),
            context: e.context.to_vec(),
        }
    }
}

impl From<LogEntry> for Entry {
    fn from(e: LogEntry) -> Self {
        let entry_type = if e.conf { EntryType::EntryConfChange } else { EntryType::EntryNormal };
        Self {
            entry_type,
            index: e.index,
            term: e.term,
            data: e.data.into(),
            context: e.context.into(),
            ..Self::default()
        }
    }
}
