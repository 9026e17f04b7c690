//! One turn of a connection: what came is read and run, up to its budget.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;

use super::EventLoop;
use super::ahead::Ahead;
use super::conn::{Conn, READ_BYTES, begin_input, drain_closed, keep, read_more};
use crate::command::exec::Executor;
use crate::server::bump;
use crate::session::After;

/// Requests of one connection in one turn.
const TURN_REQUESTS: usize = 512;

impl EventLoop {
    /// Reads a connection and runs what came.
    pub(super) fn read(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(mut conn) = self.conns.get_mut(token).and_then(Option::take) else { return };
        let alive = self.guarded_turn(&mut conn, executor);
        let leaves = conn.session.after;
        let (has_output, is_large) = (conn.unsent() > 0, conn.is_large());
        let waits = conn.session.wait.is_some();
        if let (Some(waiter), true) = (&conn.session.waiter, alive)
            && waiter.deadline_ms > 0
        {
            self.deadlines.insert((waiter.deadline_ms, token));
        }
        if let (Some(wait), true) = (conn.session.wait, alive)
            && wait.deadline_ms > 0
        {
            self.deadlines.insert((wait.deadline_ms, token));
        }
        self.conns[token] = Some(conn);
        if !alive {
            self.close(token);
            return;
        }
        if has_output && !is_large {
            self.mark_dirty(token);
        }
        if waits {
            self.waiting.insert(token);
            if let Some(Some(conn)) = self.conns.get(token) {
                conn.session.info.blocked.store(true, Ordering::Relaxed);
                conn.session.info.in_wait.store(true, Ordering::Release);
            }
        }
        match leaves {
            After::Continue if is_large => self.flush_large(token, executor),
            After::Continue => {}
            After::Close => {
                self.flush(token, executor);
                if let Some(Some(conn)) = self.conns.get_mut(token) {
                    conn.closing = true;
                    if !conn.has_output() {
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

    /// The same. What was read of it already is found in the buffer that this turn reads into.
    fn turn(&mut self, conn: &mut Conn, executor: &mut Executor<'_>) -> bool {
        let Some(Ahead { mut buffer, got, .. }) = self.ahead.take(conn) else {
            return self.turn_from(conn, executor, None);
        };
        std::mem::swap(&mut self.buffer, &mut buffer);
        let alive = self.turn_from(conn, executor, Some(got));
        std::mem::swap(&mut self.buffer, &mut buffer);
        self.ahead.done(buffer);
        alive
    }

    /// One turn of a connection, `first`: what came of its first read; `false` when it is to be closed.
    fn turn_from(
        &mut self,
        conn: &mut Conn,
        executor: &mut Executor<'_>,
        mut first: Option<io::Result<usize>>,
    ) -> bool {
        if conn.closing {
            return drain_closed(conn, &mut self.buffer);
        }
        if (conn.stalled || !conn.input.is_empty())
            && let Some(Ok(n)) = first
        {
            conn.input.extend_from_slice(&self.buffer[..n]);
            first = None;
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
            if conn.is_held {
                return true;
            }
        }
        loop {
            if conn.session.after != After::Continue {
                return true;
            }
            if budget == 0 || conn.is_full() {
                self.later(conn);
                return true;
            }
            let got = match first.take() {
                Some(got) => got,
                None if conn.input.is_empty() => conn.stream.read(&mut self.buffer),
                None => read_more(conn, self.hot.client_query_buffer_limit),
            };
            let n = match got {
                // What a client asked before it closed its side is still answered
                // (see: half_closed_client_still_gets_its_replies).
                Ok(0) if conn.unsent() > 0 => {
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
            conn.came = n;
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
                full = n == self.buffer.len() || conn.stream.has_more();
                let buffer = std::mem::take(&mut self.buffer);
                let used = self.process(conn, &buffer[..n], executor, &mut budget);
                if used < n {
                    conn.decoder.shift_to_request(used);
                    begin_input(conn, &buffer[used..n]);
                }
                self.buffer = buffer;
            } else {
                full = conn.input.len() == conn.input.capacity() || conn.stream.has_more();
                let input = std::mem::take(&mut conn.input);
                let used = self.process(conn, &input, executor, &mut budget);
                keep(conn, input, used);
            }
            // Who has closed its side behind what waits is still answered.
            if conn.is_held {
                return true;
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
}
