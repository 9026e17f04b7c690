//! What happens by the clock: waits that end, idle clients, expiry, eviction.

use std::sync::atomic::Ordering;

use super::{EventLoop, TICK_MS};
use crate::command::client::UNBLOCKED;
use crate::command::exec::Executor;
use crate::resp::Reply;
use crate::waiters::OnTimeout;
use crate::{busy, clock};

impl EventLoop {
    /// Looks whether what a client waits for has come: the disk, or replicas.
    pub(super) fn look(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(Some(conn)) = self.conns.get_mut(token) else { return };
        if let Some(wait) = conn.session.wait {
            let mut reply = Reply::new(std::mem::take(&mut conn.out), conn.session.resp3);
            let is_done = wait.reply(&self.shared, executor.env.now_ms, &mut reply);
            conn.out = reply.out;
            if is_done {
                self.end_wait(token, executor);
            } else {
                self.waiting.insert(token);
            }
            return;
        }
        self.mark_dirty(token);
    }

    /// The client's WAIT is replied to: it goes on.
    fn end_wait(&mut self, token: usize, executor: &mut Executor<'_>) {
        let Some(Some(conn)) = self.conns.get_mut(token) else { return };
        let Some(wait) = conn.session.wait.take() else { return };
        conn.session.info.in_wait.store(false, Ordering::Release);
        conn.session.info.blocked.store(false, Ordering::Relaxed);
        self.deadlines.remove(&(wait.deadline_ms, token));
        self.waiting.remove(&token);
        self.mark_dirty(token);
        self.read(token, executor);
    }

    /// CLIENT UNBLOCK of a client in WAIT.
    pub(super) fn cut_wait(
        &mut self,
        token: usize,
        client: u64,
        with_error: bool,
        executor: &mut Executor<'_>,
    ) {
        let shared = self.shared.clone();
        let Some(conn) = self.conn_of(token, client) else { return };
        let Some(wait) = conn.session.wait else { return };
        let mut reply = Reply::new(std::mem::take(&mut conn.out), conn.session.resp3);
        if with_error {
            reply.error(UNBLOCKED);
        } else {
            wait.cut(&shared, &mut reply);
        }
        conn.out = reply.out;
        self.end_wait(token, executor);
    }

    /// Timers: waits that are over, idle clients, expiry.
    pub(super) fn tick(&mut self, executor: &mut Executor<'_>) {
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
        if !self.shared.hold.is_on() {
            let (shared, mut sweep) = (self.shared.clone(), std::mem::take(&mut self.sweep));
            let is_first = self.index == 0;
            // Each may wait for a lock that a script holds.
            busy::with(self, || {
                sweep.run(executor);
                crate::eviction::tick(&shared, &executor.env);
                if is_first {
                    crate::memcached::flush_if_due(executor);
                }
            });
            self.sweep = sweep;
        }
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
            buffered += conn.out.capacity() + conn.input.capacity() + conn.stream.memory();
            // Values that keys still have are counted with them.
            buffered += conn.values.left_memory();
            let idle = now - conn.session.info.last_ms.load(Ordering::Relaxed);
            let kept = conn.session.is_blocked() || conn.session.info.listens_to() > 0;
            if conn.session.info.kill.load(Ordering::Acquire)
                || (idle_ms > 0 && idle > idle_ms && !kept)
            {
                self.close(token);
            }
        }
        self.shared.stats.loop_buffers[self.index].store(buffered as u64, Ordering::Relaxed);
    }

    /// The time of a blocked client is up.
    pub(super) fn time_out(&mut self, token: usize, executor: &mut Executor<'_>) {
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
        match (self.shared.too_stale(&conn.session), waiter.on_timeout) {
            // That nothing has come is an answer, too.
            (Some(error), _) => reply.error(&error),
            (None, OnTimeout::NullArray) => reply.null_array(),
            (None, OnTimeout::Null) => reply.null(),
        }
        conn.out = reply.out;
        self.mark_dirty(token);
        self.unblocked(token, executor);
    }
}
