//! A reply that comes later, from another thread: what is asked of the council, or of another server.

use std::sync::Arc;

use super::Ctx;
use super::exec::LOADING;
use crate::resp::Reply;
use crate::server::Shared;
use crate::waiters::{OnTimeout, Waiter};

/// A client that waits for its reply, and sends nothing more meanwhile that is run.
pub(super) struct Deferred {
    shared: Arc<Shared>,
    waiter: Arc<Waiter>,
}

impl Deferred {
    /// Answers the client, unless it has gone.
    pub(super) fn answer(self, write: impl FnOnce(&mut Reply)) {
        if let Some(bytes) = self.end(write) {
            self.shared.answer(&self.waiter.client, bytes.into());
        }
    }

    /// The same for what has written to the data set: an acknowledgement like any other.
    pub(super) fn answer_write(self, write: impl FnOnce(&mut Reply)) {
        if let Some(bytes) = self.end(write) {
            self.shared.deliver(&self.waiter.client, bytes.into(), Some(self.shared.basis()));
        }
    }

    fn end(&self, write: impl FnOnce(&mut Reply)) -> Option<Vec<u8>> {
        if !self.waiter.cancel() {
            return None;
        }
        self.shared.waiters.unblock(&self.waiter);
        let mut reply = Reply::new(Vec::new(), self.waiter.resp3);
        write(&mut reply);
        Some(reply.out)
    }
}

impl Ctx<'_, '_> {
    /// Answers in a thread of its own: `work` must answer. What cannot wait (EXEC) is answered OK at once, and the
    /// work done all the same.
    pub(super) fn answer_later(
        &mut self,
        name: &str,
        work: impl FnOnce(&Arc<Shared>, Option<Deferred>) + Send + 'static,
    ) {
        let Some(shared) = self.shared.strong() else {
            return self.reply.error(LOADING);
        };
        let deferred = if self.in_exec || self.retry || self.session.from_primary {
            self.reply.ok();
            None
        } else {
            self.block(&[], 0, OnTimeout::Null);
            let waiter = self.session.waiter.clone();
            waiter.map(|waiter| Deferred { shared: shared.clone(), waiter })
        };
        let waiter = deferred.as_ref().map(|d| d.waiter.clone());
        let spawned = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&shared, deferred));
        if let (Err(error), Some(waiter)) = (spawned, waiter)
            && waiter.cancel()
        {
            self.shared.waiters.unblock(&waiter);
            self.session.waiter = None;
            self.session.info.blocked.store(false, std::sync::atomic::Ordering::Relaxed);
            self.reply.error(&format!("ERR cannot start a thread: {error}"));
        }
    }
}
