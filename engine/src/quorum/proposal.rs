//! The steps from being awaited to being proposed, which are the same for who joins an in-sync set and for the next electors: see
//! `super::set` for what they are and why.

use crate::topology::Epoch;

/// So many looks are awaited for, at most, that those get to the mark; then they are left alone until they have caught up.
pub(super) const LOOKS_MAX: u32 = 10;

/// Those whom it is about are awaited from its making on.
#[derive(Clone, Debug, Default)]
pub(super) struct Proposal {
    /// End of the journal at the look after the one in which they began to be awaited.
    mark: Option<u64>,
    /// Epoch of the topology that the proposal was made for.
    as_of: Option<Epoch>,
    looks: u32,
}

impl Proposal {
    /// It can come to nothing any more: the topology has moved on, or, before anything was proposed, they do not fit or do not
    /// get to the mark.
    pub(super) fn is_over(&self, epoch: Epoch, fits: bool) -> bool {
        match self.as_of {
            Some(as_of) => epoch > as_of,
            None => !fits || self.looks >= LOOKS_MAX,
        }
    }

    /// A look at what they have of the journal, which ends at `end`.
    pub(super) fn look(&mut self, has: Option<u64>, end: u64, epoch: Epoch) {
        self.looks += 1;
        let mark = *self.mark.get_or_insert(end);
        if self.as_of.is_none() && has.is_some_and(|has| has >= mark) {
            self.as_of = Some(epoch);
        }
    }

    /// It is to be put to the council, on condition that its topology has this epoch.
    pub(super) fn is_for(&self, epoch: Epoch) -> bool {
        self.as_of == Some(epoch)
    }
}
