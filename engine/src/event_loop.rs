//! One thread: reads every ready connection, executes, then writes once per connection.
//!
//! ```text
//! poll -> mail -> for each ready connection: read -> decode up to BATCH requests -> prefetch -> execute
//!      -> for each connection with replies: one write -> timers -> poll
//! ```
//!
//! A connection gets at most TURN_REQUESTS requests a turn, so that a deep pipeline starves nobody.
//! Input is read into one buffer of the thread; only the rest of an incomplete request is kept per
//! connection, and output buffers come from a pool: an idle connection holds neither.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use smallvec::SmallVec;

use crate::clock;
use crate::command::exec::{Executor, unwatch};
use crate::command::{Command, Keys, find, flag};
use crate::config::Hot;
use crate::keyspace::{Env, hash_key};
use crate::resp::{Decoder, Limits, Reply};
use crate::server::{Mail, Shared, bump};
use crate::session::{After, ClientInfo, Session};
use crate::topology::slot_of;
use crate::waiters::OnTimeout;

/// Bytes that are read from a connection at a time.
const READ_BYTES: usize = 64 * 1024;
/// Requests that are decoded ahead, so that their keys' cache lines can be fetched together.
const BATCH: usize = 16;
/// Requests of one connection in one turn.
const TURN_REQUESTS: usize = 512;
/// Output that makes a connection end its turn, bytes.
const TURN_BYTES: usize = 1 << 20;
/// The same for a connection that has not authenticated, bytes: it is answered little, and reads it at once.
const TURN_BYTES_UNAUTHENTICATED: usize = 1024;
/// Output buffers kept for reuse, and the largest one worth keeping, bytes.
const SPARE_BUFFERS: usize = 256;
const SPARE_BYTES_MAX: usize = 64 * 1024;
/// Connections accepted in one turn.
const ACCEPTS: usize = 64;
/// Time between two runs of the timers, milliseconds.
const TICK_MS: u64 = 100;

/// A slow-log threshold below this, microseconds, has every command timed.
const QUICK_US: i64 = 1000;

/// Token of the first listener; the others follow.
const LISTENERS: usize = usize::MAX - 64;
/// Token of the waker that `LoopHandle` wakes.
pub const WAKER: usize = LISTENERS - 1;

/// One connection.
struct Conn {
    stream: TcpStream,
    session: Session,
    decoder: Decoder,
    /// Bytes read and not consumed: the rest of an incomplete request, or of a turn that ended.
    input: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    dirty: bool,
    pending: bool,
    /// Waits until its client has read: requests are left where they are meanwhile.
    stalled: bool,
    /// Replies wait until the journal is durable up to here.
    gate: u64,
    /// The client wrote since its last flush: its replies count as acknowledgements.
    wrote: bool,
    closing: bool,
    /// The client has closed its side: a read must go on until the end of the stream, since no
    /// further event will tell of it.
    read_closed: bool,
}

impl Conn {
    /// More output waits for the client to read it than it may leave unread and still be served.
    #[inline]
    fn is_full(&self) -> bool {
        self.out.len() - self.sent > self.turn_bytes()
    }

    #[inline]
    fn turn_bytes(&self) -> usize {
        if self.session.authenticated { TURN_BYTES } else { TURN_BYTES_UNAUTHENTICATED }
    }
}

pub struct EventLoop {
    index: usize,
    shared: Arc<Shared>,
    poll: Poll,
    listeners: Vec<TcpListener>,
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// Connections with output to write at the end of this turn.
    dirty: Vec<usize>,
    /// Connections with input left over from their turn.
    pending: VecDeque<usize>,
    /// Blocked connections by the time their wait ends.
    deadlines: BTreeSet<(i64, usize)>,
    /// Connections that wait for replicas (WAIT) or for the disk.
    waiting: BTreeSet<usize>,
    hot: Arc<Hot>,
    hot_generation: u64,
    next_tick_ms: u64,
    next_loop: usize,
    sweep: crate::expiry::Sweep,
    /// Connections that CLIENT PAUSE holds back.
    paused: Vec<usize>,
    /// Who is held back at the moment, as of this turn.
    pause: Pause,
    /// The last connection could not be accepted: the listeners are asked again at each tick, since those
    /// who wait in them cause no further event.
    accept_failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    Nobody,
    Writers,
    Everybody,
}

impl Pause {
    fn holds(self, command: Option<&'static Command>) -> bool {
        // EXEC may write, and so may whoever publishes to replicas.
        let may_write = || {
            command.is_some_and(|c| c.is(flag::WRITE) || c.name == "exec" || c.name == "publish")
        };
        match self {
            Pause::Nobody => false,
            Pause::Writers => may_write(),
            Pause::Everybody => command.is_none_or(|c| c.name != "client"),
        }
    }
}

/// A request that was decoded and not run yet.
struct Ahead {
    command: Option<&'static Command>,
    args: SmallVec<[(usize, usize); 6]>,
    unquoted: Vec<Vec<u8>>,
    hint: Option<(u64, u16)>,
    end: usize,
}

impl EventLoop {
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        poll: Poll,
        mut listeners: Vec<TcpListener>,
    ) -> io::Result<EventLoop> {
        for (at, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(LISTENERS + at), Interest::READABLE)?;
        }
        let hot = shared.config.hot();
        Ok(EventLoop {
            index,
            hot_generation: shared.config.generation(),
            hot,
            shared,
            poll,
            listeners,
            conns: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; READ_BYTES],
            spare: Vec::new(),
            dirty: Vec::new(),
            pending: VecDeque::new(),
            deadlines: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next_tick_ms: 0,
            next_loop: 0,
            sweep: crate::expiry::Sweep::default(),
            paused: Vec::new(),
            pause: Pause::Nobody,
            accept_failed: false,
        })
    }

    /// Runs until the server shuts down.
    pub fn run(mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut events = Events::with_capacity(1024);
        let env = Env {
            now_ms: clock::unix_ms(),
            thread: self.index,
            lfu: false,
            lfu_log_factor: 10,
            lfu_decay_minutes: 1,
            hides_expired: false,
            sees_expired: false,
            tracks_changes: false,
            no_touch: false,
            limits: self.hot.limits,
        };
        let mut executor = Executor::new(&shared, env, &shared.stats.loops[self.index]);
        while !shared.state.shutdown.load(Ordering::Acquire) {
            let timeout = self.timeout(executor.env.now_ms);
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            self.refresh(&mut executor);
            self.read_mail(&mut executor);
            if self.pause == Pause::Nobody {
                for token in std::mem::take(&mut self.paused) {
                    self.read(token, &mut executor);
                }
            }
            for event in &events {
                self.on_event(event, &mut executor);
            }
            for _ in 0..self.pending.len() {
                if let Some(token) = self.pending.pop_front() {
                    if let Some(Some(conn)) = self.conns.get_mut(token) {
                        conn.pending = false;
                    }
                    self.read(token, &mut executor);
                }
            }
            self.flush_all(&mut executor);
            self.tick(&mut executor);
        }
        // Replies to what was executed go out before the end.
        self.flush_all(&mut executor);
        Ok(())
    }

    fn timeout(&self, now_ms: i64) -> Duration {
        if !self.pending.is_empty() || !self.dirty.is_empty() {
            return Duration::ZERO;
        }
        let until = self.deadlines.first().map_or(TICK_MS as i64, |(at, _)| at - now_ms);
        Duration::from_millis(until.clamp(0, TICK_MS as i64) as u64)
    }

    /// Reads the clock and the settings, once a turn.
    fn refresh(&mut self, executor: &mut Executor<'_>) {
        executor.mono_ms = clock::monotonic_ms();
        let generation = self.shared.config.generation();
        if generation != self.hot_generation {
            self.hot = self.shared.config.hot();
            self.hot_generation = generation;
            executor.room = 0;
        }
        executor.times_all = (0..QUICK_US).contains(&self.hot.slowlog_us);
        let env = &mut executor.env;
        env.now_ms = clock::unix_ms();
        env.lfu = self.hot.maxmemory_policy.is_lfu();
        env.lfu_log_factor = self.hot.lfu_log_factor;
        env.lfu_decay_minutes = self.hot.lfu_decay_minutes;
        env.limits = self.hot.limits;
        let state = &self.shared.state;
        env.hides_expired = state.is_replica.load(Ordering::Acquire);
        let paused = state.clients_paused_until_ms.load(Ordering::Acquire) > env.now_ms;
        self.pause = match (paused, state.pause_writes_only.load(Ordering::Acquire)) {
            (false, _) => Pause::Nobody,
            (true, true) => Pause::Writers,
            (true, false) => Pause::Everybody,
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
                Mail::Accepted(stream) => self.add(stream, executor.env.now_ms),
                Mail::Deliver { token, client, bytes, unblocks } => {
                    self.deliver(token, client, &bytes, unblocks, executor);
                }
                Mail::Kill { token, client } => {
                    if self.conn_of(token, client).is_some() {
                        self.flush(token, executor);
                        self.close(token);
                    }
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
        unblocks: bool,
        executor: &mut Executor<'_>,
    ) {
        let limit = self.hot.pubsub_output_bytes_max;
        let Some(conn) = self.conn_of(token, client) else { return };
        conn.out.extend_from_slice(bytes);
        if !unblocks && limit > 0 && conn.out.len() - conn.sent > limit {
            // It does not read what it subscribed to: cut off, so that others are not slowed.
            self.close(token);
            return;
        }
        self.mark_dirty(token);
        if unblocks {
            self.unblocked(token, executor);
        }
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

    fn on_event(&mut self, event: &Event, executor: &mut Executor<'_>) {
        match event.token().0 {
            WAKER => {}
            token if token >= LISTENERS => self.accept(token - LISTENERS),
            token => {
                if event.is_read_closed()
                    && let Some(Some(conn)) = self.conns.get_mut(token)
                {
                    conn.read_closed = true;
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(token, executor);
                }
                if event.is_writable()
                    && let Some(Some(conn)) = self.conns.get(token)
                    && conn.sent < conn.out.len()
                {
                    self.mark_dirty(token);
                }
            }
        }
    }

    fn accept(&mut self, at: usize) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(at) else { return };
            match listener.accept() {
                Ok((mut stream, _)) => {
                    self.accept_failed = false;
                    if self.shared.clients.len() >= self.hot.maxclients {
                        bump(&self.shared.stats.rejected_connections, 1);
                        // Best effort: the client may not read it.
                        let _ = stream.write(b"-ERR max number of clients reached\r\n");
                        continue;
                    }
                    let to = self.next_loop % self.shared.loops.len();
                    self.next_loop += 1;
                    if to == self.index {
                        self.add(stream, clock::unix_ms());
                    } else {
                        self.shared.loops[to].send(Mail::Accepted(stream));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // Out of file descriptors, most likely: wait for the next tick instead of spinning.
                    if !std::mem::replace(&mut self.accept_failed, true) {
                        tracing::warn!(error = %e, "cannot accept a connection");
                    }
                    return;
                }
            }
        }
        // More may be waiting, and the edge has been seen: come back in the next turn.
        self.shared.loops[self.index].send(Mail::Look);
        if let Some(listener) = self.listeners.get_mut(at) {
            let token = Token(LISTENERS + at);
            let _ = self.poll.registry().reregister(listener, token, Interest::READABLE);
        }
    }

    fn add(&mut self, mut stream: TcpStream, now_ms: i64) {
        let token = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() - 1
        });
        let _ = stream.set_nodelay(true);
        let name = |a: io::Result<SocketAddr>| a.map_or_else(|_| "?:0".into(), |a| a.to_string());
        let (addr, laddr) = (name(stream.peer_addr()), name(stream.local_addr()));
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(e) = self.poll.registry().register(&mut stream, Token(token), interest) {
            tracing::warn!(error = %e, "cannot watch a connection");
            self.free.push(token);
            return;
        }
        if self.hot.protected_mode && self.hot.requirepass.is_empty() && !is_loopback(&stream) {
            // Best effort: whoever it is will see the connection close.
            let _ = stream.write(PROTECTED.as_bytes());
            let _ = self.poll.registry().deregister(&mut stream);
            self.shared.stats.rejected_connections.fetch_add(1, Ordering::Relaxed);
            self.free.push(token);
            return;
        }
        let id = self.shared.clients.next_id();
        let info = Arc::new(ClientInfo::new(id, addr, laddr, now_ms, self.index, token));
        self.shared.clients.add(&info);
        self.shared.stats.connections.fetch_add(1, Ordering::Relaxed);
        let authenticated = self.hot.requirepass.is_empty();
        self.conns[token] = Some(Box::new(Conn {
            stream,
            session: Session::new(info, authenticated),
            decoder: Decoder::default(),
            input: Vec::new(),
            out: Vec::new(),
            sent: 0,
            dirty: false,
            pending: false,
            stalled: false,
            gate: 0,
            wrote: false,
            closing: false,
            read_closed: false,
        }));
    }

    /// Reads a connection and runs what came.
    fn read(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(mut conn) = self.conns.get_mut(token).and_then(Option::take) else { return };
        let alive = self.guarded_turn(&mut conn, executor);
        let leaves = conn.session.after;
        let has_output = conn.sent < conn.out.len();
        let waits = conn.session.wait.is_some();
        if let (Some(waiter), true) = (&conn.session.waiter, alive)
            && waiter.deadline_ms > 0
        {
            self.deadlines.insert((waiter.deadline_ms, token));
        }
        if let (Some((_, _, at)), true) = (conn.session.wait, alive)
            && at > 0
        {
            self.deadlines.insert((at, token));
        }
        self.conns[token] = Some(conn);
        if !alive {
            self.close(token);
            return;
        }
        if has_output {
            self.mark_dirty(token);
        }
        if waits {
            self.waiting.insert(token);
        }
        match leaves {
            After::Continue => {}
            After::Close => {
                self.flush(token, executor);
                if let Some(Some(conn)) = self.conns.get_mut(token) {
                    conn.closing = true;
                    if conn.sent >= conn.out.len() {
                        self.close(token);
                    }
                }
            }
            After::Replica => self.hand_over(token, executor),
        }
    }

    /// One turn of a connection; `false` when it is to be closed. A fault of ours that a request brings out
    /// costs the client that sent it its connection, and nobody else anything: locks are let go on the way.
    fn guarded_turn(&mut self, conn: &mut Conn, executor: &mut Executor<'_>) -> bool {
        let turn = AssertUnwindSafe(|| self.turn(conn, executor));
        if let Ok(alive) = std::panic::catch_unwind(turn) {
            return alive;
        }
        bump(&self.shared.stats.unexpected_errors, 1);
        let last = conn.session.info.last_command.load(Ordering::Relaxed) as usize;
        let command =
            last.checked_sub(1).and_then(|id| crate::command::all().nth(id)).map_or("", |c| c.name);
        let addr = &conn.session.info.addr;
        tracing::error!(command, addr, "a request brought out a fault: its connection is closed");
        // The turn had taken it.
        self.buffer.resize(READ_BYTES, 0);
        false
    }

    /// One turn of a connection; `false` when it is to be closed.
    fn turn(&mut self, conn: &mut Conn, executor: &mut Executor<'_>) -> bool {
        if conn.closing {
            return drain_closed(conn, &mut self.buffer);
        }
        if conn.stalled {
            return true;
        }
        let mut budget = TURN_REQUESTS;
        if !conn.input.is_empty() && !conn.session.is_blocked() {
            // The rest of the last turn first.
            let input = std::mem::take(&mut conn.input);
            let used = self.process(conn, &input, executor, &mut budget);
            keep(conn, input, used);
        }
        loop {
            if conn.session.after != After::Continue {
                return true;
            }
            if budget == 0 || conn.is_full() {
                self.later(conn);
                return true;
            }
            let got = if conn.input.is_empty() {
                conn.stream.read(&mut self.buffer)
            } else {
                read_more(conn, self.hot.client_query_buffer_limit)
            };
            let n = match got {
                // What a client asked before it closed its side is still answered
                // (see: half_closed_client_still_gets_its_replies).
                Ok(0) if conn.sent < conn.out.len() => {
                    conn.session.after = After::Close;
                    return true;
                }
                Ok(0) => return false,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            bump(&executor.stats.in_bytes, n as u64);
            bump(&conn.session.info.in_bytes, n as u64);
            conn.session.info.last_ms.store(executor.env.now_ms, Ordering::Relaxed);
            if conn.session.is_blocked() {
                if conn.input.is_empty() {
                    conn.input.extend_from_slice(&self.buffer[..n]);
                }
                if conn.input.len() > self.hot.client_query_buffer_limit {
                    return false;
                }
                continue;
            }
            let full;
            if conn.input.is_empty() {
                full = n == self.buffer.len();
                let buffer = std::mem::take(&mut self.buffer);
                let used = self.process(conn, &buffer[..n], executor, &mut budget);
                if used < n {
                    conn.input.extend_from_slice(&buffer[used..n]);
                    conn.decoder.shift_to_request(used);
                }
                self.buffer = buffer;
            } else {
                full = conn.input.len() == conn.input.capacity();
                let input = std::mem::take(&mut conn.input);
                let used = self.process(conn, &input, executor, &mut budget);
                keep(conn, input, used);
            }
            if !full && !conn.read_closed {
                // Edge-triggered: a read that did not fill its buffer has emptied the socket.
                if conn.session.after == After::Continue
                    && !conn.session.is_blocked()
                    && (budget == 0 || conn.is_full())
                    && !conn.input.is_empty()
                {
                    self.later(conn);
                }
                return true;
            }
        }
    }

    /// The connection goes on in a later turn: the next one, or the one after its client has read.
    fn later(&mut self, conn: &mut Conn) {
        if conn.is_full() {
            conn.stalled = true;
        } else if !conn.pending {
            conn.pending = true;
            self.pending.push_back(conn.session.info.token);
        }
    }

    /// Runs the whole requests of a buffer; gives how many bytes they took.
    fn process(
        &mut self,
        conn: &mut Conn,
        buffer: &[u8],
        executor: &mut Executor<'_>,
        budget: &mut usize,
    ) -> usize {
        if conn.out.capacity() == 0 {
            conn.out = self.spare.pop().unwrap_or_default();
        }
        let mut reply = Reply::new(std::mem::take(&mut conn.out), conn.session.resp3)
            .within(TURN_BYTES.saturating_add(self.hot.reply_bytes_max));
        let mut start = 0;
        let mut ahead: SmallVec<[Ahead; BATCH]> = SmallVec::new();
        'turn: loop {
            let limits = Limits {
                authenticated: conn.session.authenticated,
                bulk_bytes_max: self.hot.proto_max_bulk_len,
            };
            let mut at = start;
            let mut failed = None;
            let many = if conn.session.authenticated { BATCH.min(*budget) } else { 1 };
            while ahead.len() < many {
                match conn.decoder.next(buffer, at, limits) {
                    Ok(Some(end)) => {
                        at = end;
                        ahead.push(decoded(&mut conn.decoder, buffer, end));
                    }
                    Ok(None) => break,
                    Err(e) => {
                        failed = Some(e);
                        break;
                    }
                }
            }
            if ahead.is_empty() && failed.is_none() {
                break;
            }
            if ahead.len() > 1 {
                for one in &ahead {
                    if let Some((hash, slot)) = one.hint {
                        self.shared.keyspace.prefetch(conn.session.db, slot, hash);
                    }
                }
            }
            for one in ahead.drain(..) {
                if self.pause != Pause::Nobody && self.pause.holds(one.command) {
                    self.paused.push(conn.session.info.token);
                    conn.decoder = Decoder::default();
                    break 'turn;
                }
                start = one.end;
                *budget = budget.saturating_sub(1);
                run_one(conn, &mut reply, buffer, &one, executor);
                if conn.session.after != After::Continue || conn.session.is_blocked() {
                    // What was decoded ahead is decoded again when the client goes on.
                    conn.decoder = Decoder::default();
                    break 'turn;
                }
            }
            if let Some(error) = failed {
                reply.error(&format!("ERR Protocol error: {error}"));
                conn.session.after = After::Close;
                break;
            }
            if *budget == 0 || reply.out.len() - conn.sent > conn.turn_bytes() {
                break;
            }
        }
        conn.out = reply.out;
        if conn.session.last_write != 0 {
            conn.wrote = true;
            if self.shared.state.acks_wait_for_disk.load(Ordering::Acquire) {
                conn.gate = conn.session.last_write;
            }
        }
        start
    }

    fn mark_dirty(&mut self, token: usize) {
        if let Some(Some(conn)) = self.conns.get_mut(token)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(token);
        }
    }

    fn flush_all(&mut self, executor: &mut Executor<'_>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            if let Some(Some(conn)) = self.conns.get_mut(token) {
                conn.dirty = false;
            }
            self.flush(token, executor);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Writes what a connection's client may see by now.
    fn flush(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(Some(conn)) = self.conns.get_mut(token) else { return };
        if conn.gate > self.shared.state.durable_offset.load(Ordering::Acquire) {
            if self.shared.state.disk_failed.load(Ordering::Acquire) {
                // What it wrote may never be on disk: no reply is better than a false one.
                self.close(token);
                return;
            }
            self.waiting.insert(token);
            return;
        }
        if conn.wrote {
            // A lease that ended since the write ran: its reply would be an acknowledgement too late.
            let lease = self.shared.state.lease_until_ms.load(Ordering::Acquire);
            if lease != u64::MAX && clock::monotonic_ms() >= lease {
                self.close(token);
                return;
            }
            conn.wrote = false;
        }
        while conn.sent < conn.out.len() {
            match conn.stream.write(&conn.out[conn.sent..]) {
                Ok(0) => break,
                Ok(n) => {
                    conn.sent += n;
                    bump(&executor.stats.out_bytes, n as u64);
                    bump(&conn.session.info.out_bytes, n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.close(token);
                    return;
                }
            }
        }
        let left = conn.out.len() - conn.sent;
        if conn.stalled && !conn.is_full() {
            conn.stalled = false;
            if !conn.pending {
                conn.pending = true;
                self.pending.push_back(token);
            }
        }
        conn.session.info.pending_out.store(left as u64, Ordering::Relaxed);
        if left == 0 {
            let mut buffer = std::mem::take(&mut conn.out);
            conn.sent = 0;
            let closing = conn.closing;
            if buffer.capacity() <= SPARE_BYTES_MAX && self.spare.len() < SPARE_BUFFERS {
                buffer.clear();
                self.spare.push(buffer);
            }
            if closing {
                self.close(token);
            }
        } else if conn.sent > TURN_BYTES {
            conn.out.drain(..conn.sent);
            conn.sent = 0;
        }
    }

    /// Looks whether what a client waits for has come: the disk, or replicas.
    fn look(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(Some(conn)) = self.conns.get_mut(token) else { return };
        if let Some((wanted, offset, deadline)) = conn.session.wait {
            let have = self.shared.replicas_at(offset);
            let over = deadline > 0 && executor.env.now_ms >= deadline;
            if have < wanted && !over {
                self.waiting.insert(token);
                return;
            }
            conn.session.wait = None;
            self.deadlines.remove(&(deadline, token));
            let mut reply = Reply::new(std::mem::take(&mut conn.out), conn.session.resp3);
            reply.int(i64::from(have));
            conn.out = reply.out;
            self.mark_dirty(token);
            self.read(token, executor);
            return;
        }
        self.mark_dirty(token);
    }

    /// Timers: waits that are over, idle clients, expiry.
    fn tick(&mut self, executor: &mut Executor<'_>) {
        let now = executor.env.now_ms;
        while let Some((at, token)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, token));
            self.time_out(token, executor);
        }
        let mono = clock::monotonic_ms();
        if mono < self.next_tick_ms {
            return;
        }
        self.next_tick_ms = mono + TICK_MS;
        if self.accept_failed {
            (0..self.listeners.len()).for_each(|at| self.accept(at));
        }
        self.sweep.run(executor);
        crate::eviction::tick(&self.shared, &executor.env);
        if self.index == 0 {
            crate::command::info::sample(&self.shared, mono);
        }
        for token in std::mem::take(&mut self.waiting) {
            self.look(token, executor);
        }
        let idle_ms = self.hot.timeout_s as i64 * 1000;
        let mut buffered = 0;
        for token in 0..self.conns.len() {
            let Some(Some(conn)) = self.conns.get(token) else { continue };
            buffered += conn.out.capacity() + conn.input.capacity();
            let idle = now - conn.session.info.last_ms.load(Ordering::Relaxed);
            let kept = conn.session.is_blocked()
                || conn.session.info.subscriptions.load(Ordering::Relaxed) > 0;
            if conn.session.info.kill.load(Ordering::Acquire)
                || (idle_ms > 0 && idle > idle_ms && !kept)
            {
                self.close(token);
            }
        }
        self.shared.stats.loop_buffers[self.index].store(buffered as u64, Ordering::Relaxed);
    }

    /// The time of a blocked client is up.
    fn time_out(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(Some(conn)) = self.conns.get_mut(token) else { return };
        if conn.session.wait.is_some() {
            self.look(token, executor);
            return;
        }
        let Some(waiter) = conn.session.waiter.clone() else { return };
        if !waiter.cancel() {
            // Somebody is serving it this very moment: its reply is on the way.
            if !waiter.is_done() {
                self.deadlines.insert((executor.env.now_ms + 1, token));
            }
            return;
        }
        self.shared.waiters.unblock(&waiter);
        let mut reply = Reply::new(std::mem::take(&mut conn.out), conn.session.resp3);
        match waiter.on_timeout {
            OnTimeout::NullArray => reply.null_array(),
            OnTimeout::Null => reply.null(),
        }
        conn.out = reply.out;
        self.mark_dirty(token);
        self.unblocked(token, executor);
    }

    /// The connection becomes a replica's link and leaves this loop.
    fn hand_over(&mut self, token: usize, executor: &mut Executor<'_>) {
        self.flush(token, executor);
        let Some(mut conn) = self.conns.get_mut(token).and_then(Option::take) else { return };
        let _ = self.poll.registry().deregister(&mut conn.stream);
        self.free.push(token);
        let rest = conn.out.split_off(conn.sent);
        self.forget(&mut conn);
        self.shared.clients.add(&conn.session.info);
        crate::replication::serve(self.shared.clone(), conn.stream, conn.session, rest);
    }

    fn close(&mut self, token: usize) {
        let Some(mut conn) = self.conns.get_mut(token).and_then(Option::take) else { return };
        let _ = self.poll.registry().deregister(&mut conn.stream);
        self.forget(&mut conn);
        self.free.push(token);
        self.deadlines.retain(|(_, t)| *t != token);
        self.waiting.remove(&token);
    }

    /// Takes a client out of everything that it is registered in.
    fn forget(&mut self, conn: &mut Conn) {
        let session = &mut conn.session;
        unwatch(&self.shared, session);
        if let Some(waiter) = session.waiter.take()
            && (waiter.cancel() || !waiter.is_done())
        {
            waiter.finish();
            self.shared.waiters.unblock(&waiter);
        }
        for channel in std::mem::take(&mut session.channels) {
            self.shared.pubsub.unsubscribe(&channel, &session.info);
        }
        for pattern in std::mem::take(&mut session.patterns) {
            self.shared.pubsub.punsubscribe(&pattern, &session.info);
        }
        self.shared.clients.remove(session.info.id);
    }
}

/// What a client from elsewhere is told by a server that nobody has set a password for.
const PROTECTED: &str = "-DENIED Redis is running in protected mode because protected mode is enabled and \
    no password is set for the default user. In this mode connections are only accepted from the loopback \
    interface. Set a password (requirepass), or turn protected-mode off, to accept others.\r\n";

fn is_loopback(stream: &TcpStream) -> bool {
    stream.peer_addr().is_ok_and(|a| a.ip().to_canonical().is_loopback())
}

/// Turns what the decoder found into a request that can wait for its turn in the batch.
#[inline]
fn decoded(decoder: &mut Decoder, buffer: &[u8], end: usize) -> Ahead {
    let args: SmallVec<[(usize, usize); 6]> = SmallVec::from_slice(&decoder.args);
    let unquoted = std::mem::take(&mut decoder.unquoted);
    let name = match (args.first(), unquoted.first()) {
        (Some((a, b)), _) => &buffer[*a..*b],
        (None, Some(word)) => word,
        (None, None) => &[],
    };
    let command = find(name);
    let hint = match (command, args.get(1)) {
        (Some(command), Some((a, b))) if matches!(command.keys, Keys::Range { first: 1, .. }) => {
            let key = &buffer[*a..*b];
            Some((hash_key(key), slot_of(key)))
        }
        _ => None,
    };
    Ahead { command, args, unquoted, hint, end }
}

#[inline]
fn run_one(
    conn: &mut Conn,
    reply: &mut Reply,
    buffer: &[u8],
    one: &Ahead,
    executor: &mut Executor<'_>,
) {
    let session = &mut conn.session;
    if one.args.is_empty() && one.unquoted.is_empty() {
        return;
    }
    let args: SmallVec<[&[u8]; 8]> = if one.unquoted.is_empty() {
        one.args.iter().map(|(a, b)| &buffer[*a..*b]).collect()
    } else {
        one.unquoted.iter().map(Vec::as_slice).collect()
    };
    if one.command.is_none() && is_http(args[0]) {
        // A browser was made to post here: neither its head nor its body is to run or be answered.
        session.after = After::Close;
        return;
    }
    let begin = reply.out.len();
    let silent = session.reply_off || session.reply_skip;
    let (skip, no_touch) = (session.reply_skip, session.no_touch);
    executor.env.no_touch = no_touch;
    executor.run(session, reply, one.command, &args, one.hint);
    reply.resp3 = session.resp3;
    if skip {
        session.reply_skip = false;
    }
    if silent && (session.reply_off || skip) {
        reply.out.truncate(begin);
    }
}

/// Words that begin lines of HTTP and no command.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Keeps the bytes behind the consumed ones.
fn keep(conn: &mut Conn, mut input: Vec<u8>, used: usize) {
    if used == input.len() {
        // Nothing left: the buffer is given back, so that an idle connection holds none.
        conn.input = Vec::new();
        return;
    }
    if used > 0 {
        input.drain(..used);
        conn.decoder.shift_to_request(used);
    }
    conn.input = input;
}

/// Reads behind the bytes that are there already, as much as the argument under way needs.
fn read_more(conn: &mut Conn, limit: usize) -> io::Result<usize> {
    let have = conn.input.len();
    if have > limit {
        return Err(io::Error::other("the query buffer limit is reached"));
    }
    let want = conn.decoder.need().saturating_sub(have).clamp(READ_BYTES, 16 << 20);
    conn.input.reserve(want);
    let room = conn.input.capacity();
    conn.input.resize(room, 0);
    let got = conn.stream.read(&mut conn.input[have..]);
    conn.input.truncate(have + got.as_ref().map_or(0, |n| *n));
    got
}

/// Reads and forgets what a client sends after its connection was condemned.
fn drain_closed(conn: &mut Conn, buffer: &mut [u8]) -> bool {
    loop {
        match conn.stream.read(buffer) {
            Ok(0) => return conn.sent < conn.out.len(),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}
