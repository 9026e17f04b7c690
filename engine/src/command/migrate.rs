//! MIGRATE: keys go to another server, and are deleted here once they are there.
//!
//! The server goes on meanwhile, so that a key may change while it is on its way. So it is compared, under its
//! lock, with what was sent before it is deleted: what has changed is sent again.
//!
//! ```text
//! dump (lock) -> RESTORE-ASKING ... -> +OK -> same as sent? (lock) -> DEL, one effect -> reply
//!    ^                                           | changed: again, with REPLACE; gone: DEL at the target
//!    +-------------------------------------------+
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;

use super::deferred::Deferred;
use super::dump::payload;
use super::{Command, Ctx, Group, Keys, flag};
use crate::clock;
use crate::keyspace::Db;
use crate::lazy;
use crate::notify::class;
use crate::persist::load;
use crate::resp::encode_request;
use crate::server::Shared;
use crate::stream::Stream;
use crate::tally::Tally;
use crate::topology::slot_of;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("migrate", -6, flag::WRITE | flag::MOVABLE_KEYS, Keys::Custom(keys), Group::Generic, "2.6.0", "Moves keys to another server.", migrate),
    Command::new("restore-asking", -4, flag::WRITE | flag::DENYOOM, Keys::FIRST, Group::Server, "3.0.0", "Makes a key from the bytes of DUMP in a slot that is being moved here.", super::dump::restore),
];

/// How often a key that changes on its way is sent.
const ROUNDS_MAX: usize = 64;
/// Longest line that a target answers, bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

fn keys(args: &[&[u8]]) -> SmallVec<[usize; 8]> {
    match args.get(3) {
        // Of a command line that is not whole, as COMMAND asks for it: where the key would be.
        None => SmallVec::from_slice(&[3]),
        Some(key) if !key.is_empty() => SmallVec::from_slice(&[3]),
        _ => {
            let word = |i: usize, word: &str| args[i].eq_ignore_ascii_case(word.as_bytes());
            let mut i = 6;
            while i < args.len() {
                if word(i, "keys") {
                    return (i + 1..args.len()).collect();
                }
                i += if word(i, "auth") { 2 } else { 1 + 2 * usize::from(word(i, "auth2")) };
            }
            SmallVec::new()
        }
    }
}

struct Job {
    host: String,
    port: u16,
    target_db: i64,
    timeout: Duration,
    copy: bool,
    replace: bool,
    auth: Vec<Vec<u8>>,
    db: u16,
    keys: Vec<Vec<u8>>,
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password] [KEYS key ...]`
fn migrate(ctx: &mut Ctx<'_, '_>) {
    if ctx.in_exec {
        // Nothing waits there, and the answer is not known before the target has spoken.
        return ctx.reply.error("ERR MIGRATE is not supported inside a transaction");
    }
    let (mut copy, mut replace, mut auth) = (false, false, Vec::new());
    let mut i = 6;
    while i < ctx.args.len() {
        let left = ctx.args.len() - i - 1;
        if ctx.is_word(i, "copy") {
            copy = true;
        } else if ctx.is_word(i, "replace") {
            replace = true;
        } else if ctx.is_word(i, "auth") && left >= 1 {
            auth = vec![ctx.args[i + 1].to_vec()];
            i += 1;
        } else if ctx.is_word(i, "auth2") && left >= 2 {
            auth = vec![ctx.args[i + 1].to_vec(), ctx.args[i + 2].to_vec()];
            i += 2;
        } else if ctx.is_word(i, "keys") {
            if !ctx.args[3].is_empty() {
                return ctx.reply.error(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the \
                     empty string",
                );
            }
            break;
        } else {
            return ctx.reply.syntax_error();
        }
        i += 1;
    }
    let Some(timeout) = ctx.int_arg(5) else { return };
    let Some(target_db) = ctx.int_arg(4) else { return };
    let Some(port) = ctx.int_arg(2) else { return };
    let timeout = if timeout <= 0 { 1000 } else { timeout as u64 };
    let places = keys(ctx.args);
    let found: Vec<Vec<u8>> = places
        .iter()
        .map(|at| ctx.args[*at])
        .filter(|key| ctx.db.peek(key).is_some())
        .map(<[u8]>::to_vec)
        .collect();
    if found.is_empty() {
        return ctx.reply.simple("NOKEY");
    }
    let job = Job {
        host: String::from_utf8_lossy(ctx.args[1]).into_owned(),
        port: u16::try_from(port).unwrap_or(0),
        target_db,
        timeout: Duration::from_millis(timeout),
        copy,
        replace,
        auth,
        db: ctx.db.index,
        keys: found,
    };
    ctx.answer_later("migrate", move |shared, client| answer(client, job.run(shared)));
}

fn answer(client: Option<Deferred>, done: Result<(), String>) {
    let Some(client) = client else { return };
    client.answer_write(|reply| match done {
        Ok(()) => reply.ok(),
        Err(why) => reply.error(&why),
    });
}

/// A key as it was sent.
struct Sent {
    key: Vec<u8>,
    payload: Vec<u8>,
    ttl: Option<i64>,
}

impl Job {
    fn run(mut self, shared: &Arc<Shared>) -> Result<(), String> {
        let mut target = Target::open(&self, shared)?;
        let mut failed = None;
        for round in 0..ROUNDS_MAX {
            let sent = self.dump(shared);
            let answers = target.restore(&sent, self.replace || round > 0)?;
            let mut there = Vec::new();
            for (sent, answer) in sent.into_iter().zip(answers) {
                match answer {
                    Ok(()) => there.push(sent),
                    Err(why) => failed = failed.or(Some(why)),
                }
            }
            if self.copy || there.is_empty() {
                break;
            }
            let gone = self.delete(shared, there)?;
            target.delete(&gone)?;
            if self.keys.is_empty() {
                break;
            }
        }
        match failed {
            Some(why) => Err(format!("ERR Target instance replied with error: {why}")),
            None if !self.copy && !self.keys.is_empty() => {
                Err("ERR a key changes faster than it can be moved".to_owned())
            }
            None => Ok(()),
        }
    }

    /// The keys that are still here, as they are now.
    fn dump(&self, shared: &Shared) -> Vec<Sent> {
        let env = load::env(shared);
        let look = |key: &Vec<u8>| {
            let locked = shared.keyspace.lock_slot(slot_of(key));
            let mut db = Db::new(locked, self.db, &env, None);
            let entry = db.peek(key)?;
            if entry.ttl().is_some_and(|at| at <= env.now_ms) {
                return None;
            }
            Some(Sent { key: key.clone(), payload: payload(entry), ttl: entry.ttl() })
        };
        self.keys.iter().filter_map(look).collect()
    }

    /// Deletes what is as it was sent, as one effect, and keeps in `keys` what has changed. Gives those that were
    /// deleted or have expired here meanwhile.
    fn delete(&mut self, shared: &Shared, there: Vec<Sent>) -> Result<Vec<Vec<u8>>, String> {
        let mut env = load::env(shared);
        // Roles change only while nothing like this is under way.
        let _importing = shared.moves.importing();
        let slots = there.iter().map(|sent| slot_of(&sent.key)).collect();
        let locked = shared.keyspace.lock_slots(slots);
        may_write(shared, &there)?;
        shared.heed(&mut env);
        let preimages = shared.preimages();
        let mut db = Db::new(locked, self.db, &env, preimages.as_deref());
        let (mut deleted, mut gone) = (Vec::new(), Vec::new());
        self.keys.clear();
        for sent in there {
            let same =
                db.peek(&sent.key).map(|e| e.ttl() == sent.ttl && payload(e) == sent.payload);
            match same {
                None => gone.push(sent.key),
                Some(false) => self.keys.push(sent.key),
                Some(true) => {
                    if let Some(entry) = db.take(&sent.key) {
                        lazy::free(entry);
                    }
                    db.note_changed(&sent.key);
                    db.note_event(class::GENERIC, "del", &sent.key);
                    deleted.push(sent.key);
                }
            }
        }
        if shared.journal.is_active() && !deleted.is_empty() {
            let mut request: Vec<&[u8]> = vec![b"DEL"];
            request.extend(deleted.iter().map(Vec::as_slice));
            shared.journal.append(self.db, &request);
        }
        shared.tell(&mut db, 0);
        shared.state.dirty.add(Tally::ANY_THREAD, deleted.len() as i64);
        Ok(gone)
    }
}

/// This server may still write to these keys; it holds their locks.
fn may_write(shared: &Shared, keys: &[Sent]) -> Result<(), String> {
    let state = &shared.state;
    if let Some(why) = state.refuses_write() {
        return Err(why);
    }
    if clock::monotonic_ms() >= state.lease_until_ms.load(Ordering::Acquire) {
        return Err("CLUSTERDOWN The primary's lease has ended".into());
    }
    let owns = |sent: &Sent| {
        let slot = slot_of(&sent.key);
        shared.cluster.owns(slot) || shared.cluster.imports(slot)
    };
    if shared.hold.is_on() || shared.cluster.is_enabled() && !keys.iter().all(owns) {
        return Err("CLUSTERDOWN The shard's primary or the slot's owner is changing".into());
    }
    Ok(())
}

/// The server that the keys go to.
struct Target {
    stream: BufReader<Stream>,
    in_cluster: bool,
}

fn io_error(what: &str) -> String {
    format!("IOERR error or timeout {what}")
}

impl Target {
    fn open(job: &Job, shared: &Shared) -> Result<Target, String> {
        let failed = |_: io::Error| io_error("connecting to the client");
        let config = &shared.config;
        let tls = match config.is_yes("tls-cluster") {
            true => Some(shared.tls.dialling(config).map_err(failed)?),
            false => None,
        };
        let stream = Stream::dial(&job.host, job.port, None, tls, job.timeout).map_err(failed)?;
        let set = stream
            .set_read_timeout(Some(job.timeout))
            .and_then(|()| stream.set_write_timeout(Some(job.timeout)));
        set.map_err(failed)?;
        let in_cluster = shared.cluster.is_enabled();
        let mut target = Target { stream: BufReader::new(stream), in_cluster };
        let mut requests = Vec::new();
        if !job.auth.is_empty() {
            let mut request: Vec<&[u8]> = vec![b"AUTH"];
            request.extend(job.auth.iter().map(Vec::as_slice));
            encode_request(&mut requests, &request);
        }
        encode_request(
            &mut requests,
            &[b"SELECT".as_slice(), job.target_db.to_string().as_bytes()],
        );
        target.send(&requests)?;
        for _ in 0..1 + usize::from(!job.auth.is_empty()) {
            let replied = |why| format!("ERR Target instance replied with error: {why}");
            target.line()?.map_err(replied)?;
        }
        Ok(target)
    }

    fn restore(&mut self, sent: &[Sent], replace: bool) -> Result<Vec<Result<(), String>>, String> {
        let name: &[u8] = if self.in_cluster { b"RESTORE-ASKING" } else { b"RESTORE" };
        let now = clock::unix_ms();
        let mut requests = Vec::new();
        for one in sent {
            let ttl = one.ttl.map_or(0, |at| (at - now).max(1)).to_string();
            let mut request = vec![name, &one.key, ttl.as_bytes(), &one.payload];
            if replace {
                request.push(b"REPLACE");
            }
            encode_request(&mut requests, &request);
        }
        self.send(&requests)?;
        sent.iter().map(|_| self.line()).collect()
    }

    /// Takes back what was sent and is here no more.
    fn delete(&mut self, keys: &[Vec<u8>]) -> Result<(), String> {
        for key in keys {
            let mut requests = Vec::new();
            if self.in_cluster {
                encode_request(&mut requests, &[b"ASKING"]);
            }
            encode_request(&mut requests, &[b"DEL".as_slice(), key]);
            self.send(&requests)?;
            for _ in 0..1 + usize::from(self.in_cluster) {
                let replied = |why| format!("ERR Target instance replied with error: {why}");
                self.line()?.map_err(replied)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, requests: &[u8]) -> Result<(), String> {
        let written = self.stream.get_mut().write_all(requests);
        written.map_err(|_| io_error("writing to target instance"))
    }

    /// One answer of one line: done, or the error's text.
    fn line(&mut self) -> Result<Result<(), String>, String> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.is_err() || line.last() != Some(&b'\n') {
            return Err(io_error("reading from target instance"));
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        Ok(match text.strip_prefix('-') {
            Some(error) => Err(error.to_owned()),
            None => Ok(()),
        })
    }
}
