//! Requests of one connection: decoded ahead, their keys fetched together, then run one by one.
//!
//! ```text
//! decode up to BATCH requests; hash each key: its table is on its way
//!   -> each key's bucket is on its way -> each key's entry is on its way
//!   -> in large hashes and sets each field or member is looked up -> run each
//! ```
//!
//! Why in steps: a key is three loads that each need the one before, and with more data than cache each
//! is a miss. Step by step over the batch, the misses of all its keys overlap.

use smallvec::SmallVec;

use super::EventLoop;
use super::conn::Conn;
use super::conn::TURN_BYTES;
use super::pause::Pause;
use crate::busy;
use crate::command::exec::Executor;
use crate::command::{Command, Finder, Group, Keys, flag};
use crate::keyspace::hash_key;
use crate::resp::{Decoder, Limits, ProtocolError, Reply, whole_request};
use crate::session::{After, Session};
use crate::topology::slot_of;

/// Requests that are decoded ahead.
const BATCH: usize = 16;

/// Requests that were decoded and not run yet.
#[derive(Default)]
struct Ahead<'b> {
    requests: SmallVec<[Request; BATCH]>,
    /// Their arguments, one after another.
    args: SmallVec<[&'b [u8]; BATCH * 4]>,
    /// The words of those among them that are inline: they do not lie in the buffer.
    words: Vec<Vec<u8>>,
    finder: Finder,
    /// Not all keys are asked for as strings.
    has_members: bool,
}

struct Request {
    command: Option<&'static Command>,
    /// Where its arguments begin and end in `Ahead::args`, or its words in `Ahead::words`.
    args: (usize, usize),
    is_inline: bool,
    /// Hash and slot of its first key.
    hint: Option<(u64, u16)>,
    /// Where the next request begins in the buffer.
    end: usize,
}

impl Request {
    #[inline]
    fn args_in<'a, 'b>(&self, args: &'a [&'b [u8]]) -> &'a [&'b [u8]] {
        if self.is_inline { &[] } else { &args[self.args.0..self.args.1] }
    }
}

impl<'b> Ahead<'b> {
    /// Takes in the request whose arguments were pushed from `begin` on.
    #[inline(always)]
    fn push(&mut self, begin: usize, end: usize) {
        let args = &self.args[begin..];
        let (command, hint) = match args {
            [] => (None, None),
            [name] => (self.finder.find(name), None),
            [name, key, ..] => {
                let command = self.finder.find(name);
                let hint = match command {
                    Some(c) if matches!(c.keys, Keys::Range { first: 1, .. }) => {
                        // Strings come by one to a key; of a collection one element after the other is asked for.
                        let again = if matches!(c.group, Group::String) {
                            None
                        } else {
                            self.has_members = true;
                            self.again(key)
                        };
                        again.or_else(|| Some((hash_key(key), slot_of(key))))
                    }
                    _ => None,
                };
                (command, hint)
            }
        };
        let args = (begin, begin + args.len());
        self.requests.push(Request { command, args, is_inline: false, hint, end });
    }

    /// Hash and slot of the key of the request before, if this is the same.
    #[inline]
    fn again(&self, key: &[u8]) -> Option<(u64, u16)> {
        let last = self.requests.last()?;
        (self.args_of(last).get(1) == Some(&key)).then_some(last.hint).flatten()
    }

    /// The same, of an inline request.
    #[cold]
    fn push_words(&mut self, words: Vec<Vec<u8>>, end: usize) {
        let command = words.first().and_then(|name| self.finder.find(name));
        let begin = self.words.len();
        self.words.extend(words);
        let args = (begin, self.words.len());
        self.requests.push(Request { command, args, is_inline: true, hint: None, end });
    }

    /// The arguments of a request; of one that is inline, none.
    #[inline]
    fn args_of(&self, one: &Request) -> &[&'b [u8]] {
        one.args_in(&self.args)
    }

    /// The words of one that is inline.
    #[cold]
    fn words_of(&self, one: &Request) -> SmallVec<[&[u8]; 8]> {
        self.words[one.args.0..one.args.1].iter().map(Vec::as_slice).collect()
    }

    /// Decodes up to `many` requests from `start` on.
    fn decode(
        &mut self,
        decoder: &mut Decoder,
        buffer: &'b [u8],
        start: usize,
        limits: Limits,
        many: usize,
    ) -> Result<(), ProtocolError> {
        let mut at = start;
        while self.requests.len() < many {
            let begin = self.args.len();
            if !decoder.in_request()
                && let Some(end) = whole_request(buffer, at, limits, &mut self.args)
            {
                at = end;
                self.push(begin, end);
                continue;
            }
            let Some(end) = decoder.next(buffer, at, limits)? else { return Ok(()) };
            at = end;
            self.push_decoded(decoder, buffer, end);
        }
        Ok(())
    }

    /// Takes in what was not seen at a glance.
    #[cold]
    fn push_decoded(&mut self, decoder: &mut Decoder, buffer: &'b [u8], end: usize) {
        if decoder.unquoted.is_empty() {
            let begin = self.args.len();
            self.args.extend(decoder.args.iter().map(|(a, b)| &buffer[*a..*b]));
            self.push(begin, end);
        } else {
            self.push_words(std::mem::take(&mut decoder.unquoted), end);
        }
    }

    fn clear(&mut self) {
        self.requests.clear();
        self.args.clear();
        self.words.clear();
        self.has_members = false;
    }
}

impl EventLoop {
    /// Runs the whole requests of a buffer; gives how many bytes they took.
    pub(super) fn process(
        &mut self,
        conn: &mut Conn,
        buffer: &[u8],
        executor: &mut Executor<'_>,
        budget: &mut usize,
    ) -> usize {
        if conn.out.capacity() == 0 {
            conn.out = self.spare.take();
        }
        conn.is_held = false;
        if conn.memcached.is_some() {
            return self.process_memcached(conn, buffer, executor, budget);
        }
        let mut reply = Reply::new(std::mem::take(&mut conn.out), conn.session.resp3)
            .holding(std::mem::take(&mut conn.values), !conn.stream.is_tls())
            .within(TURN_BYTES.saturating_add(self.hot.reply_bytes_max));
        if self.shared.acl.is_newer(&conn.session.rights) {
            self.shared.acl.refresh(&mut conn.session);
        }
        let mut start = 0;
        let mut ahead = Ahead::default();
        'turn: loop {
            let limits = Limits {
                authenticated: conn.session.authenticated,
                bulk_bytes_max: self.hot.proto_max_bulk_len,
            };
            let many = if conn.session.authenticated { BATCH.min(*budget) } else { 1 };
            let decoded = ahead.decode(&mut conn.decoder, buffer, start, limits, many);
            if ahead.requests.is_empty() && decoded.is_ok() {
                break;
            }
            if ahead.requests.len() > 1 {
                self.fetch(conn.session.db, &ahead);
            }
            let may_hold = self.pause != Pause::Nobody || self.held_slots.slots.is_some();
            let args = ahead.args.as_slice();
            for one in ahead.requests.as_slice() {
                if may_hold && self.holds(&conn.session, one, &ahead) {
                    self.hold_back(conn);
                    conn.decoder = Decoder::default();
                    break 'turn;
                }
                let bytes = one.end - std::mem::replace(&mut start, one.end);
                let from = reply.size();
                *budget = budget.saturating_sub(1);
                busy::with(self, || {
                    let words;
                    let args = if one.is_inline {
                        words = ahead.words_of(one);
                        words.as_slice()
                    } else {
                        one.args_in(args)
                    };
                    run_one(conn, &mut reply, one, args, executor);
                });
                let told = reply.size().saturating_sub(from);
                if bytes > self.large.0 || told > self.large.1 {
                    self.note_large(&conn.session, one, &ahead, (bytes, told), executor);
                }
                if conn.session.after != After::Continue || conn.session.is_blocked() {
                    // What was decoded ahead is decoded again when the client goes on.
                    conn.decoder = Decoder::default();
                    break 'turn;
                }
            }
            ahead.clear();
            if let Err(error) = decoded {
                reply.error(&format!("ERR Protocol error: {error}"));
                conn.session.after = After::Close;
                break;
            }
            if *budget == 0 || reply.size() - conn.sent > conn.turn_bytes() {
                break;
            }
        }
        conn.values = reply.values;
        self.settle(conn, reply.out);
        start
    }

    /// What the connection asked next waits, and it is read no further until then.
    pub(super) fn hold_back(&mut self, conn: &mut Conn) {
        let held = if busy::is_in_turn() { &mut self.beside } else { &mut self.paused };
        held.push(conn.session.info.token);
        conn.is_held = true;
    }

    /// Takes the output of a batch, and what its replies have to wait for.
    pub(super) fn settle(&mut self, conn: &mut Conn, out: Vec<u8>) {
        conn.out = out;
        let leased = std::mem::take(&mut conn.session.leased);
        conn.note_leased(leased);
        conn.quorum_gate = conn.quorum_gate.max(std::mem::take(&mut conn.session.quorum_gate));
        if conn.session.last_write != conn.seen_write {
            conn.seen_write = conn.session.last_write;
            if self.shared.state.acks_wait() {
                conn.gate = conn.seen_write;
                self.wrote = self.wrote.max(conn.gate);
            }
        }
    }

    #[cold]
    fn note_large(
        &self,
        session: &Session,
        one: &Request,
        ahead: &Ahead<'_>,
        bytes: (usize, usize),
        executor: &Executor<'_>,
    ) {
        let Some(command) = one.command else { return };
        let words = if one.is_inline { ahead.words_of(one) } else { SmallVec::new() };
        let args = if one.is_inline { words.as_slice() } else { ahead.args_of(one) };
        let now_ms = executor.env.now_ms;
        crate::command::slowlog::note_large(&self.shared, session, command, args, bytes, now_ms);
    }

    /// The request waits: everybody's, or those with keys in slots that are about to change their owner.
    #[cold]
    fn holds(&self, session: &Session, one: &Request, ahead: &Ahead<'_>) -> bool {
        let args = ahead.args_of(one);
        if self.pause != Pause::Nobody && self.pause.holds(one.command, args) {
            return true;
        }
        let (Some(slots), Some(command)) = (&self.held_slots.slots, one.command) else {
            return false;
        };
        let touches = |command: &'static Command, args: &[&[u8]]| {
            command.key_positions(args).iter().any(|at| slots.contains(slot_of(args[*at])))
        };
        match (one.hint, &session.queue) {
            (Some((_, slot)), _) if slots.contains(slot) => true,
            (_, Some(queue)) if command.name == "exec" => queue.commands.iter().any(|(c, args)| {
                touches(c, &args.iter().map(Vec::as_slice).collect::<SmallVec<[&[u8]; 8]>>())
            }),
            _ if command.writes(args) && matches!(command.keys, Keys::None) => true,
            // Which keys a script reaches for that declares none is not known ahead.
            _ if command.is(flag::SCRIPT) && command.key_positions(args).is_empty() => true,
            _ => touches(command, args),
        }
    }

    /// Brings the keys of a batch nearer.
    fn fetch(&self, db: u16, ahead: &Ahead<'_>) {
        let (mut places, mut which, mut len) = ([(0, 0); BATCH], [0u8; BATCH], 0);
        for (at, one) in ahead.requests.iter().take(BATCH).enumerate() {
            if let Some(place) = one.hint {
                (places[len], which[len]) = (place, at as u8);
                len += 1;
            }
        }
        let member = |at: usize| {
            let one = &ahead.requests[usize::from(which[at])];
            let (command, args) = (one.command?, ahead.args_of(one));
            let member = match (command.group, args) {
                (Group::Hash | Group::Set, [_, _, member, ..]) => member,
                // ZADD and ZINCRBY name the score first; it is looked up in vain where another word stands there.
                (Group::SortedSet, [_, _, _, member]) if command.is(flag::WRITE) => member,
                (Group::SortedSet, [_, _, member]) => member,
                _ => return None,
            };
            Some((args[1], *member))
        };
        let member = ahead.has_members.then_some(member);
        self.shared.keyspace.prefetch_all(db, &places[..len], member);
    }
}

#[inline]
fn run_one(
    conn: &mut Conn,
    reply: &mut Reply,
    one: &Request,
    args: &[&[u8]],
    executor: &mut Executor<'_>,
) {
    let session = &mut conn.session;
    let Some(name) = args.first() else { return };
    if one.command.is_none() && is_http(name) {
        // A browser was made to post here: neither its head nor its body is to run or be answered.
        session.after = After::Close;
        return;
    }
    let begin = reply.out.len();
    let silent = session.reply_off || session.reply_skip;
    let (skip, no_touch) = (session.reply_skip, session.no_touch);
    executor.env.no_touch = no_touch;
    // Only in import mode there are such sessions; what they read may have expired.
    executor.env.sees_expired = session.import_source && executor.env.hides_expired;
    executor.run(session, reply, one.command, args, one.hint);
    executor.env.sees_expired = false;
    reply.resp3 = session.resp3;
    if skip {
        session.reply_skip = false;
    }
    if silent && (session.reply_off || skip) {
        reply.truncate(begin);
    }
}

/// Words that begin lines of HTTP and no command.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_hash_and_slot_of_its_own_first_key() {
        let requests: &[&[&str]] = &[
            &["LPUSH", "a", "1"],
            &["LPUSH", "a", "2"],
            &["SADD", "b", "a"],
            &["ECHO", "c"],
            &["SADD", "c", "a"],
            &["GET", "c"],
            &["SADD", "c", "a"],
            &["PING"],
            &["SADD", "ca", "a"],
        ];
        let mut buffer = Vec::new();
        for request in requests {
            crate::resp::encode_request(&mut buffer, request);
        }
        let (mut ahead, mut decoder) = (Ahead::default(), Decoder::default());
        let limits = Limits { authenticated: true, bulk_bytes_max: 100 };
        ahead.decode(&mut decoder, &buffer, 0, limits, BATCH).unwrap();
        assert_eq!(ahead.requests.len(), requests.len());
        for (one, request) in ahead.requests.iter().zip(requests) {
            let key = (!matches!(request[0], "ECHO" | "PING")).then(|| request[1].as_bytes());
            assert_eq!(one.hint, key.map(|key| (hash_key(key), slot_of(key))), "{request:?}");
        }
    }
}
