//! One thread: reads every ready connection, executes, then writes once per connection.
//!
//! ```text
//! give way -> poll -> mail
//!      -> for each ready connection: read -> decode up to BATCH requests -> prefetch -> execute
//!      -> for each connection with replies: one write -> timers
//! ```
//!
//! A connection gets at most TURN_REQUESTS requests a turn, so that a deep pipeline starves nobody.
//! Input is read into one buffer of the thread; only the rest of an incomplete request is kept per
//! connection, and output buffers come from a pool: an idle connection holds neither.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::clock;
use crate::command::exec::{Executor, unwatch};
use crate::config::Hot;
use crate::keyspace::Env;
use crate::listeners::Listener;
use crate::moves::held::Seen;
use crate::resp::Reply;
use crate::server::{Basis, Mail, Shared};
use crate::session::Session;
use ahead::{GROUP, ReadAhead};
use conn::{Conn, READ_BYTES};
use give_way::GiveWay;
use pause::Pause;
use spare::Spare;

mod accept;
mod ahead;
mod batch;
mod busy_turn;
mod conn;
mod give_way;
mod memcached;
mod pause;
mod read;
mod spare;
mod timers;
mod write;

/// Time between two runs of the timers, milliseconds.
const TICK_MS: u64 = 100;

/// A slow-log threshold below this, microseconds, has every command timed.
const QUICK_US: i64 = 1000;

/// Token of the first listener; the others follow.
const LISTENERS: usize = usize::MAX - 64;
/// Token of the waker that `LoopHandle` wakes.
pub const WAKER: usize = LISTENERS - 1;

/// What the kernel has told of one connection or listener.
#[derive(Clone, Copy)]
struct Ready {
    token: usize,
    is_readable: bool,
    is_writable: bool,
    /// The client has closed its side.
    is_closed: bool,
}

impl From<&Event> for Ready {
    #[inline]
    fn from(event: &Event) -> Ready {
        let is_closed = event.is_read_closed();
        Ready {
            token: event.token().0,
            is_readable: event.is_readable() || is_closed || event.is_error(),
            is_writable: event.is_writable(),
            is_closed,
        }
    }
}

pub struct EventLoop {
    index: usize,
    shared: Arc<Shared>,
    poll: Poll,
    listeners: Vec<Listener>,
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    /// For the output of connections; one without any holds none.
    spare: Spare,
    /// Connections with output to write at the end of this turn.
    dirty: Vec<usize>,
    /// Journal offset behind the last write whose reply waits for the log.
    wrote: u64,
    /// Connections with input left over from their turn.
    pending: VecDeque<usize>,
    /// Blocked connections by the time their wait ends.
    deadlines: BTreeSet<(i64, usize)>,
    /// Connections that wait for replicas (WAIT) or for the disk.
    waiting: BTreeSet<usize>,
    hot: Arc<Hot>,
    hot_generation: u64,
    /// Bytes above which a request and a reply are written down.
    large: (usize, usize),
    next_tick_ms: u64,
    next_loop: usize,
    sweep: crate::expiry::Sweep,
    /// Connections that CLIENT PAUSE holds back.
    paused: Vec<usize>,
    /// Who is held back at the moment, as of this turn.
    pause: Pause,
    /// Slots that are about to change their owner, as of this turn.
    held_slots: Seen,
    /// The last connection could not be accepted: the listeners are asked again at each tick, since those
    /// who wait in them cause no further event.
    accept_failed: bool,
    /// What this turn serves, and how far it has come.
    ready: Vec<Ready>,
    next_ready: usize,
    /// What was read of those that come next.
    ahead: ReadAhead,
    /// What came for connections while they were being served (see `busy_turn`).
    missed: Vec<Ready>,
    /// Connections whose requests wait until this loop goes on.
    beside: Vec<usize>,
    /// There may be mail that this loop has been woken for and has not read.
    woken: bool,
}

fn large(hot: &Hot) -> (usize, usize) {
    let bytes = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
    (bytes(hot.large_request_bytes), bytes(hot.large_reply_bytes))
}

impl EventLoop {
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        poll: Poll,
        mut listeners: Vec<Listener>,
    ) -> io::Result<EventLoop> {
        for (at, listener) in listeners.iter_mut().enumerate() {
            let source = listener.socket.source();
            poll.registry().register(source, Token(LISTENERS + at), Interest::READABLE)?;
        }
        let hot = shared.config.hot();
        Ok(EventLoop {
            index,
            hot_generation: shared.config.generation(),
            large: large(&hot),
            hot,
            shared,
            poll,
            listeners,
            conns: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; READ_BYTES],
            spare: Spare::default(),
            dirty: Vec::new(),
            wrote: 0,
            pending: VecDeque::new(),
            deadlines: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next_tick_ms: 0,
            next_loop: 0,
            sweep: crate::expiry::Sweep::default(),
            paused: Vec::new(),
            pause: Pause::Nobody,
            held_slots: Seen::default(),
            accept_failed: false,
            ready: Vec::new(),
            next_ready: 0,
            ahead: ReadAhead::default(),
            missed: Vec::new(),
            beside: Vec::new(),
            woken: false,
        })
    }

    /// Runs until the server shuts down.
    pub fn run(mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut events = Events::with_capacity(1024);
        let env = self.env();
        let mut executor = Executor::new(&shared, env, &shared.stats.loops[self.index]);
        let mut way = GiveWay::new();
        while !shared.state.shutdown.load(Ordering::Acquire) {
            let timeout = self.timeout(executor.env.now_ms);
            if !events.is_empty() {
                way.run();
            }
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            self.refresh(&mut executor);
            let watched = self.watch_turn(&executor);
            self.woken = false;
            self.read_mail(&mut executor);
            self.run_paused(&mut executor);
            self.run_beside(&mut executor);
            self.ready.extend(events.iter().map(Ready::from));
            self.run_ready(&mut executor);
            self.run_missed(&mut executor);
            self.run_pending(&mut executor);
            self.flush_all(&mut executor);
            self.end_turn(watched, &executor);
            self.tick(&mut executor);
        }
        // Replies to what was executed go out before the end.
        self.flush_all(&mut executor);
        Ok(())
    }

    /// While slots are sent: when the turn began, and the requests before it.
    #[inline]
    fn watch_turn(&self, executor: &Executor<'_>) -> Option<(u64, u64)> {
        let is_on = self.shared.moves.watch.is_on() && self.hot.move_turn_us > 0;
        is_on.then(|| (clock::monotonic_us(), executor.stats.commands.load(Ordering::Relaxed)))
    }

    /// Tells who sends slots how many requests were served, and whether that took long.
    #[inline]
    fn end_turn(&self, watched: Option<(u64, u64)>, executor: &Executor<'_>) {
        let Some((from_us, before)) = watched else { return };
        let requests = executor.stats.commands.load(Ordering::Relaxed) - before;
        if requests > 0 {
            let is_slow = clock::monotonic_us() - from_us > self.hot.move_turn_us;
            self.shared.moves.watch.count(requests, is_slow);
        }
    }

    fn env(&self) -> Env {
        Env { now_ms: clock::unix_ms(), ..Env::new(self.index, self.hot.limits) }
    }

    fn timeout(&self, now_ms: i64) -> Duration {
        if !self.pending.is_empty()
            || !self.dirty.is_empty()
            || !self.missed.is_empty()
            || !self.beside.is_empty()
            || self.woken
        {
            return Duration::ZERO;
        }
        let until = self.deadlines.first().map_or(TICK_MS as i64, |(at, _)| at - now_ms);
        Duration::from_millis(until.clamp(0, TICK_MS as i64) as u64)
    }

    /// Goes on with connections whose input was left over.
    fn run_pending(&mut self, executor: &mut Executor<'_>) {
        for _ in 0..self.pending.len() {
            if let Some(token) = self.pending.pop_front() {
                if self.stands_still(token) {
                    self.pending.push_back(token);
                    continue;
                }
                if let Some(Some(conn)) = self.conns.get_mut(token) {
                    conn.pending = false;
                }
                self.read(token, executor);
            }
        }
    }

    /// Reads the clock and the settings, once a turn.
    fn refresh(&mut self, executor: &mut Executor<'_>) {
        executor.mono_ms = clock::monotonic_ms();
        let generation = self.shared.config.generation();
        if generation != self.hot_generation {
            self.hot = self.shared.config.hot();
            self.hot_generation = generation;
            self.large = large(&self.hot);
            executor.room = 0;
        }
        executor.times_all =
            (0..QUICK_US).contains(&self.hot.slowlog_us) || self.hot.latency_threshold_ms > 0;
        executor.is_busy = self.shared.scripts.is_busy(executor.mono_ms, self.hot.busy_reply_ms);
        let env = &mut executor.env;
        env.now_ms = clock::unix_ms();
        env.lfu = self.hot.maxmemory_policy.is_lfu();
        env.lfu_log_factor = self.hot.lfu_log_factor;
        env.lfu_decay_minutes = self.hot.lfu_decay_minutes;
        env.limits = self.hot.limits;
        env.slowlog_us = self.hot.slowlog_us;
        let state = &self.shared.state;
        env.hides_expired = state.is_replica.load(Ordering::Acquire) || self.hot.import_mode;
        let paused = state.clients_paused_until_ms.load(Ordering::Acquire) > env.now_ms;
        let (hold, waits) = self.shared.hold.look(executor.mono_ms);
        let handle = &self.shared.loops[self.index];
        handle.held.store(hold, Ordering::Release);
        self.shared.moves.held.look(&mut self.held_slots, executor.mono_ms);
        handle.held_slots.store(self.held_slots.number, Ordering::Release);
        let hands_over = self.shared.replication.failover.is_under_way();
        self.pause = match (paused, state.pause_writes_only.load(Ordering::Acquire)) {
            (true, false) => Pause::Everybody,
            _ if waits => Pause::Keyed,
            (false, _) if !hands_over => Pause::Nobody,
            (false, _) => Pause::Writers,
            (true, true) => Pause::Writers,
        };
    }

    fn read_mail(&mut self, executor: &mut Executor<'_>) {
        let mail = {
            let handle = &self.shared.loops[self.index];
            let mut mail = handle.mail.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::take(&mut *mail)
        };
        for letter in mail {
            match letter {
                Mail::Accepted(stream, speaks) => self.add(stream, speaks, executor.env.now_ms),
                Mail::Deliver { token, client, bytes, unblocks } => {
                    self.deliver(token, client, &bytes, unblocks, executor);
                }
                Mail::Answer { token, client, bytes } => {
                    if let Some(conn) = self.conn_of(token, client) {
                        conn.out.extend_from_slice(&bytes);
                        self.mark_dirty(token);
                        self.unblocked(token, executor);
                    }
                }
                Mail::Kill { token, client } => {
                    if self.conn_of(token, client).is_some() {
                        self.flush(token, executor);
                        self.close(token);
                    }
                }
                Mail::CutWait { token, client, with_error } => {
                    self.cut_wait(token, client, with_error, executor);
                }
                Mail::SlotLeft { token, client, channel } => {
                    self.leave_shard_channel(token, client, &channel);
                }
                Mail::Look => {
                    for token in std::mem::take(&mut self.waiting) {
                        self.look(token, executor);
                    }
                }
            }
        }
    }

    fn conn_of(&mut self, token: usize, client: u64) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(token)?.as_deref_mut()?;
        (conn.session.info.id == client).then_some(conn)
    }

    /// Bytes from another thread: a push, or the reply of the command that this client is blocked in.
    fn deliver(
        &mut self,
        token: usize,
        client: u64,
        bytes: &[u8],
        unblocks: Option<Basis>,
        executor: &mut Executor<'_>,
    ) {
        let shared = self.shared.clone();
        let (of_listeners, of_others) =
            (self.hot.pubsub_output_bytes_max, self.hot.reply_bytes_max);
        let Some(conn) = self.conn_of(token, client) else { return };
        let limit = if conn.session.info.listens_to() > 0 { of_listeners } else { of_others };
        // What a reader waited for may have come to this replica later than its client allows.
        let stale = unblocks.and_then(|_| shared.too_stale(&conn.session));
        match stale.filter(|_| conn.session.waits_to_read()) {
            Some(error) => {
                let mut reply = Reply::new(std::mem::take(&mut conn.out), conn.session.resp3);
                reply.error(&error);
                conn.out = reply.out;
            }
            None => conn.out.extend_from_slice(bytes),
        }
        if let Some(Basis { reign, end }) = unblocks {
            if reign != 0 {
                conn.note_leased(reign);
            }
            if shared.quorum.is_on() {
                conn.quorum_gate = end;
            }
            if shared.state.acks_wait() {
                conn.gate = end;
                self.wrote = self.wrote.max(end);
            }
        } else if limit > 0 && conn.unsent() > limit {
            // It does not read what it subscribed to, or looks on at: cut off, so that others are not slowed.
            self.close(token);
            return;
        }
        self.mark_dirty(token);
        if unblocks.is_some() {
            self.unblocked(token, executor);
        }
    }

    /// The slot of a shard channel is served elsewhere now: its listener is told, and does not hear it here any more.
    fn leave_shard_channel(&mut self, token: usize, client: u64, channel: &[u8]) {
        let shared = self.shared.clone();
        let Some(conn) = self.conn_of(token, client) else { return };
        let mut reply = Reply::new(std::mem::take(&mut conn.out), conn.session.resp3);
        crate::command::pubsub::leave_shard_channel(
            &shared,
            &mut conn.session,
            &mut reply,
            channel,
        );
        conn.out = reply.out;
        self.mark_dirty(token);
    }

    /// A client may go on: its deadline is forgotten and its buffered requests are run.
    fn unblocked(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(Some(conn)) = self.conns.get_mut(token) else { return };
        if let Some(waiter) = conn.session.waiter.take() {
            self.deadlines.remove(&(waiter.deadline_ms, token));
        }
        conn.session.info.blocked.store(false, Ordering::Relaxed);
        self.read(token, executor);
    }

    /// Serves what is ready, also what becomes so meanwhile (see `busy_turn`).
    fn run_ready(&mut self, executor: &mut Executor<'_>) {
        while self.next_ready < self.ready.len() {
            self.read_ahead();
            let end = self.ready.len().min(self.next_ready + GROUP);
            // A busy turn within may serve more than these.
            while self.next_ready < end {
                let ready = self.ready[self.next_ready];
                self.next_ready += 1;
                self.on_ready(ready, executor);
            }
        }
        self.ready.clear();
        self.next_ready = 0;
    }

    fn on_ready(&mut self, ready: Ready, executor: &mut Executor<'_>) {
        match ready.token {
            WAKER => {}
            token if token >= LISTENERS => self.accept(token - LISTENERS),
            token => {
                if ready.is_closed
                    && let Some(Some(conn)) = self.conns.get_mut(token)
                {
                    conn.read_closed = true;
                }
                if ready.is_readable {
                    self.read(token, executor);
                }
                if ready.is_writable
                    && let Some(Some(conn)) = self.conns.get(token)
                    && conn.has_output()
                {
                    self.mark_dirty(token);
                }
            }
        }
    }

    /// The connection becomes a replica's link and leaves this loop.
    fn hand_over(&mut self, token: usize, executor: &mut Executor<'_>) {
        self.flush(token, executor);
        let Some(mut conn) = self.conns.get_mut(token).and_then(Option::take) else { return };
        let _ = self.poll.registry().deregister(conn.stream.socket_mut());
        self.free.push(token);
        let rest = std::mem::take(&mut conn.values).flatten(&conn.out, conn.sent);
        forget(&self.shared, &mut conn.session);
        self.shared.clients.add(&conn.session.info);
        match conn.session.move_wanted.take() {
            Some(wanted) => {
                self.shared.clients.remove(conn.session.info.id);
                crate::moves::source::serve(self.shared.clone(), conn.stream, wanted, rest);
            }
            None => crate::replication::serve(self.shared.clone(), conn.stream, conn.session, rest),
        }
    }

    fn close(&mut self, token: usize) {
        let Some(mut conn) = self.conns.get_mut(token).and_then(Option::take) else { return };
        conn.stream.end();
        let _ = self.poll.registry().deregister(conn.stream.socket_mut());
        forget(&self.shared, &mut conn.session);
        self.free.push(token);
        self.deadlines.retain(|(_, t)| *t != token);
        self.waiting.remove(&token);
    }
}

/// Takes a client out of everything that it is registered in.
pub fn forget(shared: &Shared, session: &mut Session) {
    unwatch(shared, session);
    if let Some(waiter) = session.waiter.take()
        && (waiter.cancel() || !waiter.is_done())
    {
        waiter.finish();
        shared.waiters.unblock(&waiter);
    }
    for channel in std::mem::take(&mut session.channels) {
        shared.pubsub.unsubscribe(&channel, &session.info);
    }
    for pattern in std::mem::take(&mut session.patterns) {
        shared.pubsub.punsubscribe(&pattern, &session.info);
    }
    for channel in std::mem::take(&mut session.shard_channels) {
        shared.pubsub.sunsubscribe(&channel, &session.info);
    }
    shared.monitors.remove(&session.info);
    shared.maintenance.remove(&session.info);
    shared.tracking.off(&session.info);
    shared.clients.remove(session.info.id);
}
