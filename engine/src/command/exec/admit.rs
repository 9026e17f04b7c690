//! Everything that can refuse a request before it runs.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Executor;
use crate::acl::{self, Context};
use crate::command::{Command, Keys, flag, scripting};
use crate::eviction::OOM;
use crate::session::Session;
use crate::topology::slot_of;

/// What is answered while the data set is not there.
pub(crate) const LOADING: &str = "LOADING Larder is loading the dataset in memory";
/// What a replica answers that has lost its primary, where it shall not serve what may be out of date.
pub(crate) const STALE: &str =
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";

/// What a quick write adds besides its arguments, at most, bytes.
const WRITE_OVERHEAD: i64 = 256;

impl Executor<'_> {
    /// Everything that can refuse a request before it runs.
    pub(super) fn check(
        &mut self,
        session: &mut Session,
        command: &'static Command,
        args: &[&[u8]],
        hint: Option<(u64, u16)>,
    ) -> Result<(), String> {
        if !command.arity_fits(args.len()) {
            return Err(format!("ERR wrong number of arguments for '{}' command", command.name));
        }
        self.admit(session, command, args, hint)
    }

    /// The same, without the number of arguments.
    #[inline]
    pub(super) fn admit(
        &mut self,
        session: &mut Session,
        command: &'static Command,
        args: &[&[u8]],
        hint: Option<(u64, u16)>,
    ) -> Result<(), String> {
        if session.from_primary || session.importing {
            return Ok(());
        }
        if !session.authenticated && !command.is(flag::NO_AUTH) {
            return Err("NOAUTH Authentication required.".into());
        }
        if session.rights.restricted {
            self.check_rights(session, command, args)?;
        }
        if session.in_subscribe_mode() && !command.is(flag::IN_SUBSCRIBE) {
            return Err(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
                 are allowed in this context",
                command.name
            ));
        }
        if self.is_busy && !scripting::answers_while_busy(command, args) {
            return Err(self.shared.scripts.busy_reply().into());
        }
        if session.monitors && (!matches!(command.keys, Keys::None) || command.is(flag::WRITE)) {
            return Err("ERR Replica can't interact with the keyspace".into());
        }
        if session.queue.is_some() && command.is(flag::NO_MULTI) {
            return Err("ERR Command not allowed inside a transaction".into());
        }
        if self.shared.state.loading.load(Ordering::Acquire) && !command.is(flag::LOADING) {
            return Err(LOADING.into());
        }
        let slot = match command.keys {
            Keys::Range { first: 1, last: 1, .. } => hint.map(|(_, slot)| slot),
            _ => None,
        };
        self.shared.route(session, command, args, slot)?;
        if session.redirects
            && let Some(elsewhere) = self.redirection(session, command)
        {
            return Err(elsewhere);
        }
        let has_keys = has_keys(command);
        if has_keys || command.writes(args) {
            self.check_lease(session)?;
        }
        if command.is(flag::WRITE) {
            self.check_write(command, args)?;
        } else if command.is(flag::SCRIPT) {
            self.make_room();
        } else if command.name == "exec" {
            self.check_queue(session)?;
        }
        if self.shared.is_stale() && !command.is(flag::STALE) {
            return Err(STALE.into());
        }
        if let Some(error) = self.shared.too_stale(session)
            && (has_keys || command.is(flag::READONLY))
        {
            return Err(error);
        }
        Ok(())
    }

    /// May the session's user make this request?
    #[cold]
    fn check_rights(
        &self,
        session: &Session,
        command: &'static Command,
        args: &[&[u8]],
    ) -> Result<(), String> {
        let context = if session.queue.is_some() { Context::Multi } else { Context::TopLevel };
        let now_ms = self.env.now_ms;
        acl::refusal(self.shared, session, command, args, context, now_ms).map_or(Ok(()), Err)
    }

    /// Where the primary is, for a client of a replica outside of any cluster that has asked to be told so.
    #[cold]
    fn redirection(&self, session: &Session, command: &'static Command) -> Option<String> {
        let shared = self.shared;
        let reads = command.is(flag::READONLY) && !session.readonly;
        if shared.cluster.is_enabled() || !(command.is(flag::WRITE) || reads) {
            return None;
        }
        shared.replication.followed().map(|(host, port)| format!("REDIRECT {host}:{port}"))
    }

    /// A primary that the council manages answers for its keys only while its lease holds, reads too: another
    /// one may have written meanwhile.
    #[inline(always)]
    fn check_lease(&self, session: &mut Session) -> Result<(), String> {
        let state = &self.shared.state;
        let lease = state.lease_until_ms.load(Ordering::Acquire);
        if lease == u64::MAX {
            return Ok(());
        }
        if state.is_replica.load(Ordering::Acquire) {
            // Clients are sent to whoever the topology names. One that was restarted, or does not act as primary yet,
            // does not know what another may have written meanwhile.
            if self.shared.cluster.names_us_primary() && !session.readonly {
                return Err("CLUSTERDOWN The primary has no lease".into());
            }
            return Ok(());
        }
        if self.mono_ms >= lease {
            return Err("CLUSTERDOWN The primary's lease has ended".into());
        }
        // One that began in this very turn holds from the next one on: only what has waited in vain is refused.
        if self.shared.hold.is_vain(self.mono_ms) {
            return Err("CLUSTERDOWN The shard's primary is changing".into());
        }
        if session.leased == 0 {
            // Read before it is executed: it is executed in this reign, or not acknowledged.
            session.leased = state.reign.load(Ordering::Acquire);
        }
        Ok(())
    }

    /// May this member take writes now, and is there room?
    #[inline(always)]
    fn check_write(&mut self, command: &'static Command, args: &[&[u8]]) -> Result<(), String> {
        let state = &self.shared.state;
        if let Some(error) = state.refuses_write() {
            return Err(error);
        }
        if let Some(error) = self.shared.quorum.refusal() {
            return Err(error.into());
        }
        if command.is(flag::DENYOOM) && self.shared.config.maxmemory() > 0 {
            self.check_room(command, args)?;
        }
        Ok(())
    }

    /// Quick writes add little more than their arguments: used memory is summed up only when what the
    /// last look left free may be used up. Others may add any amount, so that each is looked at.
    fn check_room(&mut self, command: &'static Command, args: &[&[u8]]) -> Result<(), String> {
        if command.is(flag::FAST | flag::QUICK) {
            let bytes: usize = args.iter().map(|a| a.len()).sum();
            self.room -= bytes as i64 + WRITE_OVERHEAD;
            if self.room > 0 {
                return Ok(());
            }
        }
        match crate::eviction::make_room(self.shared, &self.env) {
            Some(room) => {
                self.room = room;
                Ok(())
            }
            None => {
                self.room = 0;
                Err(OOM.into())
            }
        }
    }

    /// Ahead of a script, which looks for itself whether there was any.
    pub(super) fn make_room(&mut self) {
        if self.shared.config.maxmemory() > 0 {
            self.room = crate::eviction::make_room(self.shared, &self.env).unwrap_or(0);
        }
    }

    /// What was checked when the commands were queued may hold no more: a lost lease, a moved slot.
    fn check_queue(&mut self, session: &mut Session) -> Result<(), String> {
        if session.queue.as_ref().is_none_or(|q| q.aborted) {
            return Ok(());
        }
        self.check_lease(session)?;
        let Some(queue) = &session.queue else { return Ok(()) };
        let mut common = None;
        for (command, args) in &queue.commands {
            let args: SmallVec<[&[u8]; 8]> = args.iter().map(Vec::as_slice).collect();
            if self.shared.cluster.is_enabled() {
                for at in command.key_positions(&args) {
                    let slot = slot_of(args[at]);
                    if *common.get_or_insert(slot) != slot {
                        return Err("CROSSSLOT Keys in request don't hash to the same slot".into());
                    }
                }
                self.shared.route(session, command, &args, None)?;
            }
            if command.is(flag::WRITE) {
                self.check_write(command, &args)?;
            } else if command.is(flag::SCRIPT) {
                self.make_room();
            }
        }
        let reads = |(c, _): &(&Command, _)| has_keys(c) || c.is(flag::READONLY);
        match self.shared.too_stale(session) {
            Some(error) if queue.commands.iter().any(reads) => Err(error),
            _ => Ok(()),
        }
    }
}

fn has_keys(command: &Command) -> bool {
    !matches!(command.keys, Keys::None) && !command.is(flag::PUBSUB)
}
