//! Changes that only clusters without an operator know: members that met, slots handed on key by key.
//!
//! `Admit` is how two clusters become one, and only ever one of a single member goes into another: it is recorded
//! here first, with its shard, its boot and its slots, and gives up its own council before it speaks in this one
//! (see `member::meet`). A slot that another shard owns already stays with that one.
//!
//! `migrating` and `importing` are Redis's states of a slot that is moved key by key. They stand in the topology,
//! so that a primary which takes over in the middle goes on where its predecessor was.

use super::apply::{merge, overlap};
use super::moves::without;
use crate::topology::{
    Import, Member, MemberId, OwnChange, SLOTS, Shard, ShardId, SlotRange, Topology,
};

/// Forgotten members that are remembered.
const FORGOTTEN_MAX: usize = 64;

impl Topology {
    pub(super) fn apply_own(&mut self, change: &OwnChange) -> Result<bool, String> {
        match change {
            OwnChange::Admit { member, boot, slots, failure_timeout_ms } => {
                self.admit(member, boot, slots, *failure_timeout_ms)
            }
            OwnChange::Replicate { member, shard } => self.replicate(member, *shard),
            OwnChange::Release { shard, slots } => {
                let owner = self.shards.get_mut(shard).ok_or("no such shard")?;
                let left = without(&owner.slots, slots);
                let altered = left != owner.slots;
                owner.slots = left;
                let released = |m: &SlotRange| slots.iter().any(|r| overlap(m, r));
                self.moves.retain(|m| m.from != *shard || !m.slots.iter().any(released));
                self.forget_stray_slots();
                Ok(altered)
            }
            OwnChange::Migrating { slot, from, to } => self.set_migrating(*slot, *from, *to),
            OwnChange::Importing { slot, into, from } => self.set_importing(*slot, *into, *from),
            OwnChange::Take { slot, shard } => self.take_slot(*slot, *shard),
            OwnChange::Forget { member } => self.forget_own(member),
            OwnChange::Raise { epoch } => {
                let altered = self.epoch < *epoch;
                // One is added for the change itself.
                self.epoch = self.epoch.max(epoch.saturating_sub(1));
                Ok(altered)
            }
        }
    }

    fn new_shard(&self) -> Result<ShardId, String> {
        let after = self.shards.keys().next_back().map_or(0, |last| last.saturating_add(1));
        let id = after.max(self.unmanaged.shards_made);
        // The highest number stands for no shard at all.
        if id >= ShardId::MAX - 1 { Err("too many shards were made".into()) } else { Ok(id) }
    }

    fn admit(
        &mut self,
        member: &Member,
        boot: &str,
        slots: &[SlotRange],
        failure_timeout_ms: u64,
    ) -> Result<bool, String> {
        if let Some(known) = self.members.get(&member.id) {
            // Asked again, because the answer was lost: it may have another address or another boot by now.
            let moved = Member { shard: known.shard, ..member.clone() };
            return self.join(&moved);
        }
        if slots.iter().any(|r| r.first > r.last || r.last >= SLOTS) {
            return Err("not slots".into());
        }
        let shard = self.new_shard()?;
        let is_second = self.members.len() == 1;
        self.join(&Member { shard: Some(shard), ..member.clone() })?;
        if is_second {
            self.unmanaged.failure_timeout_ms = failure_timeout_ms;
        }
        self.unmanaged.shards_made = shard + 1;
        self.unmanaged.forgotten.retain(|id| *id != member.id);
        let owned: Vec<SlotRange> = self.shards.values().flat_map(|s| s.slots.clone()).collect();
        let mut slots = without(slots, &owned);
        merge(&mut slots);
        let (epoch, boot) = (self.epoch + 1, boot.to_owned());
        let in_sync = [(member.id.clone(), boot.clone())].into();
        let primary = Some(member.id.clone());
        self.shards
            .insert(shard, Shard { primary, epoch, slots, boot, in_sync, ..Shard::default() });
        Ok(true)
    }

    fn replicate(&mut self, id: &MemberId, shard: ShardId) -> Result<bool, String> {
        let member = self.members.get(id).ok_or("no such member")?;
        if member.shard == Some(shard) {
            return Ok(false);
        }
        if self.shards.get(&shard).is_none_or(|s| s.primary.is_none()) {
            return Err("the shard has no primary".into());
        }
        let mut moved = member.clone();
        self.leave(id)?;
        moved.shard = Some(shard);
        self.members.insert(id.clone(), moved);
        Ok(true)
    }

    fn check_slot(slot: u16) -> Result<SlotRange, String> {
        let range = SlotRange { first: slot, last: slot };
        if slot < SLOTS { Ok(range) } else { Err(format!("not a slot: {slot}")) }
    }

    fn set_migrating(
        &mut self,
        slot: u16,
        from: ShardId,
        to: Option<ShardId>,
    ) -> Result<bool, String> {
        let range = Self::check_slot(slot)?;
        let open = &mut self.unmanaged.migrating;
        let Some(to) = to else { return Ok(open.remove(&slot).is_some()) };
        if self.shard_of_slot(slot) != Some(from) {
            return Err(format!("shard {from} does not own slot {slot}"));
        }
        if from == to || !self.shards.contains_key(&to) {
            return Err("a slot goes to another shard".into());
        }
        if self.moves.iter().any(|m| m.slots.iter().any(|r| overlap(r, &range))) {
            return Err(format!("a move of slot {slot} is under way"));
        }
        Ok(self.unmanaged.migrating.insert(slot, to) != Some(to))
    }

    fn set_importing(
        &mut self,
        slot: u16,
        into: ShardId,
        from: Option<ShardId>,
    ) -> Result<bool, String> {
        Self::check_slot(slot)?;
        let other = self.unmanaged.importing.get(&slot).filter(|i| i.into != into);
        let Some(from) = from else {
            return Ok(other.is_none() && self.unmanaged.importing.remove(&slot).is_some());
        };
        if let Some(other) = other {
            return Err(format!("shard {} imports slot {slot} already", other.into));
        }
        if self.shard_of_slot(slot) == Some(into) {
            return Err(format!("shard {into} owns slot {slot} already"));
        }
        if from == into || !self.shards.contains_key(&into) || !self.shards.contains_key(&from) {
            return Err("a slot comes from another shard".into());
        }
        let import = Import { into, from };
        Ok(self.unmanaged.importing.insert(slot, import) != Some(import))
    }

    fn take_slot(&mut self, slot: u16, to: ShardId) -> Result<bool, String> {
        let range = Self::check_slot(slot)?;
        if self.shards.get(&to).is_none_or(|s| s.primary.is_none()) {
            return Err(format!("shard {to} has no primary"));
        }
        let owner = self.shard_of_slot(slot);
        if let Some(owner) = owner.filter(|owner| *owner != to) {
            // Without that state its owner still makes keys of it.
            if self.unmanaged.migrating.get(&slot) != Some(&to) {
                return Err(format!("slot {slot} is not migrating to shard {to}"));
            }
            if let Some(source) = self.shards.get_mut(&owner) {
                source.slots = without(&source.slots, &[range]);
            }
        }
        // What a third one has imported stays there until it says so itself: it may be nowhere else.
        let imports = self.unmanaged.importing.get(&slot).is_some_and(|i| i.into == to);
        if imports {
            self.unmanaged.importing.remove(&slot);
        }
        let was_open =
            imports | (owner != Some(to) && self.unmanaged.migrating.remove(&slot).is_some());
        if let Some(target) = self.shards.get_mut(&to).filter(|_| owner != Some(to)) {
            target.slots.push(range);
            merge(&mut target.slots);
        }
        Ok(was_open || owner != Some(to))
    }

    fn forget_own(&mut self, id: &MemberId) -> Result<bool, String> {
        let Some(shard) = self.members.get(id).map(|m| m.shard) else { return Ok(false) };
        let alone = shard.filter(|s| self.members_of(*s).len() == 1);
        let mut after = self.clone();
        if let Some(state) = alone.and_then(|s| after.shards.get_mut(&s)) {
            // What it served is gone with it, and others may take the slots.
            state.slots.clear();
        }
        let gone = after.leave(id)?;
        *self = after;
        self.moves.retain(|m| self.shards.contains_key(&m.from) && self.shards.contains_key(&m.to));
        self.forget_stray_slots();
        self.unmanaged.forgotten.push(id.clone());
        let surplus = self.unmanaged.forgotten.len().saturating_sub(FORGOTTEN_MAX);
        self.unmanaged.forgotten.drain(..surplus);
        Ok(gone)
    }

    /// Slots are on their way only between shards that there are, and from the one that owns them.
    fn forget_stray_slots(&mut self) {
        let owners: Vec<u16> = self.unmanaged.migrating.keys().copied().collect();
        let owned: Vec<u16> =
            owners.into_iter().filter(|s| self.shard_of_slot(*s).is_some()).collect();
        let (shards, open) = (&self.shards, &mut self.unmanaged);
        open.migrating.retain(|slot, to| owned.contains(slot) && shards.contains_key(to));
        let is_known = |i: &Import| shards.contains_key(&i.into) && shards.contains_key(&i.from);
        open.importing.retain(|_, import| is_known(import));
    }
}

#[cfg(test)]
mod tests;
