//! Replies go out: one write per connection and turn, once its client may see them.

use std::io;
use std::sync::atomic::Ordering;

use super::EventLoop;
use super::conn::TURN_BYTES;
use crate::clock;
use crate::command::exec::Executor;
use crate::server::bump;

impl EventLoop {
    pub(super) fn mark_dirty(&mut self, token: usize) {
        if let Some(Some(conn)) = self.conns.get_mut(token)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(token);
        }
    }

    /// Large output goes out as soon as its connection's turn is over, while it is in the cache, and the next connection's
    /// goes into the same buffer.
    pub(super) fn flush_large(&mut self, token: usize, executor: &mut Executor<'_>) {
        self.write_log();
        self.flush(token, executor);
    }

    pub(super) fn flush_all(&mut self, executor: &mut Executor<'_>) {
        self.write_log();
        let mut dirty = std::mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            if self.stands_still(token) {
                self.dirty.push(token);
                continue;
            }
            if let Some(Some(conn)) = self.conns.get_mut(token) {
                conn.dirty = false;
            }
            self.flush(token, executor);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// What clients are about to see acknowledged goes to the kernel first, all of this turn in one write.
    fn write_log(&mut self) {
        let wrote = std::mem::take(&mut self.wrote);
        let state = &self.shared.state;
        if wrote > state.written_offset.load(Ordering::Acquire)
            && state.acks_wait_for_log.load(Ordering::Acquire)
            && let Some(running) = self.shared.persist.aof()
        {
            running.write_through(&self.shared, wrote);
        }
    }

    /// It may be acknowledged, or the log's thread will wake this loop when it may be.
    fn is_logged(&self, gate: u64) -> bool {
        let state = &self.shared.state;
        state.may_acknowledge(gate) || {
            state.log_is_awaited.store(true, Ordering::SeqCst);
            // It may have come about between the question and the request.
            state.may_acknowledge(gate)
        }
    }

    /// Writes what a connection's client may see by now.
    pub(super) fn flush(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(Some(conn)) = self.conns.get(token) else { return };
        if conn.leased != 0 && conn.leased != self.shared.state.reign.load(Ordering::Acquire) {
            // Another one was primary meanwhile: what was executed for this client may be gone, whatever offset the
            // journal comes to. see: `what_was_dropped_is_not_acknowledged_when_its_primary_is_primary_again`
            self.close(token);
            return;
        }
        if conn.gate > 0 && !self.is_logged(conn.gate) {
            if self.shared.state.disk_failed.load(Ordering::Acquire) {
                // What it wrote may never be on disk: no reply is better than a false one.
                self.close(token);
                return;
            }
            self.waiting.insert(token);
            return;
        }
        let Some(Some(conn)) = self.conns.get_mut(token) else { return };
        conn.gate = 0;
        if conn.quorum_gate > 0 {
            let quorum = &self.shared.quorum;
            if quorum.is_on() && conn.quorum_gate > quorum.offset() {
                let now_ms = clock::monotonic_ms();
                if conn.quorum_since_ms == 0 {
                    conn.quorum_since_ms = now_ms;
                } else if now_ms > conn.quorum_since_ms + crate::quorum::WAIT_MS {
                    self.close(token);
                    return;
                }
                self.waiting.insert(token);
                return;
            }
            (conn.quorum_gate, conn.quorum_since_ms) = (0, 0);
        }
        if conn.leased != 0 {
            // A lease that ended since the request ran: its reply would be an acknowledgement too late.
            let lease = self.shared.state.lease_until_ms.load(Ordering::Acquire);
            if lease != u64::MAX && clock::monotonic_ms() >= lease {
                self.close(token);
                return;
            }
            conn.leased = 0;
        }
        while conn.unsent() > 0 {
            match conn.write() {
                Ok(0) => break,
                Ok(n) => {
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
        if conn.stream.has_unsent()
            && let Err(e) = conn.stream.flush()
            && e.kind() != io::ErrorKind::WouldBlock
        {
            self.close(token);
            return;
        }
        let left = conn.unsent();
        if conn.stalled && !conn.is_full() {
            conn.stalled = false;
            if !conn.pending {
                conn.pending = true;
                self.pending.push_back(token);
            }
        }
        let pending = left + conn.stream.unsent_bytes();
        conn.session.info.pending_out.store(pending as u64, Ordering::Relaxed);
        if left == 0 {
            self.spare.give(std::mem::take(&mut conn.out));
            conn.sent = 0;
            let closing = conn.closing;
            if closing && !conn.stream.has_unsent() {
                self.close(token);
            }
        } else if conn.sent > TURN_BYTES {
            conn.out.drain(..conn.sent);
            conn.values.move_down(conn.sent);
            conn.sent = 0;
        }
    }
}
