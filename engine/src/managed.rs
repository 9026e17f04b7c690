//! What the council decides, carried out by the data engine: roles, leases, lineage.
//!
//! The council's driver calls in from the admin lane and must not wait, so roles are taken by a thread of
//! their own, in the order in which they were decided. A lease counts only for the epoch whose role has
//! been taken; until then, and in every other state, it has ended, and writes are refused.
//!
//! The first thing that a primary writes is a mark with its epoch (`LARDER.LINEAGE`): it stands in the
//! journal, so whoever has the mark has everything from before it, and knows under whom it was written.
//!
//! In a handover the old primary holds its clients back from when it executes nothing more until the new one
//! says that it knows of its role, or its mark comes, and the new one from then until it has its lease.

mod roles;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::command::sentinel;
use crate::maintenance::Notice;
use crate::member::{Handle, Local};
use crate::persist;
use crate::replication;
use crate::server::Shared;
use crate::topology::{Change, Epoch, MemberId, Report, Role, Shard, ShardId, Topology};
use roles::Roles;

/// Name of the mark; no client may send it.
pub const MARK: &str = "larder.lineage";
/// How often the keys are counted for the report, milliseconds: the count looks at every slot.
const COUNT_EVERY_MS: u64 = 2_000;
/// Longest time for which a new primary's clients wait for its lease, and those of an old one for the new
/// one's mark, milliseconds.
const HOLD_MS: u64 = 1_500;
/// How long a primary that is to end tries to find a successor, and how long it goes on telling its clients who
/// that is, milliseconds.
const LEAVE_MS: u64 = 5_000;
const LINGER_MS: u64 = 1_000;
/// How long a replica that is to end waits to be let out of its in-sync set, milliseconds.
const RELEASE_MS: u64 = 1_000;
/// How long a leader of the council that is to end waits for another one, milliseconds.
const RETIRE_MS: u64 = 500;

/// A role to be taken.
enum Part {
    Primary(Epoch),
    Replica {
        host: String,
        port: u16,
        epoch: Epoch,
    },
    Idle,
    /// The data set goes: it belonged to a cluster that this member has left.
    Anew,
    /// As primary of that epoch: say when nothing more is executed.
    Hold {
        epoch: Epoch,
        number: u64,
    },
}

/// How far a new primary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reign {
    /// It has not heard of it: it would send clients back.
    Unknown,
    /// It holds its clients until it has a lease.
    Known,
    /// It acts: its own history has begun, and others may follow.
    Begun,
}

impl Reign {
    /// As it is told over the wire.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Reign::Unknown => "unknown",
            Reign::Known => "known",
            Reign::Begun => "begun",
        }
    }
}

/// What the roles thread and the council's driver both look at.
#[derive(Default)]
struct Now {
    me: MemberId,
    role: Role,
    /// Shard epoch of the role that was taken last.
    epoch: Epoch,
    /// The last lease that was told: shard epoch and end.
    lease: (Epoch, u64),
    topology: Option<Arc<Topology>>,
    config_hash: String,
    config_error: Option<String>,
    /// `replication.dropped_writes` when this role was taken.
    dropped_before: u64,
    /// This process has acted as primary: it knows what it acknowledged. One that was restarted does not, since
    /// what had not reached its log is nowhere.
    has_led: bool,
    /// Shard epoch that is to be held for a handover, and that is; 0: none.
    hold_wanted: Epoch,
    held: Epoch,
    /// Shard epoch whose primary we learned to be last, before its lease came.
    expects: Epoch,
    leaving: bool,
    keys: u64,
    counted_ms: u64,
}

/// A member's data engine, as its council sees it.
pub struct Engine {
    shared: Arc<Shared>,
    is_witness: bool,
    now: Arc<Mutex<Now>>,
    parts: Mutex<Sender<Part>>,
    shutdowns: AtomicU64,
    driver: Arc<OnceLock<Handle>>,
}

fn lock(now: &Mutex<Now>) -> MutexGuard<'_, Now> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A managed member starts with no role: it serves nothing until the council says what it is.
pub fn hold_back(shared: &Shared) {
    shared.state.lease_until_ms.store(0, Ordering::Release);
    shared.state.is_replica.store(true, Ordering::Release);
    shared.journal.set_active(true);
}

impl Engine {
    /// # Errors
    /// When the thread that takes the roles cannot be started.
    pub fn start(shared: Arc<Shared>, me: MemberId) -> std::io::Result<Arc<Engine>> {
        let now = Arc::new(Mutex::new(Now {
            me,
            config_hash: shared.config.get("larder-config-hash").unwrap_or_default(),
            ..Now::default()
        }));
        let (parts, taken) = channel();
        let driver = Arc::<OnceLock<Handle>>::default();
        let roles = Roles { shared: shared.clone(), now: now.clone(), driver: driver.clone() };
        std::thread::Builder::new().name("roles".into()).spawn(move || roles.run(&taken))?;
        let is_witness = shared.config.get("larder-witness").is_some_and(|v| v == "yes");
        let engine = Arc::new(Engine {
            shared: shared.clone(),
            is_witness,
            now,
            parts: Mutex::new(parts),
            shutdowns: AtomicU64::new(0),
            driver,
        });
        // One engine per server.
        let _ = shared.managed.set(engine.clone());
        Ok(engine)
    }

    /// Shard and shard epoch under which this member acts as primary; `None` while it holds no lease.
    pub fn acting(&self) -> Option<(ShardId, Epoch)> {
        let now = lock(&self.now);
        let lease = self.shared.state.lease_until_ms.load(Ordering::Acquire);
        if now.role != Role::Primary || clock::monotonic_ms() >= lease {
            return None;
        }
        let shard = now.topology.as_ref()?.members.get(&now.me)?.shard?;
        Some((shard, now.epoch))
    }

    /// This member is primary under that shard epoch, as far as it knows; its lease may have ended.
    pub fn is_primary_of(&self, epoch: Epoch) -> bool {
        let now = lock(&self.now);
        now.role == Role::Primary && now.epoch == epoch
    }

    /// Puts a change to the council and waits for what becomes of it.
    ///
    /// # Errors
    /// The reason why it was refused, or why that is not known.
    pub fn propose(&self, change: Change) -> Result<Epoch, String> {
        self.driver()?.propose(change)
    }

    /// The same, on condition that the topology still has that epoch.
    ///
    /// # Errors
    /// The reason why it was refused, or why that is not known.
    pub fn propose_for(&self, change: Change, epoch: Epoch) -> Result<Epoch, String> {
        self.driver()?.propose_for(change, epoch)
    }

    /// The way to the council's driver.
    ///
    /// # Errors
    /// While it has not begun.
    pub fn driver(&self) -> Result<&Handle, String> {
        self.driver.get().ok_or_else(|| "the council's driver has not begun".to_owned())
    }

    /// The shard epoch under which another member is followed.
    pub(crate) fn follows_in(&self) -> Option<Epoch> {
        let now = lock(&self.now);
        (now.role == Role::Replica).then_some(now.epoch)
    }

    /// How far this member is in acting as primary under that shard epoch, or a later one.
    pub(crate) fn reign(&self, epoch: Epoch) -> Reign {
        let has_begun = {
            let now = lock(&self.now);
            let lease_ms = self.shared.state.lease_until_ms.load(Ordering::Acquire);
            let acts = now.role == Role::Primary && clock::monotonic_ms() < lease_ms;
            acts && now.epoch >= epoch
        };
        // What clients are served by: they were held before it was told.
        let view = self.shared.cluster.view();
        let shard = view.me().and_then(|me| view.topology.shards.get(&me.shard?));
        let leads = |s: &Shard| s.primary.as_ref() == Some(&view.my_id) && s.epoch >= epoch;
        match (has_begun, shard.is_some_and(leads)) {
            (true, _) => Reign::Begun,
            (false, true) => Reign::Known,
            (false, false) => Reign::Unknown,
        }
    }

    /// Held clients can be sent to the primary of that shard epoch: it has said that it knows of it, or its mark has come.
    pub fn marked(&self, epoch: Epoch) {
        let now = lock(&self.now);
        if now.role == Role::Replica && epoch >= now.epoch {
            self.shared.end_hold();
        }
    }

    fn take(&self, part: Part) {
        self.shared.hold.lap("decided");
        // Whatever comes next, the lease of the role before is over.
        let mut now = lock(&self.now);
        end_lease(&self.shared, &mut now);
        (now.hold_wanted, now.held) = (0, 0);
        drop(now);
        // The thread lives as long as we do.
        let _ = self.parts.lock().unwrap_or_else(PoisonError::into_inner).send(part);
    }
}

fn end_lease(shared: &Shared, now: &mut Now) {
    now.epoch = 0;
    shared.state.lease_until_ms.store(0, Ordering::Release);
}

impl Local for Engine {
    fn report(&self) -> Report {
        let shared = &self.shared;
        let mut now = lock(&self.now);
        let mono = clock::monotonic_ms();
        if mono >= now.counted_ms + COUNT_EVERY_MS {
            now.counted_ms = mono;
            now.keys = shared.keyspace.recent_count(0).0;
        }
        let link = replication::info(shared).link;
        let in_sync = now.role == Role::Primary || link.is_some_and(|l| l.up);
        if now.role != Role::Primary && shared.hold.is_over_time() {
            // Who is primary is not clear yet: clients are told what is known.
            shared.end_hold();
        }
        let dropped = &shared.replication.dropped_writes;
        let is_follower = now.role == Role::Replica && in_sync;
        Report {
            id: now.me.clone(),
            name: shared.config.get("larder-name").unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
            lineage: persist::lineage(shared),
            role: if self.is_witness { Role::Witness } else { now.role },
            loading: shared.state.loading.load(Ordering::Acquire),
            in_sync,
            lease_is_over: now.role == Role::Primary
                && mono >= shared.state.lease_until_ms.load(Ordering::Acquire),
            snapshot_s: persist::snapshot_taken_s(shared),
            disk_error: persist::disk_error(shared),
            used_memory: shared.used_memory(),
            maxmemory: shared.config.hot().maxmemory,
            keys: now.keys,
            config_hash: now.config_hash.clone(),
            config_error: now.config_error.clone(),
            dropped_writes: dropped.load(Ordering::Relaxed).saturating_sub(now.dropped_before),
            dropped_epoch: if is_follower && now.has_led { now.epoch } else { 0 },
            held_epoch: now.held,
            quorum: shared.quorum.is_configured(),
            min_in_sync: shared.quorum.min_in_sync() as u16,
            leaving: now.leaving,
            requests: shared.stats.requests(shared.loops.len()),
            faults: shared.stats.faults.load(Ordering::Relaxed),
            moves: shared.moves_given(),
            ..Report::default()
        }
    }

    fn topology_changed(&self, topology: &Arc<Topology>) {
        let (before, me) = {
            let mut now = lock(&self.now);
            let before = now.topology.replace(topology.clone());
            let is_other = before.as_ref().is_some_and(|b| b.cluster != topology.cluster);
            if is_other {
                // Epochs of another cluster say nothing in this one.
                now.expects = 0;
            }
            let shard = topology.members.get(&now.me).and_then(|m| m.shard);
            let shard = shard.and_then(|s| topology.shards.get(&s));
            if let Some(shard) = shard
                && shard.primary.as_ref() == Some(&now.me)
                && shard.epoch > now.expects
            {
                // From here on clients are sent to us, and the lease is a moment away.
                now.expects = shard.epoch;
                self.shared.begin_hold(HOLD_MS);
            }
            (before, now.me.clone())
        };
        self.shared.set_topology(topology, &me);
        if let Some(before) = before {
            sentinel::announce(&self.shared, &before, topology);
            self.shared.notify_of_change(&before, topology, &me);
            if self.shared.is_unmanaged() {
                // Slots change their owner here without a move that looks after those who wait for their keys.
                self.shared.redirect_blocked(None);
            }
        }
        self.shared.moves.look();
    }

    fn lease(&self, shard_epoch: Epoch, until_ms: u64) {
        let mut now = lock(&self.now);
        now.lease = (shard_epoch, until_ms);
        if now.hold_wanted == shard_epoch {
            // A handover that was called off.
            (now.hold_wanted, now.held) = (0, 0);
            self.shared.notify(|_| vec![Notice::FailedOver { number: shard_epoch }]);
        }
        if now.role == Role::Primary && now.epoch == shard_epoch && until_ms > 0 {
            serve_until(&self.shared, until_ms);
        }
    }

    fn hold(&self, shard_epoch: Epoch) {
        let mut now = lock(&self.now);
        if now.hold_wanted == shard_epoch {
            return;
        }
        now.hold_wanted = shard_epoch;
        // Ahead of the hold, so that it is on its way before anybody waits.
        let seconds = HOLD_MS.div_ceil(1000);
        self.shared.notify(|_| vec![Notice::FailingOver { number: shard_epoch, seconds }]);
        let number = self.shared.begin_hold(HOLD_MS);
        let part = Part::Hold { epoch: shard_epoch, number };
        // The thread lives as long as we do.
        let _ = self.parts.lock().unwrap_or_else(PoisonError::into_inner).send(part);
    }

    fn attach(&self, driver: Handle) {
        // There is one driver.
        let _ = self.driver.set(driver);
    }

    fn become_primary(&self, shard_epoch: Epoch) {
        self.take(Part::Primary(shard_epoch));
    }

    fn become_replica(&self, host: &str, port: u16, tls_port: u16, shard_epoch: Epoch) {
        let by_tls = self.shared.config.is_yes("tls-replication");
        let port = if tls_port != 0 && (by_tls || port == 0) { tls_port } else { port };
        self.take(Part::Replica { host: host.to_owned(), port, epoch: shard_epoch });
    }

    fn become_idle(&self) {
        self.take(Part::Idle);
    }

    fn begin_anew(&self) {
        self.take(Part::Anew);
    }

    fn silent(&self, members: &[MemberId]) {
        self.shared.cluster.set_silent(members);
    }

    fn renamed(&self, me: &MemberId) {
        lock(&self.now).me.clone_from(me);
    }

    fn configure(&self, hash: &str, directives: &[(String, String)]) -> Vec<(String, String)> {
        let (config, tls) = (&self.shared.config, &self.shared.tls);
        let set = |name: &String, value: &String| -> Result<(), String> {
            let pair = (name.as_bytes(), value.as_bytes());
            let accepting = tls.try_values(config, &[pair]).map_err(|why| why.to_string())?;
            config.set(name, value)?;
            tls.adopt(accepting);
            Ok(())
        };
        let refused: Vec<(String, String)> = directives
            .iter()
            .filter_map(|(name, value)| set(name, value).err().map(|why| (name.clone(), why)))
            .collect();
        if directives.iter().any(|(name, _)| name.eq_ignore_ascii_case("requirepass")) {
            self.shared.acl.set_default_password(&config.hot().requirepass);
        }
        let mut now = lock(&self.now);
        if refused.is_empty() {
            now.config_hash = hash.to_owned();
            now.config_error = None;
        } else {
            let told: Vec<_> = refused.iter().map(|(k, why)| format!("{k}: {why}")).collect();
            now.config_error = Some(told.join("; "));
        }
        refused
    }

    fn shutdown(&self) {
        // A second wish changes nothing.
        if self.shutdowns.fetch_add(1, Ordering::AcqRel) == 0 {
            let shared = self.shared.clone();
            let end = move || {
                let goodbye = persist::start::Goodbye::AsConfigured;
                if let Err(error) = persist::start::shut_down(&shared, goodbye, false) {
                    tracing::error!(%error, "cannot shut down in good order");
                }
            };
            if let Err(error) = std::thread::Builder::new().name("shutdown".into()).spawn(end) {
                tracing::error!(%error, "cannot start the shutdown");
            }
        }
    }
}

/// A primary's lease has become longer: its clients are served.
fn serve_until(shared: &Shared, until_ms: u64) {
    shared.journal.seal(false);
    shared.state.lease_until_ms.store(until_ms, Ordering::Release);
    shared.end_hold();
}

/// Before the process ends: a primary sees to it that another member takes over, and tells its clients for a
/// while who that is. Bounded by `LEAVE_MS` and `LINGER_MS`; a shard without an able replica is not held up.
pub fn leave(shared: &Shared) {
    let Some(engine) = shared.managed.get() else { return };
    let was_primary = {
        let mut now = lock(&engine.now);
        now.leaving = true;
        now.role == Role::Primary
    };
    let Some(driver) = engine.driver.get() else { return };
    if was_primary {
        hand_over(engine, driver);
    } else if shared.quorum.min_in_sync() > 0 {
        driver.look();
        await_release(shared);
    }
    // Leases are granted without a break when the council need not find out that its leader is gone.
    let _ = driver.retire().recv_timeout(Duration::from_millis(RETIRE_MS));
}

/// What a primary that is to end has to expect.
#[derive(Debug, PartialEq, Eq)]
enum Outlook {
    /// Another member is primary.
    Succeeded,
    Open,
    /// There is nobody who could take over: its replicas may be ending, too.
    Vain,
}

impl Outlook {
    /// A successor cuts its link as soon as it is promoted, ahead of the council's answer to us: while clients are held the
    /// handover is under way, and who is followed by nobody still has a successor to send them to. (A primary that went by its
    /// links alone ended at once, with held clients unanswered: `local_primary_ended_hands_over`, 1 run of 14 on busy cores.)
    fn of(leads: bool, holds: bool, is_followed: bool) -> Outlook {
        match (leads, holds || is_followed) {
            (false, _) => Outlook::Succeeded,
            (true, true) => Outlook::Open,
            (true, false) => Outlook::Vain,
        }
    }
}

fn hand_over(engine: &Engine, driver: &Handle) {
    let shared = &engine.shared;
    let until = clock::monotonic_ms() + LEAVE_MS;
    let mut answer = driver.leave();
    let is_over = || clock::monotonic_ms() >= until;
    let outlook = || {
        let leads = lock(&engine.now).role == Role::Primary;
        let is_followed = shared.replication.peers().iter().any(|p| p.is_online());
        Outlook::of(leads, shared.hold.is_on(), is_followed)
    };
    while !is_over() {
        match outlook() {
            Outlook::Succeeded => return await_successor(shared, is_over),
            Outlook::Vain => break,
            Outlook::Open => {}
        }
        match answer.recv_timeout(Duration::from_millis(20)) {
            Ok(Ok(_)) => return await_successor(shared, is_over),
            Ok(Err(why)) => {
                tracing::info!(why, "nobody takes over yet");
                std::thread::sleep(Duration::from_millis(50));
                answer = driver.leave();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
    tracing::warn!("no replica took over: the shard fails over when this process is gone");
}

/// The primary waits for whoever is in the in-sync set: who is about to end is let go first, if there are enough others.
fn await_release(shared: &Shared) {
    let until = clock::monotonic_ms() + RELEASE_MS;
    let is_awaited = || {
        let view = shared.cluster.view();
        let shard = view.my_shard();
        shard.is_some_and(|s| {
            s.in_sync.contains_key(&view.my_id) && s.in_sync.len() > shared.quorum.min_in_sync()
        })
    };
    while is_awaited() && clock::monotonic_ms() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Another member was made primary: clients are held until it acts, and sent to it for a while.
fn await_successor(shared: &Shared, is_over: impl Fn() -> bool) {
    while shared.hold.is_on() && !is_over() {
        std::thread::sleep(Duration::from_millis(5));
    }
    tracing::info!("another member is primary");
    let view = shared.cluster.view();
    let shard = view.me().and_then(|me| me.shard);
    // Whoever follows no redirection can be served only where one shard has all.
    if let Some(primary) = shard.and_then(|s| view.primary_of(s))
        && view.topology.shards.len() == 1
    {
        let (number, seconds) = (view.topology.epoch, LINGER_MS.div_ceil(1000));
        shared.notify(|by_tls| {
            let (host, port) = (primary.host.clone(), primary.client_port(by_tls));
            vec![Notice::Moving { number, seconds, host, port }]
        });
    }
    std::thread::sleep(Duration::from_millis(LINGER_MS));
}

#[cfg(test)]
mod tests {
    use super::Outlook;

    #[test]
    fn a_primary_whose_successor_has_left_it_stays_until_clients_can_be_sent_on() {
        // While the successor follows, after it was promoted and cut its link, and once we know of it.
        assert_eq!(Outlook::of(true, true, true), Outlook::Open);
        assert_eq!(Outlook::of(true, true, false), Outlook::Open);
        assert_eq!(Outlook::of(false, true, false), Outlook::Succeeded);
        assert_eq!(Outlook::of(false, false, true), Outlook::Succeeded);
    }

    #[test]
    fn a_primary_without_replicas_does_not_wait_for_a_successor() {
        assert_eq!(Outlook::of(true, false, true), Outlook::Open);
        assert_eq!(Outlook::of(true, false, false), Outlook::Vain);
    }
}
