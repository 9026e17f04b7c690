//! What a command leaves behind while its locks are still held: journal, watched keys, remembered reads.

use super::Executor;
use crate::command::{Command, Effects, flag};
use crate::keyspace::{Db, DbKeys};
use crate::server::{Shared, bump};
use crate::session::Session;
use crate::tracking::Remembers;

/// Keys that changed.
pub(super) type Changed = DbKeys;

/// Effects of one request or of a whole transaction, for the journal.
pub(crate) type Journaled = Vec<(u16, Vec<Vec<u8>>)>;

impl Executor<'_> {
    /// Writes what one command did to the journal, while its locks are held.
    #[inline]
    pub(super) fn journal(
        &self,
        session: &mut Session,
        db: &mut Db<'_>,
        args: &[&[u8]],
        dirty: u64,
        effects: &mut Effects,
    ) {
        let shared = self.shared;
        shared.state.dirty.add(self.env.thread, dirty as i64);
        if session.from_primary || !shared.writes_journal() {
            db.take_expired();
            return;
        }
        self.write_journal(session, db, args, dirty, std::mem::take(effects));
    }

    fn write_journal(
        &self,
        session: &mut Session,
        db: &mut Db<'_>,
        args: &[&[u8]],
        dirty: u64,
        effects: Effects,
    ) {
        let shared = self.shared;
        if !db.has_expired() && matches!(effects, Effects::Verbatim) {
            session.last_write = shared.journal.append(db.index, args);
            return;
        }
        let mut out = Journaled::new();
        collect(&mut out, db, args, dirty, effects);
        if !out.is_empty() {
            session.last_write = shared.journal.append_all(&out);
        }
    }

    /// Remembers, while the locks are held, which offset the reply has to wait for.
    #[inline]
    pub(super) fn note_quorum(&self, session: &mut Session, db: &mut Db<'_>, writes: bool) {
        let quorum = &self.shared.quorum;
        if !quorum.is_on() || session.from_primary {
            return;
        }
        let wrote = writes.then(|| self.shared.journal.end());
        let gates = db.locked().slots().map(|slot| quorum.gate(slot, wrote));
        session.quorum_gate = gates.max().unwrap_or(0).max(session.quorum_gate);
    }

    /// Remembers, while the locks are held, who has read what.
    #[inline]
    pub(super) fn remember(&self, session: &Session, command: &'static Command, args: &[&[u8]]) {
        remember(self.shared, session, command, args);
    }

    /// The keys that changed. Who watches them is told while their locks are held: an EXEC that waits for
    /// the locks must find it (see: a_watched_key_cannot_change_unseen).
    #[inline]
    pub(super) fn changed(&self, db: &mut Db<'_>, by: u64) -> Changed {
        self.shared.tell(db, by)
    }

    #[inline]
    pub(super) fn count(&self, db: &Db<'_>) {
        if db.hits + db.misses > 0 {
            bump(&self.stats.hits, db.hits);
            bump(&self.stats.misses, db.misses);
        }
    }
}

/// Remembers, while the locks are held, who has read what.
#[inline]
pub(crate) fn remember(
    shared: &Shared,
    session: &Session,
    command: &'static Command,
    args: &[&[u8]],
) {
    if session.remembers != Remembers::Nothing {
        remember_reads(shared, session, command, args);
    }
}

#[cold]
fn remember_reads(shared: &Shared, session: &Session, command: &'static Command, args: &[&[u8]]) {
    let wanted = match session.remembers {
        Remembers::Nothing => false,
        Remembers::Reads => true,
        Remembers::OptIn => session.caching,
        Remembers::OptOut => !session.caching,
    };
    if wanted && command.is(flag::READONLY) {
        let keys = command.key_positions(args);
        shared.remember_reads(keys.iter().map(|i| args[*i]), session.info.id);
    }
}

/// Puts the journal's requests of one command behind `out`.
pub(crate) fn collect(
    out: &mut Journaled,
    db: &mut Db<'_>,
    args: &[&[u8]],
    dirty: u64,
    effects: Effects,
) {
    out.extend(db.take_expired().into_iter().map(|(at, key)| (at, vec![b"DEL".to_vec(), key])));
    if let Effects::Listed(requests) = effects {
        out.extend(requests);
        return;
    }
    if dirty == 0 {
        return;
    }
    match effects {
        Effects::Listed(_) | Effects::Again => {}
        Effects::Verbatim => out.push((db.index, args.iter().map(|a| a.to_vec()).collect())),
        Effects::Rewritten(requests) => {
            out.extend(requests.into_iter().map(|request| (db.index, request)));
        }
    }
}
