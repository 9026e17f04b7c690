//! What the rules ask of the world: which seats are wanted, who sits there, who is in sync.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crds::RolloutStatus;
use crds::reasons::condition;
use engine::topology::{self, Report, Role, SLOTS, ShardId, Topology};

use super::{Scope, Step, canary, slots};
use crate::desired::{Desired, Seat};
use crate::observed::{Belongs, Body, Member, Observed, Sight};
use crate::when;

/// Desired and observed side by side, with what several rules derive from both.
pub(crate) struct View<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) observed: &'a Observed,
    /// The seats that are to be taken, per shard; see `wanted_seats`. Every shard is in it that is wanted,
    /// or known, or has something in one of its seats.
    wanted: BTreeMap<ShardId, Vec<Seat>>,
    /// Members of the topology by their seat. Two sit in one while a replacement is under way.
    known: BTreeMap<Seat, Vec<&'a topology::Member>>,
    rollout: OnceCell<Option<RolloutStatus>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(desired: &'a Desired, observed: &'a Observed) -> Self {
        let mut known: BTreeMap<Seat, Vec<_>> = BTreeMap::new();
        for member in observed.topology.iter().flat_map(|t| t.members.values()) {
            if let Some(seat) = Seat::parse(&desired.name, &member.name) {
                known.entry(seat).or_default().push(member);
            }
        }
        let mut shards: BTreeSet<ShardId> = (0..desired.shards).collect();
        shards.extend(observed.topology.iter().flat_map(|t| t.shards.keys()));
        let seats = known.keys().chain(observed.members.keys());
        shards.extend(seats.filter_map(|seat| seat.shard()));
        let (wanted, rollout) = (BTreeMap::new(), OnceCell::new());
        let mut view = Self { desired, observed, wanted, known, rollout };
        view.wanted = shards.into_iter().map(|shard| (shard, view.wanted_seats(shard))).collect();
        view
    }

    /// The slots come late: they wait for who comes and goes; and the primaries wait for everything.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> {
        let late = [Scope::Witnesses, Scope::Slots, Scope::Primaries { idle: false }];
        self.shards().map(Scope::Shard).chain(late)
    }

    /// Every shard that is wanted, known, or not cleared away yet.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.wanted.keys().copied()
    }

    /// The manifest has no room for this shard any more.
    pub(crate) fn goes(&self, shard: ShardId) -> bool {
        shard >= self.desired.shards
    }

    pub(crate) fn owns_slots(&self, shard: ShardId) -> bool {
        let shard = self.topology().and_then(|t| t.shards.get(&shard));
        shard.is_some_and(|s| !s.slots.is_empty())
    }

    /// Clients need this shard: it owns slots, or is to own some of those that nobody has yet.
    pub(crate) fn serves(&self, shard: ShardId) -> bool {
        self.owns_slots(shard) || !self.is_dealt() && !self.goes(shard)
    }

    /// Every slot has an owner: the cluster is formed, and from here on slots only move.
    pub(crate) fn is_dealt(&self) -> bool {
        let shards = self.topology().into_iter().flat_map(|t| t.shards.values());
        shards.map(|s| slots::count(&s.slots)).sum::<u16>() == SLOTS
    }

    /// The seat of the shard's primary, when that one was seen and serves.
    pub(crate) fn acting_primary(&self, shard: ShardId) -> Option<Seat> {
        let seats = self.wanted(Scope::Shard(shard));
        seats.into_iter().find(|s| self.is_primary(*s) && self.is_in_sync(*s))
    }

    /// A replica of the shard could take over.
    pub(crate) fn has_replica(&self, shard: ShardId) -> bool {
        let seats = self.wanted(Scope::Shard(shard));
        seats.into_iter().any(|s| !self.is_primary(s) && self.is_in_sync(s))
    }

    pub(crate) fn topology(&self) -> Option<&'a Topology> {
        self.observed.topology.as_ref()
    }

    /// The cluster was formed once: a member says so, or the account of an earlier round does.
    pub(crate) fn was_formed(&self) -> bool {
        let past = self.observed.past.as_ref().is_some_and(|p| p.cluster_id.is_some());
        self.topology().is_some() || past
    }

    pub(crate) fn name(&self, seat: Seat) -> String {
        seat.name(&self.desired.name)
    }

    pub(crate) fn member(&self, seat: Seat) -> Option<&'a Member> {
        self.observed.members.get(&seat)
    }

    pub(crate) fn sight(&self, seat: Seat) -> Sight {
        self.member(seat).map(Member::sight).unwrap_or_default()
    }

    pub(crate) fn body(&self, seat: Seat) -> Option<&'a Body> {
        self.member(seat)?.body.as_ref()
    }

    /// A round before this one has put down that this body is ended, and it still is there: that may happen any time.
    pub(crate) fn is_restarting(&self, seat: Seat) -> bool {
        let past = self.observed.past.iter().flat_map(|p| &p.restarting);
        let Some(body) = self.body(seat) else { return false };
        let name = self.name(seat);
        past.into_iter().any(|r| r.member == name && r.uid == body.uid)
    }

    pub(crate) fn report(&self, seat: Seat) -> Option<&'a Report> {
        self.member(seat)?.report.as_ref()
    }

    /// Members of the topology in this seat.
    pub(crate) fn known(&self, seat: Seat) -> &[&'a topology::Member] {
        self.known.get(&seat).map_or(&[], Vec::as_slice)
    }

    /// The member of the topology that answers from this seat now.
    pub(crate) fn current(&self, seat: Seat) -> Option<&'a topology::Member> {
        let id = &self.report(seat)?.id;
        self.known(seat).iter().find(|m| m.id == *id).copied()
    }

    /// This seat holds the primary of a shard, seen or not.
    pub(crate) fn is_primary(&self, seat: Seat) -> bool {
        self.known(seat).iter().any(|m| self.leads(&m.id))
    }

    /// This member is the primary of a shard.
    pub(crate) fn leads(&self, id: &str) -> bool {
        self.topology().is_some_and(|t| t.shards.values().any(|s| s.primary.as_deref() == Some(id)))
    }

    /// A member of this seat votes, seen or not.
    pub(crate) fn votes(&self, seat: Seat) -> bool {
        let Some(topology) = self.topology() else { return false };
        self.known(seat).iter().any(|m| topology.voters.contains(&m.id))
    }

    /// The council still counts on the vote of somebody who has left.
    pub(crate) fn has_votes_to_give_up(&self) -> bool {
        self.topology().is_some_and(|t| t.voters.iter().any(|v| !t.members.contains_key(v)))
    }

    /// A majority of the voters was seen.
    pub(crate) fn council_can_decide(&self) -> bool {
        let Some(topology) = self.topology() else { return false };
        let seen = topology.voters.iter().filter(|id| self.is_seen(id)).count();
        seen > topology.voters.len() / 2
    }

    /// The member told of itself.
    fn is_seen(&self, id: &str) -> bool {
        let mut reports = self.observed.members.values().filter_map(|m| m.report.as_ref());
        reports.any(|report| report.id == id)
    }

    /// The member was not seen, and what it had is gone for good: another ID answers from its seat, there is nothing
    /// in it, or its disk is out of reach for ever. So it is, too, when another has joined under its name: who votes
    /// leaves the members in no other way before its vote is another's.
    pub(crate) fn is_gone(&self, id: &str) -> bool {
        let Some(topology) = self.topology().filter(|_| !self.is_seen(id)) else { return false };
        let Some(known) = topology.members.get(id) else { return true };
        let Some(seat) = Seat::parse(&self.desired.name, &known.name) else { return false };
        self.member(seat)
            .is_none_or(|m| m.report.is_some() || m.cannot_belong() || m.has_lost_its_disk())
    }

    /// Where somebody who votes lost what it had, in another seat than this one, and a body is there that takes its place.
    pub(crate) fn voter_to_be_replaced(&self, but: Seat) -> Option<Seat> {
        let topology = self.topology()?;
        let gone = topology.voters.iter().filter(|id| self.is_gone(id));
        let name = |id| topology.members.get(id).map(|m: &topology::Member| m.name.as_str());
        let seats = gone.filter_map(name).filter_map(|n| Seat::parse(&self.desired.name, n));
        let has_body = |seat: &Seat| self.body(*seat).is_some_and(|b| b.stuck.is_none());
        seats.filter(|seat| *seat != but).find(has_body)
    }

    /// So many voters lost what they had that those who are left are no majority, and nobody hears a leader: the
    /// processes of pods that were deleted by force live on for a while, on a node that is cut off for long, and as
    /// long as they do, the council decides and its primaries acknowledge.
    pub(crate) fn is_council_lost(&self) -> bool {
        let Some(topology) = self.topology() else { return false };
        let left = topology.voters.iter().filter(|id| !self.is_gone(id)).count();
        let is_lost = !topology.voters.is_empty() && left <= topology.voters.len() / 2;
        is_lost && !self.hears_a_leader(topology)
    }

    /// The council's leader was seen, and this is its topology: who is not in it is no member.
    pub(crate) fn is_told_by_leader(&self) -> bool {
        let Some(topology) = self.topology() else { return false };
        let leads = |m: &Member| {
            let (Some(report), Some(belongs)) = (&m.report, &m.belongs) else { return false };
            belongs.leader.as_ref() == Some(&report.id)
                && is_now(belongs, topology)
                && belongs.epoch == topology.epoch
        };
        self.observed.members.values().any(leads)
    }

    fn hears_a_leader(&self, topology: &Topology) -> bool {
        let mut belong = self.observed.members.values().filter_map(|m| m.belongs.as_ref());
        belong.any(|b| is_now(b, topology) && b.leader.is_some())
    }

    /// The member serves: a primary as primary, with a lease, a replica as one that may be promoted, a witness at all.
    pub(crate) fn is_in_sync(&self, seat: Seat) -> bool {
        let (Some(current), Some(report)) = (self.current(seat), self.report(seat)) else {
            return false;
        };
        let in_role = match report.role {
            // A witness has no role among the data, whatever it calls itself.
            _ if current.shard.is_none() => true,
            Role::Primary => self.leads(&current.id) && !report.lease_is_over,
            // Only the council's own set tells who may be promoted: it hears of a replica a moment later than we may.
            Role::Replica => {
                let shard = current.shard.and_then(|id| self.topology()?.shards.get(&id));
                let is_counted = shard.is_some_and(|s| s.counts_on(&current.id, &report.boot));
                report.in_sync && is_counted && !self.leads(&current.id)
            }
            Role::Witness | Role::None => false,
        };
        in_role && !report.loading && report.disk_error.is_none()
    }

    /// Since when nothing has been missing, by the account of the rounds before; `None`: something is, or was.
    pub(crate) fn whole_since(&self) -> Option<i64> {
        let degraded = self.observed.past.as_ref()?.condition(condition::DEGRADED)?;
        when::seconds(&degraded.last_transition_time).filter(|_| degraded.status == "False")
    }

    /// Somebody who serves stops serving because of this step. The shard of one that is not in sync is among the `disrupted`
    /// already: what was made anew and does not work can be taken back.
    pub(super) fn is_disrupted_by(&self, step: &Step) -> bool {
        matches!(step, Step::RestartMember { seat, .. } if self.is_in_sync(*seat))
    }

    /// How far a change is that takes restarts; `None`: there is none.
    pub(crate) fn rollout(&self) -> Option<&RolloutStatus> {
        self.rollout.get_or_init(|| canary::progress(self)).as_ref()
    }

    /// It serves nobody: not seen, and stuck.
    pub(crate) fn is_down(&self, seat: Seat) -> bool {
        self.report(seat).is_none() && self.body(seat).is_some_and(|b| b.stuck.is_some())
    }

    /// The seats that are to be taken in this scope.
    pub(crate) fn wanted(&self, scope: Scope) -> Vec<Seat> {
        match scope {
            Scope::Shard(shard) => self.wanted.get(&shard).cloned().unwrap_or_default(),
            Scope::Witnesses => {
                (0..self.witnesses()).map(|index| Seat::Witness { index }).collect()
            }
            Scope::Slots | Scope::Primaries { .. } => Vec::new(),
        }
    }

    pub(crate) fn all_wanted(&self) -> impl Iterator<Item = Seat> {
        self.scopes().flat_map(|scope| self.wanted(scope))
    }

    /// Seats with something in them that are in this scope and not wanted, the highest first; but those first whose
    /// members lost what they had: others may have to wait for them (see `members::dismiss`).
    pub(crate) fn surplus(&self, scope: Scope) -> Vec<Seat> {
        let wanted = self.wanted(scope);
        let taken = self.observed.members.keys().chain(self.known.keys()).copied();
        let mut out: Vec<_> =
            taken.filter(|s| scope_of(*s) == scope && !wanted.contains(s)).collect();
        let has_lost = |seat: &Seat| self.known(*seat).iter().any(|m| self.is_gone(&m.id));
        out.sort_unstable_by_key(|seat| Reverse((has_lost(seat), *seat)));
        out.dedup();
        out
    }

    /// Shards that are not whole, those left out whose missing member is stuck: they may be so for
    /// long, and must not hold up the others. see: `a_stuck_pod_does_not_hold_up_other_shards`
    pub(crate) fn disrupted(&self) -> usize {
        let is_well = |s: Seat| self.is_in_sync(s) && !self.is_restarting(s) || self.is_down(s);
        let whole = |seats: &[Seat]| seats.iter().all(|s| is_well(*s));
        self.wanted.values().filter(|seats| !whole(seats)).count()
    }

    /// Those that are needed now, and those that will be when the shards are as many as are wanted: who is
    /// to vote in place of members that go is there before they do.
    fn witnesses(&self) -> u16 {
        let there = self.topology().and_then(|t| u16::try_from(t.shards.len()).ok());
        let there = there.unwrap_or(self.desired.shards);
        self.desired.witnesses().max(self.desired.witnesses_beside(there))
    }

    /// A shard that is to go is kept whole as long as it owns slots or a move has to do with it.
    fn is_needed(&self, shard: ShardId) -> bool {
        let moves = self.topology().into_iter().flat_map(|t| &t.moves);
        let moving = |m: &topology::Move| m.from == shard || m.to == shard;
        !self.goes(shard) || self.owns_slots(shard) || moves.into_iter().any(moving)
    }

    /// As many seats as the shard wants members. Which ones is a matter of who is there: the primary
    /// stays, then those with a body, then those the council knows; free seats fill up from below.
    /// So a shard whose primary sits in seat 1 gives up seat 0 when it is to have no replica.
    ///
    /// Of a shard that is to go and is empty, none is wanted. While nobody tells whether it is empty, its
    /// members are all that can tell, and their votes may be needed for anybody to speak.
    fn wanted_seats(&self, shard: ShardId) -> Vec<Seat> {
        if self.topology().is_some() && !self.is_needed(shard) {
            return Vec::new();
        }
        let size = usize::from(self.desired.members_per_shard());
        // A disk alone holds a seat only while nobody tells who belongs to the cluster.
        let holds = |s: Seat| {
            self.topology().is_none() || self.body(s).is_some() || !self.known(s).is_empty()
        };
        let seats = self.known.keys().chain(self.observed.members.keys()).copied();
        let mut taken: Vec<_> = seats.filter(|s| s.shard() == Some(shard) && holds(*s)).collect();
        taken.sort_unstable_by_key(|s| {
            let (bodiless, unknown) = (self.body(*s).is_none(), self.known(*s).is_empty());
            (!self.is_primary(*s), bodiless, unknown, *s)
        });
        taken.dedup();
        let fills_up = self.topology().is_some() || !self.goes(shard);
        if fills_up {
            taken.truncate(size);
        }
        let mut index = 0;
        while fills_up && taken.len() < size {
            let seat = Seat::Data { shard, index };
            if !taken.contains(&seat) {
                taken.push(seat);
            }
            index += 1;
        }
        taken.sort_unstable();
        taken
    }
}

/// A member that says so belongs to this incarnation of this cluster.
fn is_now(belongs: &Belongs, topology: &Topology) -> bool {
    belongs.cluster == topology.cluster && belongs.incarnation == topology.incarnation
}

fn scope_of(seat: Seat) -> Scope {
    seat.shard().map_or(Scope::Witnesses, Scope::Shard)
}

impl Member {
    /// Nobody can have told this member of a cluster, and none is on its disk.
    pub(crate) fn cannot_belong(&self) -> bool {
        match &self.report {
            Some(_) => self.belongs.is_none(),
            None => {
                let started = self.body.as_ref().is_some_and(|b| b.started);
                !started && self.disk.as_ref().is_none_or(|d| d.fresh)
            }
        }
    }

    /// Its disk is out of reach for good.
    pub(crate) fn has_lost_its_disk(&self) -> bool {
        self.disk.as_ref().is_some_and(|d| d.lost)
    }

    /// As the council is to know it.
    pub(crate) fn entry(&self, id: &str, name: String, seat: Seat) -> topology::Member {
        topology::Member {
            id: id.into(),
            name,
            host: self.address.host.clone(),
            port: self.address.port,
            tls_port: self.address.tls_port,
            bus_port: self.address.bus_port,
            shard: seat.shard(),
            node: self.body.as_ref().and_then(|b| b.node.clone()),
            zone: self.body.as_ref().and_then(|b| b.zone.clone()),
        }
    }
}
