//! What becomes of the references that groups have to entries which are deleted or cut off, as Redis 8.2 lets its
//! clients choose.
//!
//! An entry is referenced by each group that has not read it yet, and by each for which it is pending.

use super::{Stream, StreamId, Trim, TrimTo};

/// The choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refs {
    /// Entries go, references stay: it is pending what is not there.
    #[default]
    Keep,
    /// References go with the entries.
    Drop,
    /// Entries that are referenced stay.
    Respect,
}

/// IDs that were pending for a group, by its name.
pub type Dropped = Vec<(Vec<u8>, Vec<StreamId>)>;

impl Stream {
    /// Some group has yet to read the entry, or to acknowledge it.
    pub fn is_referenced(&self, id: StreamId) -> bool {
        self.groups().any(|(_, group)| id > group.last_id || group.pending(id).is_some())
    }

    /// Forgets that these are pending for anybody; gives what was, by group.
    pub fn drop_refs(&mut self, ids: &[StreamId]) -> Dropped {
        let names: Vec<Vec<u8>> = self.groups().map(|(name, _)| name.to_vec()).collect();
        let mut dropped = Dropped::new();
        for name in names {
            let gone: Option<Vec<StreamId>> = self.change_group(&name, |_, group| {
                ids.iter().copied().filter(|id| group.acknowledge(*id)).collect()
            });
            if let Some(gone) = gone.filter(|gone| !gone.is_empty()) {
                dropped.push((name, gone));
            }
        }
        dropped
    }

    /// Cuts the front off, and what was pending of it; gives how many entries went.
    pub fn trim_with_refs(&mut self, trim: Trim) -> (u64, Dropped) {
        let mut gone = Vec::new();
        let cut = self.log_mut().trim_seen(trim, |id| gone.push(id));
        (cut, self.drop_refs(&gone))
    }

    /// Cuts off what no group refers to, the oldest first; gives which entries went.
    pub fn trim_unreferenced(&mut self, trim: Trim) -> Vec<StreamId> {
        let mut most = match trim.to {
            TrimTo::Len(len) => (self.len() as u64).saturating_sub(len),
            TrimTo::Id(_) => self.len() as u64,
        };
        if trim.limit > 0 {
            most = most.min(trim.limit);
        }
        // What is behind that has not been read by all.
        let read = self.groups().map(|(_, group)| group.last_id).min().unwrap_or(StreamId::MAX);
        let end = match trim.to {
            TrimTo::Len(_) => Some(read),
            TrimTo::Id(id) => id.prev().map(|last| last.min(read)),
        };
        let Some(end) = end else { return Vec::new() };
        let entries = self.log().range(StreamId::MIN, end, false).map(|entry| entry.id);
        let free = entries.filter(|id| !self.is_referenced(*id)).take(most as usize);
        let gone: Vec<StreamId> = free.collect();
        for id in &gone {
            self.log_mut().delete(*id);
        }
        gone
    }
}
