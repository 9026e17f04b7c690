//! What a command function is given, and what it says of what it did.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Command;
use crate::keyspace::Db;
use crate::resp::Reply;
use crate::server::{LoopStats, Shared};
use crate::session::Session;
use crate::waiters::{OnTimeout, Waiter};

/// What the journal gets when a command changed something.
#[derive(Default)]
pub enum Effects {
    /// The request as it came.
    #[default]
    Verbatim,
    /// Other requests in its place: what is random, relative or blocking is written as what it did.
    Rewritten(Vec<Vec<Vec<u8>>>),
    /// As `Rewritten`, each with its database: what a script did.
    Listed(super::exec::Journaled),
    /// None: a script that needs every lock has done nothing yet, and is to run again under them.
    Again,
}

/// A command under way. `args[0]` is its name; the arity has been checked and the keys are locked.
pub struct Ctx<'a, 'k> {
    pub shared: &'a Shared,
    /// Of the thread that runs it.
    pub stats: &'a LoopStats,
    pub session: &'a mut Session,
    pub reply: &'a mut Reply,
    pub args: &'a [&'a [u8]],
    pub db: &'a mut Db<'k>,
    pub command: &'static Command,
    /// How many changes were made; 0: nothing goes to the journal.
    pub dirty: u64,
    pub effects: Effects,
    /// A blocked command is tried again on behalf of its client: it must not block anew.
    pub retry: bool,
    /// Inside EXEC nothing waits: a blocking command answers as if its time were up.
    pub in_exec: bool,
}

impl<'a> Ctx<'a, '_> {
    #[inline]
    pub fn arg(&self, i: usize) -> &'a [u8] {
        self.args[i]
    }

    /// Says that a key was changed.
    #[inline]
    pub fn modified(&mut self, key: &[u8]) {
        self.dirty += 1;
        self.db.note_changed(key);
        if self.db.env.events != 0 {
            super::events::note(self.db, self.command, key);
        }
    }

    /// The same, where what is said to subscribers depends on what was done. That a collection is gone with its last
    /// element is said too.
    pub fn modified_as(&mut self, key: &[u8], class: u32, name: &'static str) {
        self.modified_to(key, class, name);
        super::events::note_emptied(self.db, key);
    }

    /// The same, where this is all that is said, although the key may be gone.
    pub fn modified_to(&mut self, key: &[u8], class: u32, name: &'static str) {
        self.dirty += 1;
        self.db.note_changed(key);
        self.db.note_event(class, name, key);
    }

    /// An argument as an integer; the error is already replied when it is not one.
    pub fn int_arg(&mut self, i: usize) -> Option<i64> {
        let n = crate::number::parse_i64(self.args[i]);
        if n.is_none() {
            self.reply.not_an_integer();
        }
        n
    }

    /// The same for what must fit 32 bits: the number of a database.
    pub fn i32_arg(&mut self, i: usize) -> Option<i32> {
        let n = i32::try_from(self.int_arg(i)?).ok();
        if n.is_none() {
            let (low, high) = (i32::MIN, i32::MAX);
            self.reply
                .error(&format!("ERR value is out of range, value must between {low} and {high}"));
        }
        n
    }

    /// An argument as a float; the error is already replied when it is not one.
    pub fn float_arg(&mut self, i: usize) -> Option<f64> {
        let n = crate::number::parse_f64(self.args[i]);
        if n.is_none() {
            self.reply.not_a_float();
        }
        n
    }

    /// An argument is this word, in any case.
    pub fn is_word(&self, i: usize, word: &str) -> bool {
        self.args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Blocks the client until one of the keys has something, or the time is up. The caller found
    /// nothing and has replied nothing; it holds the keys' locks.
    pub fn block(&mut self, keys: &[&[u8]], deadline_ms: i64, on_timeout: OnTimeout) {
        if !self.retry {
            let args = self.args.iter().map(|a| a.to_vec()).collect();
            self.block_as(args, keys, deadline_ms, on_timeout);
        }
    }

    /// The same with other arguments than those that came, to be tried again with.
    pub fn block_as(
        &mut self,
        args: Vec<Vec<u8>>,
        keys: &[&[u8]],
        deadline_ms: i64,
        on_timeout: OnTimeout,
    ) {
        if self.retry {
            return;
        }
        if self.in_exec || self.session.from_primary {
            match on_timeout {
                OnTimeout::NullArray => self.reply.null_array(),
                OnTimeout::Null => self.reply.null(),
            }
            return;
        }
        let waiter = Arc::new(Waiter::new(
            self.session.info.clone(),
            self.command,
            args,
            self.db.index,
            self.session.resp3,
            keys.iter().map(|k| k.to_vec()).collect(),
            deadline_ms,
            on_timeout,
        ));
        self.shared.waiters.block(&waiter);
        self.session.info.blocked.store(true, Ordering::Relaxed);
        self.session.waiter = Some(waiter);
    }

    /// A timeout in seconds, as the blocking commands take it: when it ends (0: never).
    pub fn deadline_arg(&mut self, i: usize) -> Option<i64> {
        let text = self.args[i];
        let beyond = || crate::number::parse_bound(text).filter(|s| s.is_infinite());
        let Some(seconds) = crate::number::parse_f64(text).or_else(beyond) else {
            self.reply.error("ERR timeout is not a float or out of range");
            return None;
        };
        if seconds < 0.0 {
            self.reply.error("ERR timeout is negative");
            return None;
        }
        if !seconds.is_finite() || seconds * 1000.0 > (i64::MAX - self.db.now_ms()) as f64 {
            self.reply.error("ERR timeout is out of range");
            return None;
        }
        let ms = (seconds * 1000.0).ceil() as i64;
        Some(if ms == 0 { 0 } else { self.db.now_ms() + ms })
    }

    /// Writes another request to the journal than the one that came. May be called several times.
    pub fn propagate(&mut self, request: &[&[u8]]) {
        let request = request.iter().map(|a| a.to_vec()).collect();
        match &mut self.effects {
            Effects::Rewritten(requests) => requests.push(request),
            Effects::Verbatim | Effects::Again => {
                self.effects = Effects::Rewritten(vec![request]);
            }
            Effects::Listed(requests) => requests.push((self.db.index, request)),
        }
    }

    /// Writes a request to the journal that changes no key: replicas and the log are to know it. A member
    /// that takes no writes does it for itself only. Under every lock.
    pub fn journal_script(&mut self, request: &[&[u8]]) {
        if self.session.from_primary || self.shared.state.refuses_write().is_none() {
            self.dirty += 1;
            self.propagate(request);
        }
    }

    /// Writes nothing to the journal although something changed.
    pub fn propagate_nothing(&mut self) {
        self.effects = Effects::Rewritten(Vec::new());
    }

    /// `ERR unknown subcommand` as clients know it.
    pub fn unknown_subcommand(&mut self) {
        let name = String::from_utf8_lossy(self.args[1]).chars().take(128).collect::<String>();
        self.reply.error(&format!(
            "ERR unknown subcommand '{name}'. Try {} HELP.",
            self.command.name.to_ascii_uppercase()
        ));
    }

    /// The subcommand is known, its arguments make no sense.
    pub fn bad_subcommand(&mut self) {
        let sub = super::exec::printable(self.args[1]);
        self.reply.error(&format!(
            "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {} HELP.",
            self.command.name.to_ascii_uppercase()
        ));
    }

    /// The lines that a HELP subcommand answers.
    pub fn help(&mut self, lines: &[&str]) {
        self.reply.array(lines.len() + 2);
        lines.iter().for_each(|line| self.reply.simple(line));
        self.reply.simple("HELP");
        self.reply.simple("    Print this help.");
    }

    /// `ERR wrong number of arguments` for a subcommand.
    pub fn wrong_sub_arity(&mut self) {
        let sub = super::exec::printable(self.args[1]).to_ascii_lowercase();
        let name = self.command.name;
        self.reply.error(&format!("ERR wrong number of arguments for '{name}|{sub}' command"));
    }

    /// `ERR wrong number of arguments`, for arities that the table cannot say.
    pub fn wrong_arity(&mut self) {
        self.reply
            .error(&format!("ERR wrong number of arguments for '{}' command", self.command.name));
    }
}
