//! How many entries a group has read, and how many it has still to read: counted where that is possible.
//!
//! The stream counts the entries that were ever added, and knows the highest ID that XDEL has deleted. Beyond that ID
//! nothing is missing, so that the entries between two known places can be counted by subtraction; before it, they
//! cannot, and the answer is "unknown".

use super::{Group, Log, StreamId};

impl Log {
    /// An entry from `start` on may have been deleted out of the middle.
    fn has_gaps_from(&self, start: StreamId) -> bool {
        self.len > 0 && self.max_deleted_id != StreamId::MIN && start <= self.max_deleted_id
    }

    /// How many entries were ever added up to an ID, itself included, if that can be told.
    pub fn entries_up_to(&self, id: StreamId) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last_id {
            return Some(self.entries_added);
        }
        if id != StreamId::MIN && id < self.max_deleted_id {
            return None;
        }
        if id >= self.last_id {
            return (id == self.last_id).then_some(self.entries_added);
        }
        let before_first = self.entries_added.saturating_sub(self.len);
        let whole = self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id;
        if whole && id < self.first_id {
            Some(before_first)
        } else if whole && id == self.first_id {
            Some(before_first + 1)
        } else {
            None
        }
    }

    /// How many entries a group has still to read, if that can be told.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        let read = match group.entries_read {
            Some(read) if !self.has_gaps_from(group.last_id) => read,
            _ => self.entries_up_to(group.last_id)?,
        };
        Some((self.entries_added as i64).wrapping_sub(read as i64))
    }
}

impl Group {
    /// The entry of this ID is delivered as the next one: the group has read up to there. `false` when it had before.
    pub fn advance(&mut self, log: &Log, id: StreamId) -> bool {
        if id <= self.last_id {
            return false;
        }
        self.entries_read = match self.entries_read {
            Some(read) if !log.has_gaps_from(id) => Some(read.saturating_add(1)),
            known if log.entries_added == 0 => known,
            _ => log.entries_up_to(id),
        };
        self.last_id = id;
        true
    }
}
