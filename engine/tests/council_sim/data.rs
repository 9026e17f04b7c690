//! A member's data set: a journal of writes, pulled by replicas from the primary.

use engine::quorum::electors::Electors;
use engine::quorum::set::{Acked, Follower, InSync};
use engine::topology::{Change, Epoch, Lineage, MemberId, Report, Role, Shard, ShardId, Topology};

/// One write: the shard epoch it was made under, and its number (0: a primary's first mark).
pub(crate) type Write = (Epoch, u64);

/// What a push came to at the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// It was late, or of a lower lineage.
    Nothing,
    /// It has all of it.
    More,
    /// It has all of it, and nothing else any more.
    Anew,
}

/// A replica that has not pulled for so long has no link any more.
const LINK_MS: u64 = 500;

/// What members say to each other about data.
#[derive(Clone, Debug)]
pub(crate) enum Sync {
    /// A replica of `epoch`, as that process, has a journal of that length, ending in a write of that epoch.
    Pull { epoch: Epoch, boot: String, have: usize, last: Epoch },
    /// What follows `base` writes that both have. `end`: the length of the primary's journal.
    /// `boot`: of the process that pulled; the connection of another one is gone with it.
    Push { boot: String, epoch: Epoch, base: usize, writes: Vec<Write>, end: usize },
}

/// What a replica had when it pulled last.
struct Pulled {
    id: MemberId,
    boot: String,
    have: usize,
    at_ms: u64,
}

/// Replicas that have pulled lately.
fn followers(replicas: &[Pulled], now_ms: u64) -> Vec<Follower<'_>> {
    let lately = replicas.iter().filter(|p| now_ms < p.at_ms + LINK_MS);
    lately
        .map(|p| Follower { id: &p.id, boot: &p.boot, offset: p.have as u64, is_heard: true })
        .collect()
}

/// Those of them that are members of the shard.
fn of_shard<'a>(
    topology: &Topology,
    shard: ShardId,
    followers: Vec<Follower<'a>>,
) -> impl Iterator<Item = Follower<'a>> {
    let is_mate =
        move |f: &Follower<'_>| topology.members.get(f.id).is_some_and(|m| m.shard == Some(shard));
    followers.into_iter().filter(is_mate)
}

#[derive(Default)]
pub(crate) struct Data {
    pub(crate) journal: Vec<Write>,
    /// How much of it is on disk.
    pub(crate) durable: usize,
    /// Shard epoch that this process acts under as primary.
    pub(crate) acting: Option<Epoch>,
    /// Shard epoch under which it executes nothing more, for a handover.
    pub(crate) held: Option<Epoch>,
    /// Shard epoch of the primary that it follows, and who that is.
    following: Option<(Epoch, MemberId)>,
    pub(crate) in_sync_until_ms: u64,
    pub(crate) acked: Vec<u64>,
    dropped: (Epoch, u64),
    /// Lengths that replicas are known to have, under the present epoch.
    replicas: Vec<Pulled>,
    /// When the set was looked after last.
    pub(crate) looked_ms: u64,
    /// Where the shard acknowledges by its in-sync set.
    pub(crate) set: InSync,
    /// Where it acknowledges by majority.
    electors: Electors,
    /// It acknowledges by that set or by majority.
    quorum: bool,
}

impl Data {
    pub(crate) fn new(quorum: bool, min_in_sync: usize) -> Self {
        Self { set: InSync::new(min_in_sync), quorum, ..Self::default() }
    }

    /// The process is gone; `keep` writes of the journal were on disk.
    pub(crate) fn restart(&mut self, keep: usize) {
        let mut journal = std::mem::take(&mut self.journal);
        journal.truncate(keep);
        let (set, quorum) = (InSync::new(self.set.min()), self.quorum);
        *self = Self { durable: journal.len(), journal, set, quorum, ..Self::default() };
    }

    fn last_epoch(&self) -> Epoch {
        self.journal.last().map_or(0, |w| w.0)
    }

    pub(crate) fn follow(&mut self, me: &MemberId, boot: &str, shard: &Shard) {
        let Some(primary) = &shard.primary else { return };
        if primary == me && shard.boot == boot {
            if self.acting != Some(shard.epoch) {
                self.acting = Some(shard.epoch);
                self.held = None;
                self.following = None;
                self.replicas.clear();
                // The mark makes the journal of this epoch the higher one, even before a write.
                self.journal.push((shard.epoch, 0));
            }
        } else if primary != me {
            let target = Some((shard.epoch, primary.clone()));
            if self.following != target {
                self.acting = None;
                self.following = target;
                self.in_sync_until_ms = 0;
            }
        } else {
            self.acting = None;
            self.following = None;
        }
    }

    /// It follows that one as primary of that epoch.
    pub(crate) fn follows(&self, epoch: Epoch, primary: &MemberId) -> bool {
        self.following.as_ref().is_some_and(|(e, p)| (*e, p) == (epoch, primary))
    }

    pub(crate) fn pull(&self, boot: &str) -> Option<(MemberId, Sync)> {
        let (epoch, primary) = self.following.clone()?;
        let (boot, have, last) = (boot.to_owned(), self.journal.len(), self.last_epoch());
        Some((primary, Sync::Pull { epoch, boot, have, last }))
    }

    /// The primary's look at who is awaited.
    pub(crate) fn look(
        &mut self,
        topology: &Topology,
        shard: ShardId,
        me: &MemberId,
        now_ms: u64,
    ) -> Option<Change> {
        let end = self.journal.len() as u64;
        let follows = followers(&self.replicas, now_ms);
        let follows: Vec<_> = of_shard(topology, shard, follows).collect();
        match self.set.min() {
            0 => self.electors.look(topology, shard, me, &follows, end),
            _ => self.set.look(topology, shard, me, &follows, end),
        }
    }

    /// How much of the journal those have who must have it; `u64::MAX` where nobody is waited for.
    pub(crate) fn acked_by(
        &self,
        topology: &Topology,
        shard: ShardId,
        me: &MemberId,
        now_ms: u64,
    ) -> Acked {
        let follows = followers(&self.replicas, now_ms);
        let follows: Vec<_> = of_shard(topology, shard, follows).collect();
        match topology.shards.get(&shard) {
            None => Acked { offset: 0, enough: false },
            Some(state) if self.set.min() > 0 => self.set.state(state, me, &follows),
            Some(_) => self.electors.state(topology, shard, me, &follows),
        }
    }

    /// The primary's answer to a pull. A journal of the same epoch and length is the same journal.
    pub(crate) fn push(
        &mut self,
        (from, now_ms): (&MemberId, u64),
        epoch: Epoch,
        boot: String,
        have: usize,
        last: Epoch,
    ) -> Option<Sync> {
        if self.acting != Some(epoch) {
            return None;
        }
        let is_prefix = have == 0 || self.journal.get(have - 1).is_some_and(|w| w.0 == last);
        let base = if is_prefix { have } else { 0 };
        if is_prefix {
            self.replicas.retain(|p| p.id != *from);
            let boot = boot.clone();
            self.replicas.push(Pulled { id: from.clone(), boot, have, at_ms: now_ms });
        }
        Some(Sync::Push {
            boot,
            epoch,
            base,
            writes: self.journal[base..].to_vec(),
            end: self.journal.len(),
        })
    }

    /// A replica takes over what the primary sent. `Err`: a promise is broken.
    pub(crate) fn apply(
        &mut self,
        from: &MemberId,
        now_ms: u64,
        sync: (Epoch, usize, Vec<Write>, usize),
    ) -> Result<Took, String> {
        let (epoch, base, writes, end) = sync;
        if !self.follows(epoch, from) {
            return Ok(Took::Nothing);
        }
        if base > self.journal.len() {
            return Ok(Took::Nothing);
        }
        let theirs = writes.last().map(|w| (w.0, base + writes.len()));
        if base == 0 && theirs < Some((self.last_epoch(), self.journal.len())) {
            // A full sync from a lower lineage is refused (or this is a late message).
            return Ok(Took::Nothing);
        }
        if base + writes.len() < self.journal.len() && base > 0 {
            return Ok(Took::Nothing);
        }
        if base > 0
            && base < self.journal.len()
            && self.journal[base..] != writes[..self.journal.len() - base]
        {
            return Err("two journals of one epoch and length differ".into());
        }
        let mut journal = self.journal[..base].to_vec();
        journal.extend(writes);
        let lost = self.acked.iter().filter(|id| !journal.iter().any(|w| w.1 == **id)).count();
        if lost > 0 {
            self.dropped = (epoch, lost as u64);
        }
        self.acked.clear();
        self.journal = journal;
        self.durable = self.durable.min(base);
        if self.journal.len() >= end {
            self.in_sync_until_ms = now_ms + 300;
        }
        Ok(if base == 0 { Took::Anew } else { Took::More })
    }

    pub(crate) fn report(
        &self,
        topology: Option<&Topology>,
        shard: Option<ShardId>,
        now_ms: u64,
    ) -> Report {
        let lineage =
            topology.zip(shard).filter(|_| !self.journal.is_empty()).map(|(t, shard)| Lineage {
                cluster: t.cluster.clone(),
                incarnation: t.incarnation,
                shard,
                epoch: self.last_epoch(),
                replid: String::new(),
                offset: self.journal.len() as u64,
            });
        let role = match (&self.acting, &self.following) {
            _ if shard.is_none() => Role::Witness,
            (Some(_), _) => Role::Primary,
            (None, Some(_)) => Role::Replica,
            (None, None) => Role::None,
        };
        Report {
            lineage,
            role,
            in_sync: now_ms < self.in_sync_until_ms,
            held_epoch: self.held.filter(|_| self.acting == self.held).unwrap_or(0),
            dropped_epoch: self.dropped.0,
            dropped_writes: self.dropped.1,
            quorum: self.quorum,
            min_in_sync: self.set.min() as u16,
            ..Report::default()
        }
    }
}
