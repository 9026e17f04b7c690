//! Starting a server: settings, listeners, threads.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use mio::{Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::acl::Acl;
use crate::clock;
use crate::cluster::ClusterState;
use crate::command::{self, info::LARDER_VERSION};
use crate::config::Config;
use crate::disk::Disk;
use crate::event_loop::{EventLoop, WAKER};
use crate::forward::Forwarding;
use crate::hold::Hold;
use crate::huge_pages;
use crate::journal::Journal;
use crate::keyspace::Keyspace;
use crate::memcached::{Memcached, Users};
use crate::moves::{self, Moves};
use crate::persist::{self, Persist, start::Goodbye};
use crate::pubsub::PubSub;
use crate::quorum::Quorum;
use crate::replication::{self, Replication};
use crate::script::Scripts;
use crate::server::{Clients, LoopHandle, Shared, Slowlog, State, Stats};
use crate::snapshot::Snapshots;
use crate::tls::{self, Tls};
use crate::waiters::Waiters;
use crate::{listeners, managed, random};

/// Stack of an event loop, bytes: a script's nested calls lie on it, up to 200 of them between the languages.
const LOOP_STACK_BYTES: usize = 16 << 20;

/// Starts a server that persists on `disk`, and runs it until it is shut down.
pub fn run(config: Config, disk: Arc<dyn Disk>) -> io::Result<()> {
    let threads = usize::try_from(config.int("io-threads", 1)).unwrap_or(1).clamp(1, 64);
    let port = config.int("port", 6379) as u16;
    let managed = config.is_yes("larder-managed");
    tracing::info!(
        "larder-server v={LARDER_VERSION} starting, port {port}, PID: {}",
        std::process::id()
    );
    command::set_renames(&config.renames);
    let tls = Tls::open(&config)?;
    let (by_tls, mut listeners): (Vec<_>, Vec<_>) =
        listeners::listen_all(&config)?.into_iter().partition(|listener| listener.by_tls);
    let (shared, polls) = share(config, disk, tls, threads)?;
    // Until the data set is there nobody may write to it: said before the first client is accepted.
    shared.state.loading.store(true, Ordering::Release);
    crate::admin::start(&shared)?;
    if shared.is_unmanaged() {
        await_topology(&shared);
    }
    let (ended, ends) = std::sync::mpsc::channel();
    for (index, poll) in polls.into_iter().enumerate() {
        let event_loop =
            EventLoop::new(index, shared.clone(), poll, std::mem::take(&mut listeners))?;
        let ended = ended.clone();
        let run = move || {
            let end = std::panic::catch_unwind(AssertUnwindSafe(|| event_loop.run()));
            // Nobody listens any more when another loop's end has ended the server.
            let _ = ended.send(end);
        };
        let thread = std::thread::Builder::new().name(format!("loop-{index}"));
        thread.stack_size(LOOP_STACK_BYTES).spawn(run)?;
    }
    drop(ended);
    tls::lane::start(&shared, by_tls)?;
    if let Err(error) = persist::start::start(&shared) {
        shared.state.shutdown.store(true, Ordering::Release);
        shared.wake_loops();
        return Err(io::Error::other(error));
    }
    shared.state.loading.store(false, Ordering::Release);
    shared.state.started.store(true, Ordering::Release);
    end_on_signals(&shared)?;
    huge_pages::start(&shared)?;
    replication::start(&shared);
    if shared.has_council() {
        moves::start(&shared)?;
    }
    tracing::info!(threads, managed, "Server initialized");
    tracing::info!("Ready to accept connections tcp");
    // The first loop that fails ends the server: half a server would look alive and serve nobody.
    for end in ends {
        end.map_err(|_| io::Error::other("an event loop panicked"))??;
    }
    Ok(())
}

/// What the threads of a server share, before there are any; and what each of its loops will wait at.
pub fn share(
    config: Config,
    disk: Arc<dyn Disk>,
    tls: Tls,
    loops: usize,
) -> io::Result<(Arc<Shared>, Vec<Poll>)> {
    let databases = config.int("databases", 16).clamp(1, 16) as u16;
    let managed = config.is_yes("larder-managed");
    let users = match config.get("memcached-auth-file").filter(|path| !path.is_empty()) {
        Some(path) => Users::read(&path)?,
        None => Users::default(),
    };
    let cluster = ClusterState::new(config.is_yes("cluster-enabled"), managed, random::hex(40));
    let polls: Vec<Poll> = (0..loops).map(|_| Poll::new()).collect::<io::Result<_>>()?;
    let handles = polls
        .iter()
        .map(|poll| {
            let waker = Waker::new(poll.registry(), Token(WAKER))?;
            let (held, held_slots) = (AtomicU64::new(0), AtomicU64::new(0));
            Ok(LoopHandle { mail: Mutex::default(), waker, held, held_slots })
        })
        .collect::<io::Result<_>>()?;
    let by_quorum = managed && config.get("larder-durability").is_some_and(|d| d == "quorum");
    let quorum = Quorum::new(by_quorum, config.int("larder-min-in-sync", 0).max(0) as usize);
    let acl = Acl::from_config(&config).map_err(io::Error::other)?;
    let shared = Shared {
        config,
        acl,
        tls,
        disk,
        keyspace: Keyspace::new(databases),
        journal: Journal::default(),
        waiters: Waiters::default(),
        forwarding: Forwarding::default(),
        pubsub: PubSub::default(),
        monitors: crate::monitor::Monitors::default(),
        maintenance: crate::maintenance::Maintenance::default(),
        tracking: crate::tracking::Tracking::default(),
        clients: Clients::default(),
        stats: Stats::new(loops),
        slowlog: Slowlog::default(),
        large_requests: Slowlog::default(),
        large_replies: Slowlog::default(),
        latency: crate::latency::Latency::default(),
        scripts: Scripts::default(),
        loops: handles,
        preimages: RwLock::new(None),
        snapshotting: AtomicBool::new(false),
        snapshots: Snapshots::default(),
        persist: Persist::default(),
        replication: Replication::default(),
        state: State::default(),
        hold: Hold::default(),
        moves: Moves::default(),
        quorum,
        memcached: Memcached::new(loops + 2, users),
        managed: OnceLock::new(),
        cluster,
        run_id: random::hex(40),
        started_ms: clock::unix_ms(),
    };
    Ok((Arc::new(shared), polls))
}

/// A member without an operator knows its cluster from its disk, or is one by itself: its first client is to find
/// that in CLUSTER NODES, and waits for it no longer than this, milliseconds.
const TOPOLOGY_MS: u64 = 5_000;

fn await_topology(shared: &Shared) {
    let until_ms = clock::monotonic_ms() + TOPOLOGY_MS;
    let is_over = || clock::monotonic_ms() >= until_ms;
    while shared.cluster.view().topology.epoch == 0
        && !shared.state.shutdown.load(Ordering::Acquire)
        && !is_over()
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// SIGTERM and SIGINT end the server as SHUTDOWN does; at SIGTERM, when this one process is to go, a managed
/// primary hands over first. SIGHUP has certificates read anew.
fn end_on_signals(shared: &Arc<Shared>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let shared = shared.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                // The log has what does not fit.
                let _ = shared.tls.reload(&shared.config);
                continue;
            }
            tracing::info!(signal, "asked to end");
            if signal == SIGTERM {
                managed::leave(&shared);
            }
            if persist::start::shut_down(&shared, Goodbye::AsConfigured, false).is_ok() {
                return;
            }
        }
    })?;
    Ok(())
}
