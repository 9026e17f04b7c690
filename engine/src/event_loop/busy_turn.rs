//! What a loop does while a script runs for long: once it does so for longer than `busy-reply-threshold`, everything is answered
//! with BUSY, except what ends the script; until then only who asks how the server is (PING, INFO) is answered, and all else
//! waits, in its order.
//!
//! It runs deep inside a request: the loop's own turn stands still, and one connection (or more, when one served another)
//! is taken out of the table meanwhile. What comes for such a one is remembered; what comes by mail waits, except new
//! connections; no timer runs, and nobody is told that this loop has seen a hold: its own turn has not.

use std::time::Duration;

use mio::Events;

use super::conn::READ_BYTES;
use super::pause::Pause;
use super::{EventLoop, Ready};
use crate::busy::{self, LooksAfter};
use crate::clock;
use crate::command::exec::Executor;
use crate::server::Mail;

/// Events of one turn.
const EVENTS: usize = 256;

impl LooksAfter for EventLoop {
    fn busy_turn(&mut self) -> bool {
        let mono_ms = clock::monotonic_ms();
        if !self.shared.scripts.is_running() {
            return false;
        }
        let is_busy = self.shared.scripts.is_busy(mono_ms, self.hot.busy_reply_ms);
        let shared = self.shared.clone();
        let mut executor = Executor::new(&shared, self.env(), &shared.stats.loops[self.index]);
        (executor.mono_ms, executor.is_busy) = (mono_ms, is_busy);
        let pause = self.pause;
        if !is_busy && pause != Pause::Everybody {
            self.pause = Pause::Script;
        }
        // The request that stands still may hold the buffer; its turn gives it back in place of this one.
        self.buffer.resize(READ_BYTES, 0);
        self.give_ahead();
        self.accept_mail();
        let mut events = Events::with_capacity(EVENTS);
        if let Err(error) = self.poll.poll(&mut events, Some(Duration::ZERO)) {
            self.pause = pause;
            tracing::warn!(%error, "clients are not looked after while a script runs");
            return true;
        }
        // Behind what the turn that stands still has not come to.
        self.ready.extend(events.iter().map(Ready::from));
        // Mail is read by the turn that stands still, after it.
        self.woken = true;
        while let Some(ready) = self.ready.get(self.next_ready).copied() {
            self.next_ready += 1;
            if self.stands_still(ready.token) {
                self.missed.push(ready);
            } else {
                self.on_ready(ready, &mut executor);
            }
        }
        self.run_pending(&mut executor);
        if is_busy {
            self.run_beside(&mut executor);
        }
        self.flush_all(&mut executor);
        self.pause = pause;
        true
    }
}

impl EventLoop {
    /// Takes in connections that another loop has accepted; all else waits.
    fn accept_mail(&mut self) {
        let accepted: Vec<Mail> = {
            let handle = &self.shared.loops[self.index];
            let mut mail = handle.mail.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            mail.extract_if(.., |letter| matches!(letter, Mail::Accepted(..))).collect()
        };
        let now_ms = clock::unix_ms();
        for letter in accepted {
            if let Mail::Accepted(stream, speaks) = letter {
                self.add(stream, speaks, now_ms);
            }
        }
    }

    /// This connection is out of the table, for its request is what this loop stands still in: all that is to be done for it stays
    /// to be done, until it has gone on.
    pub(super) fn stands_still(&self, token: usize) -> bool {
        busy::is_in_turn() && self.conns.get(token).is_some_and(Option::is_none)
    }

    /// Serves those who were held back, once nobody is.
    pub(super) fn run_paused(&mut self, executor: &mut Executor<'_>) {
        if self.pause != Pause::Nobody || self.held_slots.slots.is_some() {
            return;
        }
        for token in std::mem::take(&mut self.paused) {
            self.read(token, executor);
        }
    }

    /// Serves those whose requests waited until this loop goes on, or until all are told that it does not; but not those who
    /// stand still.
    pub(super) fn run_beside(&mut self, executor: &mut Executor<'_>) {
        for token in std::mem::take(&mut self.beside) {
            if self.stands_still(token) {
                self.beside.push(token);
            } else {
                self.read(token, executor);
            }
        }
    }

    /// Serves the connections whose events came while they were taken.
    pub(super) fn run_missed(&mut self, executor: &mut Executor<'_>) {
        for ready in std::mem::take(&mut self.missed) {
            self.on_ready(ready, executor);
        }
    }
}
