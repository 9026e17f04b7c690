//! The link to our primary: handshake, full or partial sync, the stream, acknowledgements.
//!
//! The old data set is kept until a full sync has arrived whole and was read to its end once: what a
//! broken transfer or a wrong file cannot replace, it does not touch.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;

use super::fresh::Note;
use super::payload::Wire;
use super::peer::Peer;
use super::{Ids, begin_history, is_replid, load, lock, seconds_since};
use crate::clock;
use crate::persist::{self, load as loading};
use crate::resp::{Decoder, Limits, Reply};
use crate::server::Shared;
use crate::session::Session;
use crate::stream::Stream;
use crate::tally::Tally;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a link looks whether the server has loaded its data, milliseconds.
const START_MS: u64 = 2;
/// Time before the next try, milliseconds: doubled up to the most.
const RETRY_MS: u64 = 10;
const RETRY_MS_MAX: u64 = 2000;
/// Longest wait for the disk before an acknowledgement says how far it is, milliseconds.
const DISK_MS: u64 = 1000;
/// Longest request of the stream, bytes: what a client could have sent to the primary.
const REQUEST_BYTES_MAX: usize = 1 << 30;

const CONNECT: u8 = 0;
const CONNECTING: u8 = 1;
const SYNC: u8 = 2;
const CONNECTED: u8 = 3;

/// The wish to follow a primary, and how far it has come.
pub(super) struct Link {
    pub(super) host: String,
    pub(super) port: u16,
    state: AtomicU8,
    stopped: AtomicBool,
    stream: Mutex<Option<Stream>>,
    wake: (Mutex<()>, Condvar),
    last_io_ms: AtomicI64,
    down_since_ms: AtomicI64,
    /// The data set is being replaced: it is neither the old one nor the new one.
    replacing: AtomicBool,
    takeover: Mutex<Takeover>,
}

/// Whether the other one is asked to be primary from now on, by PSYNC with FAILOVER, and what became of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takeover {
    None,
    Asked,
    Done,
    /// It did not answer, or refused; the link has ended.
    Refused,
}

/// Figures for INFO replication and ROLE.
#[derive(Clone, Debug, Default)]
pub struct LinkInfo {
    pub host: String,
    pub port: u16,
    pub up: bool,
    pub syncing: bool,
    /// `connect`, `connecting`, `sync` or `connected`.
    pub state: &'static str,
    pub last_io_s: i64,
    /// Seconds since the link broke; -1 while it is up.
    pub down_s: i64,
    pub offset: u64,
}

impl Link {
    fn new(host: &str, port: u16, takeover: Takeover) -> Link {
        Link {
            host: host.to_string(),
            port,
            state: AtomicU8::new(CONNECT),
            stopped: AtomicBool::new(false),
            stream: Mutex::default(),
            wake: (Mutex::default(), Condvar::new()),
            last_io_ms: AtomicI64::new(0),
            down_since_ms: AtomicI64::new(clock::unix_ms()),
            replacing: AtomicBool::new(false),
            takeover: Mutex::new(takeover),
        }
    }

    /// Whether the other one was asked to take over, and what it said.
    pub(super) fn takeover(&self) -> Takeover {
        *lock(&self.takeover)
    }

    /// Host and port of the primary.
    pub(super) fn address(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(stream) = &*lock(&self.stream) {
            // It may be gone already.
            let _ = stream.shutdown();
        }
        self.wake.1.notify_all();
    }

    pub(super) fn is_up(&self) -> bool {
        load(&self.state) == CONNECTED
    }

    pub(super) fn info(&self, shared: &Shared) -> LinkInfo {
        let state = load(&self.state);
        let now = clock::unix_ms();
        let up = state == CONNECTED;
        LinkInfo {
            host: self.host.clone(),
            port: self.port,
            up,
            syncing: state == SYNC,
            state: ["connect", "connecting", "sync", "connected"][state as usize],
            last_io_s: if up { seconds_since(&self.last_io_ms, now) } else { -1 },
            down_s: if up { -1 } else { seconds_since(&self.down_since_ms, now) },
            offset: shared.journal.end(),
        }
    }
}

/// Follows a primary from now on: writes of clients are refused, its data set becomes ours.
pub fn follow(shared: &Arc<Shared>, host: &str, port: u16) {
    let replication = &shared.replication;
    let link = Arc::new(Link::new(host, port, Takeover::None));
    {
        let mut current = lock(&replication.link);
        if let Some(old) = &*current {
            if (old.host.as_str(), old.port) == (host, port) && !old.is_stopped() {
                return;
            }
            old.stop();
        }
        *current = Some(link.clone());
    }
    {
        // What was applied last counts; no client's write comes behind it.
        let _applying = replication.applying();
        let _locked = shared.keyspace.lock_all();
        if !shared.state.is_replica.swap(true, Ordering::AcqRel) {
            let db = shared.journal.db().unwrap_or(0);
            if shared.journal.is_active() && replication.was_primary.load(Ordering::Acquire) {
                replication.stream_db.store(u64::from(db), Ordering::Relaxed);
            }
        }
    }
    start(shared, &link);
}

/// Ends to be primary, under all locks and if `has_all` still holds then, and follows the replica once it has taken
/// over, which it is asked for. `None`: it did not hold any more.
pub(super) fn give_way(
    shared: &Arc<Shared>,
    replica: &Peer,
    has_all: impl Fn() -> bool,
) -> Option<Arc<Link>> {
    let replication = &shared.replication;
    let (host, port) = replica.place();
    let link = Arc::new(Link::new(host, port, Takeover::Asked));
    {
        let _applying = replication.applying();
        let _locked = shared.keyspace.lock_all();
        if !has_all() || shared.state.is_replica.swap(true, Ordering::AcqRel) {
            return None;
        }
        let db = shared.journal.db().unwrap_or(0);
        replication.stream_db.store(u64::from(db), Ordering::Relaxed);
        *lock(&replication.link) = Some(link.clone());
    }
    start(shared, &link);
    Some(link)
}

fn start(shared: &Arc<Shared>, link: &Arc<Link>) {
    shared.redirect_blocked(Some(
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    ));
    tracing::info!(host = link.host, port = link.port, "following a primary");
    let (with, thread) = (shared.clone(), link.clone());
    let spawned =
        std::thread::Builder::new().name("link".into()).spawn(move || run(&with, &thread));
    if let Err(e) = spawned {
        tracing::error!(error = %e, "cannot start the thread of the link to the primary");
        link.stop();
    }
}

/// Follows nobody and serves no writes: who is primary is not known.
pub fn rest(shared: &Shared) {
    let replication = &shared.replication;
    if let Some(link) = lock(&replication.link).take() {
        link.stop();
    }
    let _applying = replication.applying();
    let _locked = shared.keyspace.lock_all();
    shared.state.is_replica.store(true, Ordering::Release);
}

/// Gives the data set up, and its history: what comes next is empty. Nobody is followed, and no client writes.
pub fn begin_anew(shared: &Shared) {
    let replication = &shared.replication;
    let _applying = replication.applying();
    shared.state.loading.store(true, Ordering::Release);
    replication.cut_peers();
    if let Some(running) = shared.persist.aof() {
        running.suspend();
    }
    replication.fresh.forget();
    loading::empty(shared);
    shared.journal.reset(0);
    shared.journal.set_active(true);
    replication.set_ids(Ids { replid: super::random_id(), former: None });
    replication.stream_db.store(0, Ordering::Relaxed);
    replication.was_primary.store(false, Ordering::Release);
    persist::take_lineage(shared, None);
    shared.state.loading.store(false, Ordering::Release);
}

/// Becomes a primary with a history of its own. The error says why the data set must not be served.
pub fn promote(shared: &Arc<Shared>) -> Result<(), String> {
    let replication = &shared.replication;
    let link = lock(&replication.link).take();
    if let Some(link) = &link {
        link.stop();
    }
    let _applying = replication.applying();
    if link.is_some_and(|link| link.replacing.load(Ordering::Acquire)) {
        return Err("ERR the data set is being replaced by a full sync that is not complete".into());
    }
    let _locked = shared.keyspace.lock_all();
    if shared.state.is_replica.swap(false, Ordering::AcqRel)
        || !replication.was_primary.load(Ordering::Acquire)
    {
        begin_history(shared);
        shared.reset_quorum();
        tracing::info!(replid = replication.replid(), "promoted");
    }
    Ok(())
}

fn run(shared: &Arc<Shared>, link: &Link) {
    let mut pause = RETRY_MS;
    let ends = || link.is_stopped() || shared.state.shutdown.load(Ordering::Acquire);
    // A member knows its primary before its own data is loaded. What is on disk must not come on top of what
    // the primary sends. see: `a_replica_that_restarts_loads_its_data_before_it_follows`
    while !shared.state.started.load(Ordering::Acquire) && !ends() {
        std::thread::sleep(Duration::from_millis(START_MS));
    }
    while !link.is_stopped() && !shared.state.shutdown.load(Ordering::Acquire) {
        link.state.store(CONNECTING, Ordering::Release);
        let result = (Attempt { shared, link }).run();
        let was_up = link.state.swap(CONNECT, Ordering::AcqRel) == CONNECTED;
        *lock(&link.stream) = None;
        if was_up {
            link.down_since_ms.store(clock::unix_ms(), Ordering::Relaxed);
            pause = RETRY_MS;
        }
        if link.is_stopped() {
            break;
        }
        if link.takeover() == Takeover::Asked {
            // Whoever asked decides what comes next: a replica that is none may not be followed.
            if let Err(error) = result {
                tracing::warn!(host = link.host, port = link.port, %error, "the replica does not take over");
            }
            *lock(&link.takeover) = Takeover::Refused;
            break;
        }
        if let Err(e) = result {
            tracing::info!(host = link.host, port = link.port, error = %e, "link to the primary is down");
        }
        let guard = lock(&link.wake.0);
        let wait = link.wake.1.wait_timeout(guard, Duration::from_millis(pause));
        drop(wait.unwrap_or_else(PoisonError::into_inner));
        pause = (pause * 2).min(RETRY_MS_MAX);
    }
}

/// One connection to the primary.
struct Attempt<'s> {
    shared: &'s Arc<Shared>,
    link: &'s Link,
}

/// What PSYNC was answered.
enum Answer {
    Continue(Option<String>),
    Full(String, u64),
}

impl Attempt<'_> {
    fn run(&self) -> io::Result<()> {
        let mut wire = self.connect()?;
        let vouches = self.introduce(&mut wire)?;
        let diverged = self.ask_divergence(&mut wire)?;
        let session = match self.psync(&mut wire)? {
            Answer::Continue(replid) => {
                self.resume(replid)?;
                let mut session = loading::session(&self.address());
                session.select(self.shared.replication.stream_db.load(Ordering::Relaxed) as u16);
                session
            }
            Answer::Full(replid, offset) => self.full(&mut wire, &replid, offset, diverged)?,
        };
        self.link.state.store(CONNECTED, Ordering::Release);
        self.link.last_io_ms.store(clock::unix_ms(), Ordering::Relaxed);
        self.shared.replication.was_primary.store(false, Ordering::Release);
        tracing::info!(host = self.link.host, port = self.link.port, "in sync with the primary");
        self.stream(&mut wire, session, vouches)
    }

    fn address(&self) -> String {
        format!("{}:{}", self.link.host, self.link.port)
    }

    fn connect(&self) -> io::Result<Wire> {
        let config = &self.shared.config;
        let tls = match config.is_yes("tls-replication") {
            true => Some(self.shared.tls.dialling(config)?),
            false => None,
        };
        let (host, port) = (&self.link.host, self.link.port);
        let known = self.shared.connected_at(host, port);
        let stream = Stream::dial(host, port, known, tls, CONNECT_TIMEOUT)?;
        stream.as_a_replica()?;
        *lock(&self.link.stream) = Some(stream.clone());
        if self.link.is_stopped() {
            return Err(io::Error::other("no longer wanted"));
        }
        let timeout = config.int("repl-timeout", 60).max(1) as u64;
        Wire::new(stream, timeout * 1000)
    }

    fn ask(&self, wire: &mut Wire, args: &[&str]) -> io::Result<String> {
        wire.request(args)?;
        wire.line(&|| self.link.is_stopped())
    }

    /// Tells who we are; gives whether the primary vouches for how current its stream is.
    fn introduce(&self, wire: &mut Wire) -> io::Result<bool> {
        let config = &self.shared.config;
        let pong = self.ask(wire, &["PING"])?;
        let known = ["+PONG", "-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
        if !known.iter().any(|k| pong.starts_with(k)) {
            return Err(io::Error::other(format!("PING was answered {pong:?}")));
        }
        let password = config.get("masterauth").unwrap_or_default();
        if !password.is_empty() {
            let user = config.get("masteruser").unwrap_or_default();
            let answer = if user.is_empty() {
                self.ask(wire, &["AUTH", &password])?
            } else {
                self.ask(wire, &["AUTH", &user, &password])?
            };
            if !answer.starts_with('+') {
                return Err(io::Error::other(format!("AUTH was answered {answer:?}")));
            }
        }
        let announced = config.int("replica-announce-port", 0);
        let port = match announced {
            0 => i64::from(config.own_port(config.is_yes("tls-replication"))),
            port => port,
        };
        let port = port.to_string();
        // What the primary does not know it answers with an error, and that is all right.
        self.ask(wire, &["REPLCONF", "listening-port", &port])?;
        if let Some(ip) = config.get("replica-announce-ip").filter(|ip| !ip.is_empty()) {
            self.ask(wire, &["REPLCONF", "ip-address", &ip])?;
        }
        self.ask(wire, &["REPLCONF", "capa", "eof", "capa", "psync2"])?;
        let me = self.shared.cluster.view().my_id.clone();
        if self.shared.managed.get().is_some() {
            self.ask(wire, &["REPLCONF", "larder-member", &me])?;
            self.ask(wire, &["REPLCONF", "larder-boot", self.shared.cluster.boot()])?;
        }
        self.ask(wire, &["REPLCONF", "version", "9.1.0"])?;
        Ok(self.ask(wire, &["REPLCONF", "larder-clock", "0"])?.starts_with('+'))
    }

    /// Asks one of our kind up to where our history is its own too: what is behind is lost if it must be.
    fn ask_divergence(&self, wire: &mut Wire) -> io::Result<Option<u64>> {
        let replication = &self.shared.replication;
        if !replication.was_primary.load(Ordering::Acquire) || !self.shared.journal.is_active() {
            return Ok(None);
        }
        let answer = self.ask(wire, &["REPLCONF", "larder-common", &replication.replid()])?;
        Ok(answer.strip_prefix('+').and_then(|n| n.parse().ok()))
    }

    fn psync(&self, wire: &mut Wire) -> io::Result<Answer> {
        let shared = self.shared;
        let end = shared.journal.end();
        let replid = shared.replication.replid();
        let asks = self.link.takeover() == Takeover::Asked;
        // Without a journal the offset says nothing of the data set, and 0 is where everybody begins; but who gives a
        // history away that nobody has written in has it.
        let known = shared.journal.is_active() && (end > 0 || asks);
        let next = (end + 1).to_string();
        let wants = if known { [replid.as_str(), &next] } else { ["?", "-1"] };
        let answer = if asks {
            self.ask(wire, &["PSYNC", wants[0], wants[1], "FAILOVER"])?
        } else {
            self.ask(wire, &["PSYNC", wants[0], wants[1]])?
        };
        if asks && (answer.starts_with("+CONTINUE") || answer.starts_with("+FULLRESYNC")) {
            *lock(&self.link.takeover) = Takeover::Done;
        }
        if let Some(rest) = answer.strip_prefix("+CONTINUE") {
            let id = rest.trim();
            return match id {
                "" => Ok(Answer::Continue(None)),
                id if is_replid(id) => Ok(Answer::Continue(Some(id.to_string()))),
                _ => Err(io::Error::other("CONTINUE with something that is no ID")),
            };
        }
        if let Some(rest) = answer.strip_prefix("+FULLRESYNC ") {
            let mut words = rest.split_whitespace();
            let replid = words.next().filter(|id| is_replid(id));
            let offset = words.next().and_then(|n| n.parse().ok());
            if let (Some(replid), Some(offset)) = (replid, offset) {
                return Ok(Answer::Full(replid.to_string(), offset));
            }
        }
        Err(io::Error::other(format!("PSYNC was answered {answer:?}")))
    }

    /// The stream goes on where our journal ends.
    fn resume(&self, replid: Option<String>) -> io::Result<()> {
        let replication = &self.shared.replication;
        let ids = replication.ids();
        let Some(replid) = replid.filter(|id| *id != ids.replid) else { return Ok(()) };
        let _applying = replication.applying();
        let _locked = self.shared.keyspace.lock_all();
        if self.link.is_stopped() {
            return Err(io::Error::other("no longer wanted"));
        }
        let end = self.shared.journal.end();
        replication.set_ids(Ids { replid: replid.clone(), former: Some((ids.replid, end)) });
        if let Some(running) = self.shared.persist.aof() {
            running.remark(end, persist::position::line(&replid, end));
        }
        // Our own replicas learn of the new history when they ask again.
        replication.cut_peers();
        Ok(())
    }

    /// Takes the primary's whole data set.
    fn full(
        &self,
        wire: &mut Wire,
        replid: &str,
        offset: u64,
        diverged: Option<u64>,
    ) -> io::Result<Session> {
        let shared = self.shared;
        if !shared.may_full_sync(replid, offset) {
            return Err(io::Error::other("the primary's data set may not replace ours"));
        }
        self.link.state.store(SYNC, Ordering::Release);
        let folder = PathBuf::from(shared.config.get("dir").unwrap_or_else(|| ".".into()));
        let path = folder.join(format!("temp-full-{}.rdb", std::process::id()));
        let spooled = Spool::receive(&path, wire, &|| self.link.is_stopped())?;
        let mut beat = Beat { stream: wire.stream.clone(), next_ms: 0 };
        loading::verify(shared, spooled.open()?, |_| beat.beat()).map_err(io::Error::other)?;
        let origin = self.replace(&spooled, replid, offset, diverged, &mut beat)?;
        tracing::info!(keys = origin.keys, replid, offset, "full sync loaded");
        self.acknowledge(wire)?;
        let mut session = loading::session(&self.address());
        session.select(origin.db);
        Ok(session)
    }

    fn replace(
        &self,
        spooled: &Spool,
        replid: &str,
        offset: u64,
        diverged: Option<u64>,
        beat: &mut Beat,
    ) -> io::Result<loading::Origin> {
        let shared = self.shared;
        let replication = &shared.replication;
        // Everything else that looks at the journal's place waits: snapshots, promotion.
        let _applying = replication.applying();
        if self.link.is_stopped() {
            return Err(io::Error::other("no longer wanted"));
        }
        self.link.replacing.store(true, Ordering::Release);
        shared.state.loading.store(true, Ordering::Release);
        self.count_dropped(diverged);
        replication.cut_peers();
        if let Some(running) = shared.persist.aof() {
            running.suspend();
        }
        replication.fresh.forget();
        loading::empty(shared);
        let loaded = loading::snapshot(shared, spooled.open()?, true, |_| beat.beat());
        let failed = loaded.as_ref().err().cloned();
        if failed.is_some() {
            loading::empty(shared);
        }
        let origin = loaded.unwrap_or_default();
        let (replid, offset) = match failed {
            None => (replid.to_string(), offset),
            Some(_) => (super::random_id(), 0),
        };
        shared.journal.reset(offset);
        shared.journal.set_active(true);
        replication.set_ids(Ids { replid, former: None });
        replication.stream_db.store(u64::from(origin.db), Ordering::Relaxed);
        persist::take_lineage(shared, origin.lineage.clone());
        shared.state.dirty.add(Tally::ANY_THREAD, origin.keys as i64);
        shared.state.loading.store(false, Ordering::Release);
        self.link.replacing.store(false, Ordering::Release);
        match failed {
            None => Ok(origin),
            Some(e) => Err(io::Error::other(e)),
        }
    }

    /// What a former primary had acknowledged and now gives up.
    fn count_dropped(&self, diverged: Option<u64>) {
        let shared = self.shared;
        let replication = &shared.replication;
        if !replication.was_primary.swap(false, Ordering::AcqRel) || !shared.journal.is_active() {
            return;
        }
        let end = shared.journal.end();
        let from = diverged.unwrap_or_else(|| shared.journal.start()).min(end);
        if from == end {
            return;
        }
        let mut bytes = Vec::new();
        let kept = shared.journal.read(from, usize::MAX, &mut bytes);
        let writes = if kept { count_writes(&bytes) } else { 0 };
        replication.dropped_bytes.fetch_add(end - from, Ordering::Relaxed);
        replication.dropped_writes.fetch_add(writes, Ordering::Relaxed);
        tracing::warn!(bytes = end - from, writes, "dropped what the new primary does not have");
    }

    fn acknowledge(&self, wire: &mut Wire) -> io::Result<()> {
        let offset = self.shared.journal.end().to_string();
        let running = self.shared.persist.aof();
        match running {
            Some(_) => {
                let durable = self.shared.state.durable_offset.load(Ordering::Acquire);
                let durable = durable.min(self.shared.journal.end()).to_string();
                wire.request(&["REPLCONF", "ACK", &offset, "FACK", &durable])
            }
            None => wire.request(&["REPLCONF", "ACK", &offset]),
        }
    }

    /// With `appendfsync always`: until what was applied is on disk, bounded.
    fn await_disk(&self) {
        let state = &self.shared.state;
        let (end, until) = (self.shared.journal.end(), clock::monotonic_ms() + DISK_MS);
        while state.acks_wait_for_disk.load(Ordering::Acquire)
            && state.durable_offset.load(Ordering::Acquire) < end
            && clock::monotonic_ms() < until
            && !self.link.is_stopped()
        {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The stream, for as long as the link holds.
    /// `vouches`: told our clock, the primary says of when all that it sent is.
    fn stream(&self, wire: &mut Wire, mut session: Session, vouches: bool) -> io::Result<()> {
        let shared = self.shared;
        let fresh = &shared.replication.fresh;
        fresh.begin();
        let mut next_clock_ms = if vouches { 0 } else { u64::MAX };
        let mut executor = loading::executor(shared);
        let mut reply = Reply::new(Vec::new(), false);
        let mut decoder = Decoder::default();
        let limits = Limits { authenticated: true, bulk_bytes_max: REQUEST_BYTES_MAX };
        let timeout_ms = shared.config.int("repl-timeout", 60).max(1) as u64 * 1000;
        let mut heard_ms = clock::monotonic_ms();
        let mut next_ack_ms = 0;
        // Bytes of the buffer that were run but belong to a transaction that is not whole yet.
        let mut held = 0;
        loop {
            executor.env.now_ms = clock::unix_ms();
            let mut wanted = false;
            let mut note = None;
            let end_before = shared.journal.end();
            {
                let _applying = shared.replication.applying();
                if self.link.is_stopped() {
                    return Ok(());
                }
                let (mut at, mut whole) = (held, 0);
                while let Some(end) =
                    decoder.next(&wire.buffer, at, limits).map_err(io::Error::other)?
                {
                    let buffer = &wire.buffer;
                    let args: SmallVec<[&[u8]; 8]> =
                        decoder.args.iter().map(|(a, b)| &buffer[*a..*b]).collect();
                    let word = |i: usize, w: &str| {
                        args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(w.as_bytes()))
                    };
                    if vouches && word(0, "replconf") && word(1, "larder-current") {
                        // No part of the stream: it is cut out, and what follows takes its place.
                        note = Note::parse(&args[2..]).or(note);
                        drop(args);
                        wire.buffer.drain(at..end);
                        continue;
                    }
                    if word(0, "replconf") {
                        wanted |= word(1, "getack");
                    } else if !args.is_empty() {
                        let errors = reply.errors;
                        loading::execute(&mut executor, &mut session, &mut reply, &args);
                        if reply.errors > errors {
                            complain(args[0], &reply.out);
                        }
                    }
                    at = end;
                    if session.queue.is_none() {
                        whole = at;
                    }
                }
                if whole > 0 {
                    shared.replication.stream_db.store(u64::from(session.db), Ordering::Relaxed);
                    shared.journal.append_raw(&wire.buffer[..whole], session.db);
                    wire.buffer.drain(..whole);
                    decoder.shift_to_request(whole);
                }
                held = at - whole;
            }
            if let Some(note) = note {
                fresh.take(note, shared.journal.end(), clock::monotonic_ms());
            }
            // Clients of the primary wait for us: told at once, and once it is on disk where that counts.
            if shared.quorum.is_configured() && shared.journal.end() > end_before {
                wanted = true;
                self.await_disk();
            }
            let now = clock::monotonic_ms();
            if wanted || now >= next_ack_ms {
                next_ack_ms = now + 1000;
                self.acknowledge(wire)?;
            }
            if now >= next_clock_ms {
                let period = fresh.period_ms(shared.config.max_staleness_ms());
                next_clock_ms = now + period;
                wire.request(&["REPLCONF", "larder-clock", &now.to_string()])?;
                // Looked at again by then, whatever comes.
                wire.stream.set_read_timeout(Some(Duration::from_millis(period)))?;
            }
            if wire.buffer.len() > 2 * REQUEST_BYTES_MAX {
                return Err(io::Error::other("the primary sent a request that is too long"));
            }
            if wire.fill()? {
                heard_ms = clock::monotonic_ms();
                self.link.last_io_ms.store(clock::unix_ms(), Ordering::Relaxed);
            } else if clock::monotonic_ms() - heard_ms > timeout_ms {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the primary is silent"));
            }
        }
    }
}

/// The primary ran a request that we cannot: the data sets differ from here on.
fn complain(name: &[u8], reply: &[u8]) {
    tracing::error!(
        command = %String::from_utf8_lossy(&name[..name.len().min(64)]),
        error = %String::from_utf8_lossy(&reply[..reply.len().min(200)]).trim(),
        "a request of the primary failed here"
    );
}

/// Requests in a piece of the journal that changed data.
fn count_writes(bytes: &[u8]) -> u64 {
    let mut decoder = Decoder::default();
    let limits = Limits { authenticated: true, bulk_bytes_max: REQUEST_BYTES_MAX };
    let (mut at, mut writes) = (0, 0);
    while let Ok(Some(end)) = decoder.next(bytes, at, limits) {
        let name = decoder.args.first().map_or(&[][..], |(a, b)| &bytes[*a..*b]);
        let plain: [&[u8]; 5] = [b"select", b"ping", b"multi", b"exec", b"replconf"];
        writes += u64::from(!plain.iter().any(|p| p.eq_ignore_ascii_case(name)));
        at = end;
    }
    writes
}

/// Tells the primary now and then that we are still loading.
struct Beat {
    stream: Stream,
    next_ms: u64,
}

impl Beat {
    fn beat(&mut self) {
        let now = clock::monotonic_ms();
        if now >= self.next_ms {
            self.next_ms = now + 1000;
            // A link that broke is noticed when loading is over.
            let _ = self.stream.write_all(b"\n");
        }
    }
}

/// A full sync on disk, gone when it is dropped.
struct Spool(PathBuf);

impl Spool {
    fn receive(
        path: &std::path::Path,
        wire: &mut Wire,
        stopped: &dyn Fn() -> bool,
    ) -> io::Result<Spool> {
        use std::os::unix::fs::OpenOptionsExt;
        let _ = std::fs::remove_file(path);
        let mut file =
            std::fs::File::options().create_new(true).write(true).mode(0o600).open(path)?;
        let spool = Spool(path.to_path_buf());
        wire.snapshot(&mut file, stopped)?;
        Ok(spool)
    }

    fn open(&self) -> io::Result<std::fs::File> {
        std::fs::File::open(&self.0)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // It may not be there at all.
        let _ = std::fs::remove_file(&self.0);
    }
}
