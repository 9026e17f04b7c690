//! Routing in a cluster: is the slot ours, and if not, whose?
//!
//! The council's topology is pushed in by `Shared::set_topology`; requests only read. For each request a
//! look at one word per key tells whether its slot is served here.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::clock;
use crate::command::exec::LOADING;
use crate::command::{Command, flag};
use crate::keyspace::Db;
use crate::replication::fresh;
use crate::server::Shared;
use crate::session::Session;
use crate::stream::Stream;
use crate::topology::{Epoch, Member, MemberId, SLOTS, Shard, ShardId, Topology, slot_of};

/// No shard owns the slot, or this member is in none.
const NOBODY: u16 = u16::MAX;

/// What one member knows of its cluster.
pub struct ClusterState {
    enabled: bool,
    view: RwLock<Arc<View>>,
    /// Owner of each slot.
    owners: Box<[AtomicU16]>,
    my_shard: AtomicU16,
    is_primary: AtomicBool,
    /// No operator: slots may be moved key by key.
    unmanaged: bool,
    /// Some slot is on its way key by key.
    any_open: AtomicBool,
    /// See the method of that name.
    owns_less_since: AtomicU64,
    /// Of this process, where it is a member of a cluster.
    boot: OnceLock<String>,
    /// Members that are not heard, as far as this one was told.
    silent: RwLock<Arc<[MemberId]>>,
}

/// A topology as one member sees it.
#[derive(Default)]
pub struct View {
    pub topology: Topology,
    pub my_id: MemberId,
}

impl View {
    pub fn me(&self) -> Option<&Member> {
        self.topology.members.get(&self.my_id)
    }

    /// The shard that this member is of.
    pub fn my_shard(&self) -> Option<&Shard> {
        self.topology.shards.get(&self.me()?.shard?)
    }

    /// The primary of a shard.
    pub fn primary_of(&self, shard: ShardId) -> Option<&Member> {
        let id = self.topology.shards.get(&shard)?.primary.as_ref()?;
        self.topology.members.get(id)
    }
}

impl ClusterState {
    pub fn new(enabled: bool, managed: bool, my_id: MemberId) -> ClusterState {
        let view = View { my_id, ..View::default() };
        ClusterState {
            enabled,
            view: RwLock::new(Arc::new(view)),
            owners: (0..if enabled { SLOTS } else { 0 }).map(|_| AtomicU16::new(NOBODY)).collect(),
            my_shard: AtomicU16::new(NOBODY),
            is_primary: AtomicBool::new(false),
            unmanaged: enabled && !managed,
            any_open: AtomicBool::new(false),
            owns_less_since: AtomicU64::new(0),
            boot: OnceLock::new(),
            silent: RwLock::new(Arc::new([])),
        }
    }

    /// Who this member is, before its council has said anything.
    pub fn name(&self, my_id: &MemberId, boot: &str) {
        // It is the same for as long as the process lives.
        let _ = self.boot.set(boot.to_owned());
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        *view = Arc::new(View { topology: view.topology.clone(), my_id: my_id.clone() });
    }

    /// Number of this process; empty outside of clusters.
    pub fn boot(&self) -> &str {
        self.boot.get().map_or("", String::as_str)
    }

    /// This very process is in its shard's in-sync set, as far as this member knows: it may be promoted.
    pub fn is_in_sync(&self) -> bool {
        let view = self.view();
        let shard = view.my_shard();
        shard.is_some_and(|s| s.counts_on(&view.my_id, self.boot()))
    }

    /// The members that met are a cluster by themselves.
    #[inline]
    pub fn is_unmanaged(&self) -> bool {
        self.unmanaged
    }

    pub fn set_silent(&self, members: &[MemberId]) {
        *self.silent.write().unwrap_or_else(PoisonError::into_inner) = members.into();
    }

    pub fn silent(&self) -> Arc<[MemberId]> {
        self.silent.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new topology in, for those who ask.
    fn set(&self, topology: &Topology, my_id: &str, shard: Option<ShardId>, primary: Option<&str>) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        *view = Arc::new(View { topology: topology.clone(), my_id: my_id.to_string() });
        self.is_primary.store(primary == Some(my_id), Ordering::Release);
        let owned = self.my_shard.swap(shard.unwrap_or(NOBODY), Ordering::AcqRel);
        let mut owners = vec![NOBODY; self.owners.len()];
        for (id, shard) in &topology.shards {
            for range in &shard.slots {
                if let Some(part) = owners.get_mut(range.first as usize..=range.last as usize) {
                    part.fill(*id);
                }
            }
        }
        let own = &topology.unmanaged;
        let any_open = !own.migrating.is_empty() || !own.importing.is_empty();
        if any_open {
            self.any_open.store(true, Ordering::Release);
        }
        let mut has_less = self.owns_less_since.load(Ordering::Acquire) == 0;
        for (cell, owner) in self.owners.iter().zip(owners) {
            let before = cell.swap(owner, Ordering::AcqRel);
            has_less |= before != NOBODY && before == owned && before != owner;
        }
        if has_less {
            self.owns_less_since.store(topology.epoch, Ordering::Release);
        }
        // Last: who sees that no slot is open any more sees the owners that this has left.
        self.any_open.store(any_open, Ordering::Release);
    }

    /// Epoch of the topology since which the shard owns less than before, as far as this process knows: who knows that
    /// one answers for no slot that has gone.
    pub fn owns_less_since(&self) -> Epoch {
        self.owns_less_since.load(Ordering::Acquire)
    }

    /// Some slot is on its way key by key.
    pub fn any_open(&self) -> bool {
        self.any_open.load(Ordering::Acquire)
    }

    /// This member is the primary of a shard that takes the slot in key by key.
    pub fn imports(&self, slot: u16) -> bool {
        if !self.any_open() || !self.is_primary.load(Ordering::Acquire) {
            return false;
        }
        let mine = self.my_shard.load(Ordering::Acquire);
        self.view().topology.unmanaged.importing.get(&slot).is_some_and(|i| i.into == mine)
    }

    /// Where the slot goes key by key, when this member is the primary that gives it away.
    fn migrates_to(&self, slot: u16) -> Option<ShardId> {
        if !self.any_open() || !self.is_primary.load(Ordering::Acquire) {
            return None;
        }
        let to = self.view().topology.unmanaged.migrating.get(&slot).copied();
        to.filter(|_| self.owns(slot))
    }

    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn owner(&self, slot: u16) -> u16 {
        self.owners.get(slot as usize).map_or(NOBODY, |o| o.load(Ordering::Acquire))
    }

    /// The shard that owns a slot.
    pub fn owner_of(&self, slot: u16) -> Option<ShardId> {
        Some(self.owner(slot)).filter(|owner| *owner != NOBODY)
    }

    /// Slots that some shard owns.
    pub fn assigned(&self) -> usize {
        (0..SLOTS).filter(|slot| self.owner(*slot) != NOBODY).count()
    }

    /// The error line that sends a client on whose slot is not served by this member as primary.
    pub fn redirection(&self, slot: u16, by_tls: bool) -> Option<String> {
        if !self.enabled {
            return None;
        }
        let owner = self.owner(slot);
        let mine = owner == self.my_shard.load(Ordering::Acquire)
            && self.is_primary.load(Ordering::Acquire);
        (owner != NOBODY && !mine).then(|| self.moved(slot, owner, by_tls))
    }

    /// This member, whichever process of it, is primary by the topology that it knows.
    pub fn names_us_primary(&self) -> bool {
        self.is_primary.load(Ordering::Acquire)
    }

    /// The slot is served by this member's shard.
    pub fn owns(&self, slot: u16) -> bool {
        let mine = self.my_shard.load(Ordering::Acquire);
        mine != NOBODY && self.owner(slot) == mine
    }

    fn ask(&self, slot: u16, to: ShardId, by_tls: bool) -> String {
        match self.view().primary_of(to) {
            Some(member) => format!("ASK {slot} {}", member.client_address(by_tls)),
            None => "CLUSTERDOWN The cluster is down: the slot's shard has no primary".into(),
        }
    }

    fn moved(&self, slot: u16, to: u16, by_tls: bool) -> String {
        match self.view().primary_of(to) {
            Some(member) => format!("MOVED {slot} {}", member.client_address(by_tls)),
            None => "CLUSTERDOWN The cluster is down: the slot's shard has no primary".into(),
        }
    }
}

/// The request may use a slot that is imported here: it says so, or it is one of those that move keys.
fn asks(session: &Session, command: &Command) -> bool {
    session.asking || matches!(command.name, "restore-asking" | "migrate")
}

/// A replica may answer. Shard channels are heard on every member of the shard, and spoken to on the primary, from where
/// all the others hear it.
fn may_read(session: &Session, command: &Command) -> bool {
    if command.is(flag::PUBSUB) {
        return command.is(flag::IN_SUBSCRIBE);
    }
    session.readonly && !command.is(flag::WRITE)
}

impl Shared {
    /// Takes a new topology in. What it says of this member's own role is for replication to act on.
    pub fn set_topology(&self, topology: &Topology, my_id: &str) {
        let cluster = &self.cluster;
        let me = topology.members.get(my_id);
        let my_shard = me.and_then(|m| m.shard);
        let mine = my_shard.and_then(|s| topology.shards.get(&s));
        let primary = mine.and_then(|s| s.primary.as_deref());
        let slots = mine.map_or(0, |shard| fresh::hash_of(&shard.slots));
        let now_ms = clock::monotonic_ms();
        self.replication
            .fresh
            .own(slots, now_ms, || cluster.set(topology, my_id, my_shard, primary));
        self.leave_foreign_shards();
        self.invalidate_foreign();
        self.note_acks();
    }

    /// Where the member is that has this host and port in the topology, as its connection of the bus says.
    pub fn connected_at(&self, host: &str, port: u16) -> Option<SocketAddr> {
        let view = self.cluster.view();
        let is_it = |m: &&Member| m.host == host && (m.port == port || m.tls_port == port);
        let member = view.topology.members.values().find(is_it)?;
        let ip = self.managed.get()?.driver().ok()?.connected_at(&member.id)?;
        Some(SocketAddr::new(ip, port))
    }

    /// Connects to where another member serves clients: by TLS where members speak it to each other.
    ///
    /// # Errors
    /// What came of it.
    pub fn dial_member(&self, member: &Member, patience: Duration) -> io::Result<Stream> {
        let by_tls = self.config.is_yes("tls-cluster");
        let tls = by_tls.then(|| self.tls.dialling(&self.config)).transpose()?;
        let port = member.client_port(by_tls);
        let known = self.connected_at(&member.host, port);
        Stream::dial(&member.host, port, known, tls, patience)
    }

    /// Refuses a request whose keys are not served here, with the error line that sends the client on.
    /// `slot` is that of the first key, where the caller has it and there is only one.
    #[inline]
    pub fn route(
        &self,
        session: &Session,
        command: &'static Command,
        args: &[&[u8]],
        slot: Option<u16>,
    ) -> Result<(), String> {
        if self.cluster.enabled { self.route_keys(session, command, args, slot) } else { Ok(()) }
    }

    fn route_keys(
        &self,
        session: &Session,
        command: &'static Command,
        args: &[&[u8]],
        slot: Option<u16>,
    ) -> Result<(), String> {
        let slot = match slot {
            Some(slot) => slot,
            None => {
                let positions = command.key_positions(args);
                let Some(first) = positions.first() else { return Ok(()) };
                let slot = slot_of(args[*first]);
                if positions[1..].iter().any(|i| slot_of(args[*i]) != slot) {
                    return Err("CROSSSLOT Keys in request don't hash to the same slot".into());
                }
                slot
            }
        };
        self.route_slot(session, may_read(session, command), slot, asks(session, command))
    }

    /// Refuses a slot that this member may not serve to this client. `reads`: as a replica it may.
    fn route_slot(
        &self,
        session: &Session,
        reads: bool,
        slot: u16,
        asks: bool,
    ) -> Result<(), String> {
        let cluster = &self.cluster;
        let owner = cluster.owner(slot);
        if asks && cluster.imports(slot) {
            return Ok(());
        }
        if owner == NOBODY {
            return Err("CLUSTERDOWN Hash slot not served".into());
        }
        if owner != cluster.my_shard.load(Ordering::Acquire) {
            return Err(cluster.moved(slot, owner, session.info.is_tls()));
        }
        let is_primary = cluster.is_primary.load(Ordering::Acquire);
        if is_primary && self.moves.held.is_vain(slot) {
            return Err("CLUSTERDOWN The slot is about to change its owner".into());
        }
        // A replica that is further behind than the client allows sends it to the primary.
        if is_primary || reads && (!session.readonly || self.is_fresh(session, slot)) {
            return Ok(());
        }
        Err(cluster.moved(slot, owner, session.info.is_tls()))
    }

    /// Refuses a command that a script calls, under the locks of its keys.
    pub fn route_script(
        &self,
        session: &Session,
        command: &'static Command,
        args: &[&[u8]],
        db: &mut Db<'_>,
    ) -> Result<(), String> {
        if session.from_primary || session.importing {
            return Ok(());
        }
        if self.cluster.is_unmanaged() {
            return self.route_locked(session, command, args, db);
        }
        let (reads, asks) = (may_read(session, command), asks(session, command));
        let mut keys = command.key_positions(args).into_iter();
        keys.try_for_each(|at| self.route_slot(session, reads, slot_of(args[at]), asks))
    }

    /// What `route` has allowed is to be looked at again under the locks: slots that are moved key by key, and the data set of a
    /// replica, may be others since.
    #[inline]
    pub fn routes_again(&self, session: &Session) -> bool {
        let cluster = &self.cluster;
        !session.from_primary
            && !session.importing
            && (cluster.unmanaged || session.readonly && cluster.enabled)
    }

    /// What `route` has allowed, looked at again under the locks of the keys: slots may have been handed on since,
    /// and of one that is on its way only those keys are answered for that are here.
    pub fn route_locked(
        &self,
        session: &Session,
        command: &'static Command,
        args: &[&[u8]],
        db: &mut Db<'_>,
    ) -> Result<(), String> {
        let cluster = &self.cluster;
        if session.readonly && self.state.loading.load(Ordering::Acquire) {
            return Err(LOADING.into());
        }
        let keys = command.key_positions(args);
        let Some(first) = keys.first() else { return Ok(()) };
        let slot = slot_of(args[*first]);
        let asks = asks(session, command);
        // First whether the slot is on its way, then whose it is: a slot that is handed on in between has its new owner
        // by then (see: keys_that_change_while_they_are_moved_are_not_lost).
        let (to, imported) = (cluster.migrates_to(slot), asks && cluster.imports(slot));
        // What is no key cannot be here or there.
        let is_nowhere = command.names_no_keys();
        self.route_slot(session, may_read(session, command), slot, asks)?;
        if command.name == "migrate" || is_nowhere || to.is_none() && !imported {
            return Ok(());
        }
        let missing = keys.iter().filter(|at| db.peek(args[**at]).is_none()).count();
        match to {
            Some(_) if missing == 0 => Ok(()),
            Some(to) if missing == keys.len() => Err(cluster.ask(slot, to, session.info.is_tls())),
            None if missing == 0 || keys.len() == 1 => Ok(()),
            _ => Err("TRYAGAIN Multiple keys request during rehashing of slot".into()),
        }
    }
}
