//! One connection's hands on the keyspace: what it asks is counted, checked and run as a row of the command table.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::items::{calculate, put, read, remove, set_expiry, unmake};
use super::ops::{
    Count1, Counted, Delete, Deleted, Elsewhere, Expire, Get, Mode, Refusal, Seen, Store, Stored,
};
use super::stats::Count;
use super::{ITEM_OVERHEAD, binary, rows};
use crate::command::exec::Executor;
use crate::command::{Command, Ctx, slowlog};
use crate::forward::{self, memcached::Form};
use crate::resp::Reply;
use crate::session::{ClientInfo, Session};

/// One connection's hands on the keyspace.
pub struct Client<'c, 's> {
    pub executor: &'c mut Executor<'s>,
    pub session: &'c mut Session,
    pub reply: &'c mut Reply,
    /// Requests like this are held back at the moment.
    pub holds: &'c dyn Fn(&'static Command, &[u8]) -> bool,
    pub item_size_max: usize,
    /// Requests and replies of more bytes are written down.
    pub large: (usize, usize),
    /// What a request was refused with that was forwarded to this member, and is not this member's any more.
    pub refused: Option<String>,
}

impl Client<'_, '_> {
    pub fn now_ms(&self) -> i64 {
        self.executor.env.now_ms
    }

    pub fn count(&self, what: Count) {
        self.executor.shared.memcached.count(self.executor.env.thread, what);
    }

    fn keyed<T>(
        &mut self,
        row: &'static Command,
        key: &[u8],
        act: impl FnOnce(&mut Ctx<'_, '_>) -> T,
    ) -> Result<T, Refusal> {
        if (self.holds)(row, key) {
            return Err(Refusal::Held);
        }
        let args = [row.name.as_bytes(), key];
        let shared = self.executor.shared;
        let done = self.executor.keyed(self.session, self.reply, row, &args, act);
        done.map_err(|error| {
            if forward::is_elsewhere(shared, &error) {
                Refusal::Elsewhere(Box::new(Elsewhere { key: key.to_vec(), error }))
            } else {
                Refusal::Error(error)
            }
        })
    }

    /// Puts a request to the member that has its key: the client waits from now on.
    #[cold]
    pub(super) fn put(&mut self, to: Elsewhere, request: &[u8], only_reads: bool, form: Form) {
        if self.session.plain.is_none() {
            // Who has forwarded it is told, and puts it anew.
            self.refused = Some(to.error);
            return;
        }
        let shared = self.executor.shared;
        let put = forward::memcached::put(
            shared,
            self.session,
            &to.key,
            request,
            only_reads,
            form.clone(),
        );
        if let Err(error) = put {
            self.reply.out.extend_from_slice(&form.refusal(&error));
        }
    }

    /// Of a request the key and the value count, of a reply all bytes.
    #[inline]
    fn note_large(&self, row: &'static Command, key: &[u8], bytes: (usize, usize)) {
        if bytes.0 > self.large.0 || bytes.1 > self.large.1 {
            let (shared, args) = (self.executor.shared, [row.name.as_bytes(), key]);
            slowlog::note_large(shared, self.session, row, &args, bytes, self.now_ms());
        }
    }

    /// Reads an item: `show` writes it out. `false`: it is not there, or no string.
    pub fn get(
        &mut self,
        key: &[u8],
        how: Get,
        show: impl FnOnce(&mut Vec<u8>, &Seen<'_>),
    ) -> Result<bool, Refusal> {
        let row = if how.expire.is_some() { rows().getex } else { rows().get };
        let begin = self.reply.out.len();
        let found = self.keyed(row, key, |ctx| read(ctx, key, how, show))?;
        self.note_large(row, key, (key.len(), self.reply.out.len() - begin));
        self.count(Count::CmdGet);
        self.count(if found { Count::GetHits } else { Count::GetMisses });
        if how.expire.is_some() {
            self.count(Count::CmdTouch);
            self.count(if found { Count::TouchHits } else { Count::TouchMisses });
        }
        Ok(found)
    }

    /// Stores a value.
    pub fn store(&mut self, store: &Store<'_>) -> Result<Stored, Refusal> {
        self.count(Count::CmdSet);
        if !self.fits(store.key, store.value.len()) {
            self.drop_unstored(store)?;
            return Ok(Stored::TooLarge);
        }
        let row = if store.mode == Mode::Append { rows().append } else { rows().set };
        let max = self.item_size_max;
        let done = self.keyed(row, store.key, |ctx| put(ctx, store, max));
        let done = match done {
            Ok(done) => done?,
            Err(Refusal::Error(error)) if error.starts_with("OOM ") => {
                self.drop_unstored(store)?;
                return Err(Refusal::Error(error));
            }
            Err(refusal) => return Err(refusal),
        };
        self.note_large(row, store.key, (store.key.len() + store.value.len(), 0));
        if matches!(done, Stored::Stored(_)) {
            self.count(Count::TotalItems);
        }
        if store.cas.is_some() {
            match done {
                Stored::Stored(_) => self.count(Count::CasHits),
                Stored::Exists => self.count(Count::CasBadval),
                Stored::NotFound => self.count(Count::CasMisses),
                Stored::NotStored | Stored::TooLarge => {}
            }
        }
        Ok(done)
    }

    /// An item of this value may be stored.
    pub fn fits(&self, key: &[u8], value_bytes: usize) -> bool {
        key.len() + value_bytes + ITEM_OVERHEAD <= self.item_size_max
    }

    /// What a client believes to have overwritten must not be read any more.
    pub fn drop_unstored(&mut self, store: &Store<'_>) -> Result<(), Refusal> {
        if store.mode == Mode::Set && store.cas.is_none() {
            match self.keyed(rows().del, store.key, |ctx| remove(ctx, store.key)) {
                Ok(_) => {}
                Err(Refusal::Elsewhere(to)) => {
                    let delete = binary::quiet_delete(&to.key);
                    self.put(*to, &delete, false, Form::Silent);
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    /// Counts a number up or down.
    pub fn add(&mut self, count: &Count1<'_>) -> Result<Counted, Refusal> {
        let row = if count.down { rows().decrby } else { rows().incrby };
        let done = self.keyed(row, count.key, |ctx| calculate(ctx, count))??;
        match (&done, count.down) {
            (Counted::Number { .. }, false) => self.count(Count::IncrHits),
            (Counted::Number { .. }, true) => self.count(Count::DecrHits),
            (Counted::NotFound, false) => self.count(Count::IncrMisses),
            (Counted::NotFound, true) => self.count(Count::DecrMisses),
            _ => {}
        }
        Ok(done)
    }

    /// Gives an item another expiry time; `false`: it is not there.
    pub fn touch(&mut self, key: &[u8], expire: Expire) -> Result<bool, Refusal> {
        let found = self.keyed(rows().pexpireat, key, |ctx| {
            let found = ctx.db.exists(key);
            if found {
                set_expiry(ctx, key, expire);
            }
            found
        })?;
        self.count(Count::CmdTouch);
        self.count(if found { Count::TouchHits } else { Count::TouchMisses });
        Ok(found)
    }

    /// Deletes an item, or what is asked of it.
    pub fn delete(&mut self, key: &[u8], how: Delete) -> Result<Deleted, Refusal> {
        let done = self.keyed(rows().del, key, |ctx| unmake(ctx, key, how))?;
        match done {
            Deleted::Deleted => self.count(Count::DeleteHits),
            Deleted::NotFound => self.count(Count::DeleteMisses),
            Deleted::Exists => {}
        }
        Ok(done)
    }

    /// Empties database 0, now or later.
    pub fn flush(&mut self, delay_s: i64) -> Result<(), Refusal> {
        let row = rows().flushdb;
        if (self.holds)(row, b"") {
            return Err(Refusal::Held);
        }
        self.count(Count::CmdFlush);
        let memcached = &self.executor.shared.memcached;
        match Expire::of(delay_s, self.executor.env.now_ms) {
            Expire::At(at) => {
                // Asked again when the time comes; who cannot write now is told so now.
                if let Some(error) = self.executor.shared.state.refuses_write() {
                    return Err(Refusal::Error(error));
                }
                memcached.set_flush(at);
                Ok(())
            }
            Expire::Never | Expire::Gone => {
                memcached.set_flush(0);
                flush_now(self.executor, self.session).map_err(Refusal::Error)
            }
        }
    }
}

/// Runs FLUSHDB for database 0.
fn flush_now(executor: &mut Executor<'_>, session: &mut Session) -> Result<(), String> {
    let mut reply = Reply::new(Vec::new(), false);
    executor.run(session, &mut reply, Some(rows().flushdb), &[b"FLUSHDB"], None);
    match reply.out.strip_prefix(b"-") {
        Some(error) => Err(String::from_utf8_lossy(error.trim_ascii_end()).into_owned()),
        None => Ok(()),
    }
}

/// Runs a flush whose time has come.
pub fn flush_if_due(executor: &mut Executor<'_>) {
    let shared = executor.shared;
    let at = shared.memcached.flush_at_ms();
    if at == 0 || at > executor.env.now_ms {
        return;
    }
    shared.memcached.set_flush(0);
    if shared.state.is_replica.load(Ordering::Acquire) {
        // It was primary when it was asked: later on, as one again, it would flush what others have written.
        return;
    }
    let info = ClientInfo::new(0, String::new(), String::new(), at, 0, 0);
    let mut session = Session::new(Arc::new(info), true);
    if let Err(error) = flush_now(executor, &mut session) {
        tracing::warn!(error, "a flush_all that was put off could not be made");
    }
}
