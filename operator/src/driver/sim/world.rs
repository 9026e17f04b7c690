//! The simulated world itself: what there is, what time does to it, what faults do.

use std::collections::BTreeMap;

use engine::topology::{Change, MemberId, Report, Role, Shard, ShardId, Topology};

use super::Rng;
use super::moves::Copying;
use crate::desired::{Desired, Seat};
use crate::observed::{Address, Body, Disk, Member, Observed, Phase, Told};
use crate::plan::Step;
use crate::status::Status;
use crate::when;

/// Ticks from a body to a process that answers.
const START_TICKS: u64 = 2;
/// Ticks from joining to being in sync.
const SYNC_TICKS: u64 = 2;
/// Ticks after which a silent primary is replaced.
const FAILOVER_TICKS: u64 = 2;

/// The moment of the first tick; each is a second.
const BEGIN: i64 = 1_767_225_600;

/// How often what goes wrong, of a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A member does not answer the operator in a round.
    pub unseen_percent: u8,
    /// A step, or its answer, is lost.
    pub lost_percent: u8,
    /// The operator crashes at a step.
    pub crash_percent: u8,
    /// A process is killed and comes back in the same body, in a tick.
    pub kill_percent: u8,
    /// A body is deleted, in a tick.
    pub delete_percent: u8,
    /// A disk is lost with its body, in a tick.
    pub wipe_percent: u8,
    /// Everything is deleted at once, in a tick; the disks too where there are no volumes.
    pub all_percent: u8,
}

/// What a member keeps: in its body, or on its disk where there are volumes.
#[derive(Clone, Debug, Default)]
struct Memory {
    id: MemberId,
    /// The cluster that it belongs to.
    cluster: Option<String>,
    /// Wrote or synced data: it must not lose to an empty one.
    has_data: bool,
    config: String,
}

#[derive(Clone, Debug)]
struct Pod {
    uid: String,
    template: String,
    /// Tick at which its process answers.
    up_at: u64,
    in_sync_at: u64,
    node: Option<u64>,
}

impl Pod {
    /// Of the process that runs in it.
    fn boot(&self) -> String {
        self.up_at.to_string()
    }
}

/// All there is.
pub struct World {
    volumes: bool,
    /// Nodes that pods are put on, by chance; every second one is in the same zone. 0: nobody knows of nodes.
    pub nodes: u64,
    pub(super) now: u64,
    serial: u64,
    pods: BTreeMap<Seat, Pod>,
    /// Of each seat that has a body or a disk.
    memories: BTreeMap<Seat, Memory>,
    /// The committed topology, as long as somebody has it.
    pub topology: Option<Topology>,
    pub formed: u64,
    /// Moves of slots that were done.
    pub moved: u64,
    /// Primaries that were handed over as planned.
    pub handed_over: u64,
    /// What members are made from that never come into sync.
    pub bad: Option<String>,
    down_since: BTreeMap<ShardId, u64>,
    pub(super) copying: Copying,
}

impl World {
    pub(super) fn new(volumes: bool) -> Self {
        Self {
            volumes,
            nodes: 0,
            now: 0,
            serial: 0,
            pods: BTreeMap::new(),
            memories: BTreeMap::new(),
            topology: None,
            formed: 0,
            moved: 0,
            handed_over: 0,
            bad: None,
            down_since: BTreeMap::new(),
            copying: Copying::default(),
        }
    }

    fn fresh(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}{:06}", self.serial)
    }

    /// Members that are made from this.
    pub fn made_from(&self, template: &str) -> usize {
        self.pods.values().filter(|p| p.template == template).count()
    }

    fn is_up(&self, seat: Seat) -> bool {
        self.pods.get(&seat).is_some_and(|p| p.up_at <= self.now)
    }

    /// The seat that has what a member remembers.
    pub(super) fn home_of(&self, id: &str) -> Option<Seat> {
        self.memories.iter().find(|(_, m)| m.id == id).map(|(seat, _)| *seat)
    }

    /// The seat in which a member of the topology lives and answers.
    pub(super) fn seat_of(&self, id: &str) -> Option<Seat> {
        self.home_of(id).filter(|seat| self.is_up(*seat))
    }

    pub(super) fn has_data(&self, seat: Seat) -> bool {
        self.memories.get(&seat).is_some_and(|m| m.has_data)
    }

    fn has_quorum(&self) -> bool {
        let Some(topology) = &self.topology else { return false };
        let up = topology.voters.iter().filter(|v| self.seat_of(v).is_some()).count();
        up > topology.voters.len() / 2
    }

    /// A topology that nobody has any more is gone.
    fn forget_if_unknown(&mut self) {
        let Some(topology) = &self.topology else { return };
        if !self.memories.values().any(|m| m.cluster.as_ref() == Some(&topology.cluster)) {
            self.topology = None;
            self.down_since.clear();
        }
    }

    /// Any voter, while they are enough.
    fn leader<'a>(&self, topology: &'a Topology) -> Option<&'a MemberId> {
        topology.voters.iter().find(|v| self.has_quorum() && self.seat_of(v).is_some())
    }

    /// One tick of the council: silent primaries are replaced by members in sync, voters re-picked.
    pub(super) fn tick(&mut self) {
        self.now += 1;
        self.forget_if_unknown();
        if !self.has_quorum() {
            return;
        }
        let Some(mut topology) = self.topology.take() else { return };
        let voters: Vec<MemberId> = topology.members.keys().cloned().collect();
        let up = voters.iter().filter(|id| self.seat_of(id).is_some());
        topology.voters = up.take(5).cloned().collect();
        for (id, shard) in &mut topology.shards {
            let alive = shard.primary.as_ref().is_some_and(|p| self.seat_of(p).is_some());
            if alive {
                self.down_since.remove(id);
                continue;
            }
            let since = *self.down_since.entry(*id).or_insert(self.now);
            if shard.primary.is_some() && self.now - since < FAILOVER_TICKS {
                continue;
            }
            let members: Vec<_> =
                topology.members.values().filter(|m| m.shard == Some(*id)).collect();
            let seats: Vec<_> =
                members.iter().filter_map(|m| Some((self.seat_of(&m.id)?, &m.id))).collect();
            // An empty one only when none of the shard's members has data any more.
            let data_may_be = members.len() > seats.len();
            let best = seats.iter().find(|(seat, _)| self.has_data(*seat));
            let best = best.or(seats.first().filter(|_| !data_may_be));
            if let Some((_, to)) = best {
                shard.primary = Some((*to).clone());
                topology.epoch += 1;
                shard.epoch = topology.epoch;
                self.down_since.remove(id);
            }
        }
        let primaries: Vec<MemberId> =
            topology.shards.values().filter_map(|s| s.primary.clone()).collect();
        for (seat, memory) in &mut self.memories {
            let synced = self.pods.get(seat).is_some_and(|p| p.in_sync_at <= self.now);
            memory.has_data |= primaries.contains(&memory.id)
                || synced && topology.members.contains_key(&memory.id);
        }
        self.keep_sets(&mut topology);
        self.copy(&mut topology);
        self.topology = Some(topology);
    }

    /// Who may be promoted, with the process that has the data: one that was killed has to come into sync again.
    fn keep_sets(&self, topology: &mut Topology) {
        let Topology { shards, members, .. } = topology;
        for (id, shard) in shards {
            let pod = |m: &MemberId| self.seat_of(m).and_then(|seat| self.pods.get(&seat));
            let of_shard = members.values().filter(|m| m.shard == Some(*id)).map(|m| &m.id);
            let in_sync = of_shard.filter_map(|m| {
                let pod = pod(m)?;
                let counts = shard.primary.as_ref() == Some(m) || pod.in_sync_at <= self.now;
                counts.then(|| (m.clone(), pod.boot()))
            });
            shard.in_sync = in_sync.collect();
        }
    }

    /// What goes wrong in this tick. As many voters stay as it takes to decide, or none does: nobody
    /// promises to survive less.
    pub(super) fn suffer(&mut self, desired: &Desired, faults: &Faults, rng: &mut Rng) {
        if rng.percent(faults.all_percent) {
            self.pods.clear();
            if !self.volumes {
                self.memories.clear();
            }
            return;
        }
        let seats: Vec<Seat> = self.pods.keys().copied().collect();
        if seats.is_empty() {
            return;
        }
        let seat = seats[usize::try_from(rng.below(seats.len() as u64)).unwrap_or(0)];
        let all_up = seats.iter().all(|s| self.is_up(*s));
        if rng.percent(faults.kill_percent) {
            self.kill(seat);
        }
        // Losing what a member remembers is only survived while the others have all of it.
        let whole = desired.replicas > 0 && all_up && self.is_whole(desired);
        if whole && (self.volumes || seats.len() > 2) && rng.percent(faults.delete_percent) {
            self.pods.remove(&seat);
            if !self.volumes {
                self.memories.remove(&seat);
            }
        } else if whole && seats.len() > 2 && rng.percent(faults.wipe_percent) {
            self.wipe(seat);
        }
    }

    /// The process of this seat is killed; it comes back in the same body.
    pub fn kill(&mut self, seat: Seat) {
        if let Some(pod) = self.pods.get_mut(&seat) {
            pod.up_at = self.now + START_TICKS;
            pod.in_sync_at = pod.up_at + SYNC_TICKS;
        }
    }

    /// The disk of this seat is lost, and the body with it.
    pub fn wipe(&mut self, seat: Seat) {
        self.pods.remove(&seat);
        self.memories.remove(&seat);
    }

    fn is_whole(&self, desired: &Desired) -> bool {
        let Some(topology) = &self.topology else { return false };
        let data = usize::from(desired.shards) * usize::from(desired.members_per_shard());
        let size = usize::from(desired.members_per_shard());
        let serving = topology.shards.iter().filter(|(_, s)| !s.slots.is_empty());
        serving.into_iter().all(|(id, _)| topology.members_of(*id).len() >= size)
            && topology.members.len() >= data + usize::from(desired.witnesses())
            && topology.members.keys().all(|id| {
                let seat = self.seat_of(id);
                let memory = seat.and_then(|s| self.memories.get(&s));
                memory.is_some_and(|m| m.has_data) || topology.members[id].shard.is_none()
            })
            && topology.voters.len() >= 3.min(topology.members.len())
    }

    pub(super) fn observe(
        &self,
        desired: &Desired,
        past: Option<Box<Status>>,
        mut is_unseen: impl FnMut(Seat) -> bool,
    ) -> Observed {
        let now = when::text(BEGIN + i64::try_from(self.now).unwrap_or_default());
        let template = desired.at_start_hash();
        let mut observed =
            Observed { past, now, template: template.clone(), ..Observed::default() };
        for (seat, memory) in &self.memories {
            let name = seat.name(&desired.name);
            let address = Address { host: name.clone(), port: 6379, tls_port: 0, bus_port: 16379 };
            let disk = self.volumes.then(|| Disk { uid: memory.id.clone(), ..Disk::default() });
            let pod = self.pods.get(seat);
            let body = pod.map(|p| Body {
                uid: p.uid.clone(),
                phase: Phase::Running,
                started: true,
                outdated: p.template != template,
                node: p.node.map(|n| format!("node-{n}")),
                zone: p.node.map(|n| format!("zone-{}", n % 2)),
                ..Body::default()
            });
            observed.members.insert(*seat, Member { body, disk, address, ..Member::default() });
            if self.is_up(*seat) && !is_unseen(*seat) {
                let topology = self.topology.as_ref();
                let topology = topology.filter(|t| memory.cluster.as_ref() == Some(&t.cluster));
                let report = self.report(*seat, memory, &name);
                let leader = topology.and_then(|t| self.leader(t)).cloned();
                observed.hear(*seat, Told { report, topology: topology.cloned(), leader });
            }
        }
        observed
    }

    fn report(&self, seat: Seat, memory: &Memory, name: &str) -> Report {
        let topology = self.topology.as_ref();
        let known = topology.and_then(|t| t.members.get(&memory.id));
        let leads = |s: &Shard| s.primary.as_ref() == Some(&memory.id);
        let role = match known.map(|m| m.shard) {
            None => Role::None,
            Some(None) => Role::Witness,
            Some(Some(_)) if topology.is_some_and(|t| t.shards.values().any(leads)) => {
                Role::Primary
            }
            Some(Some(_)) => Role::Replica,
        };
        let synced = self.pods.get(&seat).is_some_and(|p| p.in_sync_at <= self.now);
        Report {
            id: memory.id.clone(),
            name: name.into(),
            role,
            boot: self.pods.get(&seat).map(Pod::boot).unwrap_or_default(),
            in_sync: role == Role::Replica && synced,
            config_hash: memory.config.clone(),
            ..Report::default()
        }
    }

    /// Carries out a step, as often as it is asked.
    pub(super) fn apply(&mut self, desired: &Desired, step: &Step) -> Result<(), String> {
        match step {
            Step::CreateMember { seat } => self.create(desired, *seat),
            Step::DeleteMember { seat, seen, disk, .. } => {
                let is_it = |p: &Pod| seen.body.as_ref().is_some_and(|b| b.uid == p.uid);
                if self.pods.get(seat).is_some_and(is_it) || seen.body.is_none() {
                    self.pods.remove(seat);
                    if *disk || !self.volumes {
                        self.assert_has_left(*seat);
                        self.assert_not_the_only_copy(*seat);
                        self.memories.remove(seat);
                    }
                }
            }
            Step::RestartMember { seat, uid } => {
                if self.pods.get(seat).is_some_and(|p| p.uid == *uid) {
                    self.assert_spare(desired, *seat);
                    self.pods.remove(seat);
                    if !self.volumes {
                        self.memories.remove(seat);
                    }
                }
            }
            Step::Form { seat, me, incarnation, shards } => {
                return self.form(*seat, me, *incarnation, shards);
            }
            Step::Recover { seat, topology } => {
                if !self.is_up(*seat) {
                    return Err("nobody answers".into());
                }
                let has = |v: &&MemberId| self.home_of(v).is_some();
                let before = self.topology.as_ref().ok_or("no cluster")?;
                let left = before.voters.iter().filter(has).count();
                assert!(
                    left <= before.voters.len() / 2,
                    "a council was given up that could decide"
                );
                for id in before.members.keys().filter(|id| self.home_of(id).is_some()) {
                    assert!(topology.members.contains_key(id), "left behind: {id}");
                }
                self.topology = Some(Topology::clone(topology));
            }
            Step::Adopt { seat, topology, me } => {
                let up = self.is_up(*seat);
                let memory = self.memories.get_mut(seat).filter(|m| up && m.id == me.id);
                let memory = memory.ok_or("nobody answers")?;
                memory.cluster.get_or_insert_with(|| topology.cluster.clone());
            }
            Step::Bar { name } => return self.commit(&Change::Bar { name: name.clone() }),
            Step::Join { member, seen } => {
                self.commit(&Change::Enter { member: member.clone(), seen: *seen })?;
                let seat = Seat::parse(&desired.name, &member.name);
                if let Some(pod) = seat.and_then(|s| self.pods.get_mut(&s)) {
                    pod.in_sync_at = self.now + SYNC_TICKS;
                }
            }
            Step::Leave { id, .. } => return self.commit(&Change::Leave { member: id.clone() }),
            Step::Assign { shard, slots, .. } => {
                return self.commit(&Change::Assign { shard: *shard, slots: slots.clone() });
            }
            Step::Move { slots, from, to, epoch } => {
                let now = self.topology.as_ref().map(|t| t.epoch);
                if now != Some(*epoch) {
                    return Err(format!("the topology is at epoch {now:?}, not {epoch}"));
                }
                let (slots, from, to) = (slots.clone(), *from, *to);
                return self.commit(&Change::Move { slots, from, to });
            }
            Step::HandOver { shard, to, epoch, .. } => {
                let known = self.topology.as_ref().map(|t| t.members.keys()).into_iter().flatten();
                let all_up = known.into_iter().all(|id| self.seat_of(id).is_some());
                assert!(all_up, "a primary is handed back while a member is missing");
                self.commit(&Change::handover(*shard, to.clone(), *epoch))?;
                self.handed_over += 1;
            }
            Step::CancelMove { id } => return self.commit(&Change::CancelMove { id: *id }),
            Step::Configure { seat, hash, .. } => {
                let up = self.is_up(*seat);
                let memory = self.memories.get_mut(seat).filter(|_| up);
                memory.ok_or("nobody answers")?.config.clone_from(hash);
            }
        }
        Ok(())
    }

    fn create(&mut self, desired: &Desired, seat: Seat) {
        if self.pods.contains_key(&seat) {
            return;
        }
        let uid = self.fresh("uid");
        if !self.memories.contains_key(&seat) {
            // A member's number in the council is in the first digits of its ID.
            self.serial += 1;
            let id = format!("{:016x}{:024x}", self.serial, 0);
            self.memories.insert(seat, Memory { id, ..Memory::default() });
        }
        if let Some(memory) = self.memories.get_mut(&seat) {
            memory.config = desired.live_hash();
        }
        let up_at = self.now + START_TICKS;
        let template = desired.at_start_hash();
        let is_bad = self.bad.as_ref() == Some(&template);
        let in_sync_at = if is_bad { u64::MAX } else { up_at + SYNC_TICKS };
        // The last digits of a number that grows are no chance; those of its hash are.
        let hash = u64::from_str_radix(&crate::desired::hash([("uid", &*uid)].into_iter()), 16);
        let node = hash.ok().and_then(|hash| hash.checked_rem(self.nodes));
        self.pods.insert(seat, Pod { uid, template, up_at, in_sync_at, node });
    }

    /// Nobody in the world may remember a cluster when one is formed.
    fn form(
        &mut self,
        seat: Seat,
        me: &engine::topology::Member,
        incarnation: u64,
        shards: &[engine::topology::SlotRange],
    ) -> Result<(), String> {
        if !self.is_up(seat) {
            return Err("nobody answers".into());
        }
        let belongs = |m: &Memory| m.cluster.is_some();
        if self.memories.get(&seat).is_some_and(belongs) {
            return Err("the member belongs to a cluster".into());
        }
        assert!(!self.memories.values().any(belongs), "formed while a member remembers a cluster");
        self.formed += 1;
        let cluster = self.fresh("cluster");
        let topology = Topology::form(cluster.clone(), incarnation, me, shards)?;
        self.topology = Some(topology);
        if let Some(memory) = self.memories.get_mut(&seat) {
            memory.cluster = Some(cluster);
        }
        Ok(())
    }

    fn commit(&mut self, change: &Change) -> Result<(), String> {
        if !self.has_quorum() {
            return Err("no majority of the council answers".into());
        }
        self.topology.as_mut().ok_or("no cluster")?.apply(change)
    }

    /// A disk is deleted only after its member has left.
    fn assert_has_left(&self, seat: Seat) {
        let id = self.memories.get(&seat).map(|m| &m.id);
        let member = id.and_then(|id| self.topology.as_ref()?.members.get(id));
        assert!(member.is_none() || !self.volumes, "the disk of a member is deleted");
    }

    /// A member is restarted only while all others of its shard may be promoted.
    fn assert_spare(&self, desired: &Desired, seat: Seat) {
        let Some(topology) = &self.topology else { return };
        let others = topology.members.values().filter(|m| {
            m.shard.is_some() && m.shard == seat.shard() && m.name != seat.name(&desired.name)
        });
        for other in others {
            let shard = other.shard.and_then(|id| topology.shards.get(&id));
            let pod = self.seat_of(&other.id).and_then(|seat| self.pods.get(&seat));
            let is_spare = shard.zip(pod).is_some_and(|(s, p)| s.is_in_sync(&other.id, &p.boot()));
            assert!(is_spare, "restarted without a spare: {seat}");
        }
    }
}
