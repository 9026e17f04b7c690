//! The thread that accepts TLS connections and makes their handshakes, and deals them out to the event loops.
//!
//! ```text
//! accept (so many a turn) -> half-open: each that is ready goes one step a turn -> done: to a loop, in turn
//!                              | too slow, garbage, an alert: closed, and nobody else hears of it
//! ```
//!
//! Half-open connections are bounded in number and in time; when there are too many the oldest goes, since a handshake
//! that is meant takes a moment only. Files of certificates are looked at here, too.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConnection;

use super::secure::{Connection, Secure, broken};
use crate::clock;
use crate::listeners::Listener;
use crate::server::{Mail, Shared, Speaks};

/// Half-open connections at a time.
const HALF_OPEN_MAX: usize = 1024;
/// Longest time for a handshake, milliseconds.
const HANDSHAKE_MS: u64 = 10_000;
/// Reads of one connection in one turn.
const READS: usize = 8;
/// Between two looks at what is late and at the shutdown, milliseconds.
const TICK_MS: u64 = 100;
/// Tokens from here on are listeners.
const LISTENERS: usize = usize::MAX - 64;

/// A connection in its handshake.
struct Half {
    secure: Box<Secure>,
    speaks: Speaks,
    /// Monotonic milliseconds.
    since_ms: u64,
    /// It stands in `ready`.
    is_ready: bool,
}

/// How far a step has come.
enum Step {
    Done,
    /// Until the socket is ready again.
    Waits,
    /// It goes on in the next turn.
    Goes,
}

struct Lane {
    shared: Arc<Shared>,
    poll: Poll,
    listeners: Vec<(Listener, bool)>,
    halves: Vec<Option<Half>>,
    free: Vec<usize>,
    ready: VecDeque<usize>,
    /// In the order in which they came, with those that are gone by now.
    order: VecDeque<(u64, usize)>,
    open: usize,
    next_loop: usize,
    next_tick_ms: u64,
    next_look_ms: u64,
    accept_failed: bool,
}

/// Serves these listeners until the server shuts down.
///
/// # Errors
/// When the system gives no poll or no thread.
pub fn start(shared: &Arc<Shared>, listeners: Vec<Listener>) -> io::Result<()> {
    if listeners.is_empty() {
        return Ok(());
    }
    let poll = Poll::new()?;
    let mut watched = Vec::new();
    for (at, mut listener) in listeners.into_iter().enumerate() {
        let source = listener.socket.source();
        poll.registry().register(source, Token(LISTENERS + at), Interest::READABLE)?;
        watched.push((listener, false));
    }
    let lane = Lane {
        shared: shared.clone(),
        poll,
        listeners: watched,
        halves: Vec::new(),
        free: Vec::new(),
        ready: VecDeque::new(),
        order: VecDeque::new(),
        open: 0,
        next_loop: 0,
        next_tick_ms: 0,
        next_look_ms: 0,
        accept_failed: false,
    };
    std::thread::Builder::new().name("handshakes".into()).spawn(move || lane.run())?;
    Ok(())
}

impl Lane {
    fn run(mut self) {
        let shared = self.shared.clone();
        let mut events = Events::with_capacity(1024);
        while !shared.state.shutdown.load(Ordering::Acquire) {
            let busy = !self.ready.is_empty() || self.listeners.iter().any(|(_, more)| *more);
            let timeout = if busy { 0 } else { TICK_MS };
            match self.poll.poll(&mut events, Some(Duration::from_millis(timeout))) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(error = %e, "TLS connections are accepted no longer");
                    return;
                }
                _ => {}
            }
            for event in &events {
                match event.token().0 {
                    token if token >= LISTENERS => {
                        if let Some((_, more)) = self.listeners.get_mut(token - LISTENERS) {
                            *more = true;
                        }
                    }
                    token => self.mark_ready(token),
                }
            }
            let now_ms = clock::monotonic_ms();
            self.accept(now_ms);
            for _ in 0..self.ready.len() {
                if let Some(token) = self.ready.pop_front() {
                    self.step(token);
                }
            }
            self.tick(now_ms);
        }
    }

    fn mark_ready(&mut self, token: usize) {
        if let Some(Some(half)) = self.halves.get_mut(token)
            && !half.is_ready
        {
            half.is_ready = true;
            self.ready.push_back(token);
        }
    }

    /// Takes in `max-new-tls-connections-per-cycle` connections of each listener.
    fn accept(&mut self, now_ms: u64) {
        let many = self.shared.config.hot().tls_accepts_per_turn;
        for at in 0..self.listeners.len() {
            for _ in 0..many {
                let (listener, more) = &mut self.listeners[at];
                if !*more {
                    break;
                }
                let speaks = listener.speaks;
                match listener.socket.accept() {
                    Ok(socket) => {
                        self.accept_failed = false;
                        self.add(socket, speaks, now_ms);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        *more = false;
                        let is_told = self.accept_failed || e.kind() == io::ErrorKind::WouldBlock;
                        if !is_told {
                            // Out of file descriptors, most likely: the next tick tries again.
                            self.accept_failed = true;
                            tracing::warn!(error = %e, "cannot accept a TLS connection");
                        }
                    }
                }
            }
        }
    }

    fn add(&mut self, mut socket: TcpStream, speaks: Speaks, now_ms: u64) {
        let shared = self.shared.clone();
        // What it would be told cannot be said before the handshake, which is what there is no place for.
        let places = shared.config.hot().maxclients.saturating_sub(shared.clients.len());
        if places == 0 {
            shared.stats.rejected_connections.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some(config) = shared.tls.accepting() else { return };
        let Ok(tls) = ServerConnection::new(config) else { return };
        // Those that do not go on keep nobody else out.
        while self.open >= HALF_OPEN_MAX.min(places) {
            let Some((since_ms, token)) = self.order.pop_front() else { break };
            self.drop_late(since_ms, token);
        }
        let token = self.free.pop().unwrap_or_else(|| {
            self.halves.push(None);
            self.halves.len() - 1
        });
        let _ = socket.set_nodelay(true);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(e) = self.poll.registry().register(&mut socket, Token(token), interest) {
            tracing::warn!(error = %e, "cannot watch a connection");
            self.free.push(token);
            return;
        }
        let secure = Box::new(Secure::new(socket, tls));
        self.halves[token] = Some(Half { secure, speaks, since_ms: now_ms, is_ready: false });
        self.order.push_back((now_ms, token));
        self.open += 1;
        shared.tls.stats.handshakes.store(self.open as u64, Ordering::Relaxed);
        self.mark_ready(token);
    }

    fn take(&mut self, token: usize) -> Option<Half> {
        let mut half = self.halves.get_mut(token)?.take()?;
        let _ = self.poll.registry().deregister(&mut half.secure.socket);
        self.free.push(token);
        self.open -= 1;
        self.shared.tls.stats.handshakes.store(self.open as u64, Ordering::Relaxed);
        Some(half)
    }

    fn step(&mut self, token: usize) {
        let Some(Some(half)) = self.halves.get_mut(token) else { return };
        half.is_ready = false;
        match half.secure.shake() {
            Ok(Step::Waits) => {}
            Ok(Step::Goes) => self.mark_ready(token),
            Ok(Step::Done) => {
                self.shared.tls.stats.done.fetch_add(1, Ordering::Relaxed);
                let Some(half) = self.take(token) else { return };
                let to = self.next_loop % self.shared.loops.len();
                self.next_loop += 1;
                let connection = Connection::Tls(half.secure);
                self.shared.loops[to].send(Mail::Accepted(connection, half.speaks));
            }
            Err(error) => {
                self.shared.tls.stats.failed.fetch_add(1, Ordering::Relaxed);
                if let Some(half) = self.take(token) {
                    let addr = half.secure.socket.peer_addr().map(|a| a.to_string());
                    let addr = addr.unwrap_or_default();
                    tracing::debug!(addr, %error, "a TLS handshake failed");
                }
            }
        }
    }

    fn drop_late(&mut self, since_ms: u64, token: usize) {
        let is_it = self
            .halves
            .get(token)
            .is_some_and(|half| half.as_ref().is_some_and(|half| half.since_ms == since_ms));
        if is_it && self.take(token).is_some() {
            self.shared.tls.stats.timed_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tick(&mut self, now_ms: u64) {
        if now_ms < self.next_tick_ms {
            return;
        }
        self.next_tick_ms = now_ms + TICK_MS;
        while let Some((since_ms, token)) = self.order.front().copied() {
            let is_gone =
                !matches!(self.halves.get(token), Some(Some(half)) if half.since_ms == since_ms);
            if !is_gone && now_ms < since_ms + HANDSHAKE_MS {
                break;
            }
            self.order.pop_front();
            self.drop_late(since_ms, token);
        }
        if self.accept_failed {
            self.listeners.iter_mut().for_each(|(_, more)| *more = true);
        }
        let every_s = self.shared.config.int("tls-auto-reload-interval", 1).max(0) as u64;
        if every_s > 0 && now_ms >= self.next_look_ms {
            self.next_look_ms = now_ms + every_s.saturating_mul(1000);
            self.shared.tls.reload_if_changed(&self.shared.config);
        }
    }
}

impl Secure {
    /// Goes on with the handshake, as far as the socket lets it.
    fn shake(&mut self) -> io::Result<Step> {
        for _ in 0..READS {
            match self.flush() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waits),
                other => other?,
            }
            if !self.tls.is_handshaking() {
                return Ok(Step::Done);
            }
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waits),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            if let Err(error) = self.tls.process_new_packets() {
                // The alert that says why, as far as the socket takes it at once.
                let _ = self.flush();
                return Err(broken(error));
            }
        }
        Ok(Step::Goes)
    }
}
