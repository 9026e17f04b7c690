//! One connection's requests, text and meta: decoded, run, answered.

use std::sync::atomic::Ordering;

use super::binary;
use super::meta::{Flags, Key, Meta};
use super::ops::{
    Client, Count1, Counted, Delete, Deleted, Expire, Get, Mode, Refusal, Seen, Store, Stored,
    left_s,
};
use super::stats::{self, Count};
use super::text::{self, BAD_CHUNK, BAD_FORMAT, Crawl, Keys, Request, Storage, TOO_LARGE};
use super::{KEY_BYTES_MAX, VERSION, base64, rows};
use crate::keyspace::Item;
use crate::managed;
use crate::resp::Reply;

/// Bytes of a keys' dump that are gathered under one lock.
const DUMP_SLOTS: u16 = crate::topology::SLOTS;

/// Which protocol a connection speaks: its first byte says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Text,
    Binary,
}

/// What a connection remembers between its requests.
#[derive(Default)]
pub struct Protocol {
    wire: Option<Wire>,
    /// Bytes of refused data that are still to come.
    skip: u64,
    /// The keys of a `get` are being answered, up to the end of the line.
    keys: Option<Keys>,
    /// Whole bytes that the request under way needs, where that is known.
    need: usize,
    pub(super) binary: binary::Quiet,
}

/// What became of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The request is not whole yet.
    Need,
    /// It ended here.
    Done(usize),
    /// Clients are held back: everything up to here is done.
    Held(usize),
    /// The connection is to be closed once its replies are out.
    Close(usize),
}

impl Protocol {
    /// Bytes that the request under way needs, so that they are read at once.
    pub fn need(&self) -> usize {
        self.need
    }

    /// Runs what begins at `at`.
    pub fn step(&mut self, client: &mut Client<'_, '_>, buffer: &[u8], at: usize) -> Step {
        self.need = 0;
        let rest = &buffer[at..];
        if self.skip > 0 {
            let n = self.skip.min(rest.len() as u64);
            self.skip -= n;
            return if n == 0 { Step::Need } else { Step::Done(at + n as usize) };
        }
        let Some(first) = rest.first() else { return Step::Need };
        let wire = *self.wire.get_or_insert(if *first == binary::REQUEST {
            Wire::Binary
        } else {
            Wire::Text
        });
        match wire {
            Wire::Binary => {
                let step = binary::step(client, &mut self.binary, rest, &mut self.skip);
                match step {
                    binary::Ran::Need(bytes) => {
                        self.need = bytes;
                        Step::Need
                    }
                    binary::Ran::Done(n) => Step::Done(at + n),
                    binary::Ran::Held => Step::Held(at),
                    binary::Ran::Close(n) => Step::Close(at + n),
                }
            }
            Wire::Text => self.text(client, buffer, at),
        }
    }

    fn text(&mut self, client: &mut Client<'_, '_>, buffer: &[u8], at: usize) -> Step {
        let rest = &buffer[at..];
        if let Some(keys) = self.keys {
            return self.next_key(client, keys, buffer, at);
        }
        let Some(len) = memchr::memchr(b'\n', rest) else {
            if rest.len() <= text::LINE_BYTES_MAX {
                return Step::Need;
            }
            if !text::begins_get(rest) || !client.session.authenticated {
                line(client, "CLIENT_ERROR line too long");
                return Step::Close(buffer.len());
            }
            let begin = rest.len() - rest.trim_ascii_start().len();
            let verb = rest[begin..].iter().take_while(|b| **b != b' ').count();
            self.keys = Some(Keys { cas: verb == 4, exptime: None });
            return Step::Done(at + begin + verb);
        };
        let end = at + len + 1;
        let words = rest[..len].strip_suffix(b"\r").unwrap_or(&rest[..len]);
        if !client.session.authenticated {
            return self.authenticate(client, words, buffer, end);
        }
        let request = text::decode(words);
        let begin = client.reply.out.len();
        let step = match request {
            Request::Get(keys) => return self.begin_get(client, keys, words, at, end),
            Request::Store(storage) => self.store(client, &storage, buffer, end),
            Request::Meta(meta) => self.meta(client, &meta, buffer, end),
            Request::Say { line: text, noreply, skip } => {
                self.skip = skip;
                if !noreply {
                    line(client, text);
                }
                Ok(Step::Done(end))
            }
            other => simple(client, other, end),
        };
        match step {
            Ok(step) => step,
            Err(Refusal::Held) => {
                client.reply.out.truncate(begin);
                Step::Held(at)
            }
            Err(Refusal::Error(error)) => {
                refuse(client, &error);
                Step::Done(end + self.data_after(words))
            }
        }
    }

    /// The data of a storage request that was refused has been looked at whole.
    fn data_after(&self, words: &[u8]) -> usize {
        match text::decode(words) {
            Request::Store(storage) => storage.bytes + 2,
            Request::Meta(Meta::Set { bytes, .. }) => bytes + 2,
            _ => 0,
        }
    }

    /// `set <any key> <flags> <exptime> <bytes>`, its data `name password`: memcached's way to log in by text.
    fn authenticate(
        &mut self,
        client: &mut Client<'_, '_>,
        words: &[u8],
        buffer: &[u8],
        end: usize,
    ) -> Step {
        const TOKEN_BYTES_MAX: usize = 1024;
        let all = text::words(words);
        if matches!(all.as_slice(), [b"quit", ..]) {
            return Step::Close(end);
        }
        let bytes = match text::decode(words) {
            Request::Store(storage) if all[0] == b"set" => storage.bytes,
            Request::Say { skip, .. } if skip > 2 => {
                self.skip = skip;
                line(client, "CLIENT_ERROR unauthenticated");
                return Step::Done(end);
            }
            _ => {
                line(client, "CLIENT_ERROR unauthenticated");
                return Step::Done(end);
            }
        };
        if bytes > TOKEN_BYTES_MAX {
            line(client, "CLIENT_ERROR bad authentication token format");
            return Step::Close(end);
        }
        let Some(data) = buffer.get(end..end + bytes + 2) else {
            return Step::Need;
        };
        let end = end + bytes + 2;
        let Some(token) = data.strip_suffix(b"\r\n") else {
            line(client, "CLIENT_ERROR bad command line termination");
            return Step::Done(end);
        };
        match text::words(token).as_slice() {
            [name, password, ..] => {
                let admitted = log_in(client, name, password);
                let text = if admitted { "STORED" } else { "CLIENT_ERROR authentication failure" };
                line(client, text);
            }
            _ => line(client, "CLIENT_ERROR bad authentication token format"),
        }
        Step::Done(end)
    }

    fn begin_get(
        &mut self,
        client: &mut Client<'_, '_>,
        keys: Keys,
        words: &[u8],
        at: usize,
        end: usize,
    ) -> Step {
        let mut all = text::words(words).into_iter();
        let skipped = if keys.exptime.is_some() { 2 } else { 1 };
        // Looked at before the first is answered: an error is then the only answer.
        if all.clone().skip(skipped).any(|key| key.len() > KEY_BYTES_MAX) {
            line(client, BAD_FORMAT);
            return Step::Done(end);
        }
        let last = all.nth(skipped - 1).unwrap_or_default();
        let behind = last.as_ptr() as usize + last.len() - words.as_ptr() as usize;
        self.keys = Some(keys);
        Step::Done(at + behind)
    }

    /// Answers one key of a `get`, so that a line of any length costs no more than that at a time.
    fn next_key(
        &mut self,
        client: &mut Client<'_, '_>,
        keys: Keys,
        buffer: &[u8],
        at: usize,
    ) -> Step {
        let rest = &buffer[at..];
        let blank = rest.iter().take_while(|b| **b == b' ').count();
        let word = &rest[blank..];
        let Some(len) = word.iter().position(|b| matches!(b, b' ' | b'\n')) else {
            if word.len() > KEY_BYTES_MAX + 2 {
                line(client, BAD_FORMAT);
                return Step::Close(buffer.len());
            }
            return Step::Need;
        };
        let mut key = &word[..len];
        let is_last = word[len] == b'\n';
        if is_last {
            key = key.strip_suffix(b"\r").unwrap_or(key);
        }
        if key.len() > KEY_BYTES_MAX {
            line(client, BAD_FORMAT);
            return Step::Close(buffer.len());
        }
        if !key.is_empty() {
            let expire = keys.exptime.map(|e| Expire::of(e, client.now_ms()));
            let how = Get { cas: keys.cas, expire, ..Get::default() };
            match client.get(key, how, |out, seen| value_line(out, key, seen, keys.cas)) {
                Ok(_) => {}
                Err(Refusal::Held) => return Step::Held(at),
                Err(Refusal::Error(error)) => {
                    // An answer that was begun cannot be taken back where some keys are out already: the error
                    // ends it in place of END, as memcached does when it runs out of memory half way.
                    refuse(client, &error);
                    self.keys = None;
                    return match memchr::memchr(b'\n', rest) {
                        Some(len) => Step::Done(at + len + 1),
                        None => Step::Close(buffer.len()),
                    };
                }
            }
        }
        if !is_last {
            return Step::Done(at + blank + len);
        }
        self.keys = None;
        line(client, "END");
        Step::Done(at + blank + len + 1)
    }

    fn store(
        &mut self,
        client: &mut Client<'_, '_>,
        storage: &Storage<'_>,
        buffer: &[u8],
        end: usize,
    ) -> Result<Step, Refusal> {
        let mut store = Store::new(storage.key, &[], storage.mode);
        store.cas = storage.cas;
        if !client.fits(storage.key, storage.bytes) {
            client.count(Count::StoreTooLarge);
            client.drop_unstored(&store)?;
            self.skip = storage.bytes as u64 + 2;
            if !storage.noreply {
                line(client, TOO_LARGE);
            }
            return Ok(Step::Done(end));
        }
        let Some(data) = self.data(buffer, end, storage.bytes) else { return Ok(Step::Need) };
        let after = end + storage.bytes + 2;
        let Some(value) = data else {
            if !storage.noreply {
                line(client, BAD_CHUNK);
            }
            return Ok(Step::Done(after));
        };
        store.value = value;
        store.flags = storage.flags;
        store.expire = Expire::of(storage.exptime, client.now_ms());
        let done = match client.store(&store) {
            Err(Refusal::Error(_)) if storage.noreply => return Ok(Step::Done(after)),
            done => done?,
        };
        if !storage.noreply {
            let text = match done {
                Stored::Stored(_) => "STORED",
                Stored::NotStored => "NOT_STORED",
                Stored::Exists => "EXISTS",
                Stored::NotFound => "NOT_FOUND",
                Stored::TooLarge => TOO_LARGE,
            };
            line(client, text);
        }
        Ok(Step::Done(after))
    }

    /// The data behind a line: `None`: not all there; `Some(None)`: it does not end as it should.
    fn data<'b>(&mut self, buffer: &'b [u8], at: usize, bytes: usize) -> Option<Option<&'b [u8]>> {
        match buffer.get(at..at + bytes + 2) {
            Some(data) => Some(data.strip_suffix(b"\r\n")),
            None => {
                self.need = at + bytes + 2;
                None
            }
        }
    }

    fn meta(
        &mut self,
        client: &mut Client<'_, '_>,
        meta: &Meta<'_>,
        buffer: &[u8],
        end: usize,
    ) -> Result<Step, Refusal> {
        client.count(Count::CmdMeta);
        match meta {
            Meta::Noop => line(client, "MN"),
            Meta::Get(key, flags) => meta_get(client, key, flags)?,
            Meta::Set { key, flags, mode, bytes } => {
                let mut store = Store::new(key.bytes(), &[], *mode);
                store.cas = flags.cas;
                if !client.fits(key.bytes(), *bytes) {
                    client.count(Count::StoreTooLarge);
                    client.drop_unstored(&store)?;
                    self.skip = *bytes as u64 + 2;
                    line(client, TOO_LARGE);
                    return Ok(Step::Done(end));
                }
                let Some(data) = self.data(buffer, end, *bytes) else { return Ok(Step::Need) };
                match data {
                    Some(value) => {
                        store.value = value;
                        meta_set(client, key, flags, store)?;
                    }
                    None => line(client, BAD_CHUNK),
                }
                return Ok(Step::Done(end + bytes + 2));
            }
            Meta::Delete(key, flags) => meta_delete(client, key, flags)?,
            Meta::Arithmetic { key, flags, down } => meta_count(client, key, flags, *down)?,
            Meta::Debug(key) => meta_debug(client, key)?,
        }
        Ok(Step::Done(end))
    }
}

/// Checks a name and a password; the session is authenticated from then on.
pub(super) fn log_in(client: &mut Client<'_, '_>, name: &[u8], password: &[u8]) -> bool {
    let shared = client.executor.shared;
    let requirepass = &shared.config.hot().requirepass;
    let admitted = shared.memcached.users.admit(name, password, requirepass);
    client.count(Count::AuthCmds);
    if admitted {
        client.session.authenticated = true;
        let name = crate::command::exec::printable(name);
        client.session.info.set_names(|names| names.user = name);
    } else {
        client.count(Count::AuthErrors);
    }
    admitted
}

fn line(client: &mut Client<'_, '_>, text: &str) {
    client.reply.out.extend_from_slice(text.as_bytes());
    client.reply.out.extend_from_slice(b"\r\n");
}

/// What a RESP client would be told, as a Memcached client can take it.
fn refuse(client: &mut Client<'_, '_>, error: &str) {
    let text = if error.starts_with("OOM ") {
        "SERVER_ERROR out of memory storing object".to_string()
    } else {
        format!("SERVER_ERROR {}", error.replace(['\r', '\n'], " "))
    };
    line(client, &text);
}

fn number(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn value_line(out: &mut Vec<u8>, key: &[u8], seen: &Seen<'_>, cas: bool) {
    out.reserve(key.len() + seen.value.len() + 64);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.push(b' ');
    number(out, seen.item.flags);
    out.push(b' ');
    number(out, seen.value.len());
    if cas {
        out.push(b' ');
        number(out, seen.item.cas);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(seen.value);
    out.extend_from_slice(b"\r\n");
}

/// Requests of one line that need nothing behind it.
fn simple(client: &mut Client<'_, '_>, request: Request<'_>, end: usize) -> Result<Step, Refusal> {
    let (text, noreply) = match request {
        Request::Count { key, down, delta, noreply } => {
            let (initial, cas, new_cas, expire, want_cas) = (None, None, None, None, false);
            let count = Count1 { key, down, delta, initial, cas, new_cas, expire, want_cas };
            let text = match client.add(&count)? {
                Counted::Number { value, .. } => value.to_string(),
                Counted::NotFound => "NOT_FOUND".into(),
                Counted::NotANumber => NOT_A_NUMBER.into(),
                Counted::Exists => "EXISTS".into(),
            };
            (text, noreply)
        }
        Request::Touch { key, exptime, noreply } => {
            let expire = Expire::of(exptime, client.now_ms());
            let found = client.touch(key, expire)?;
            (if found { "TOUCHED" } else { "NOT_FOUND" }.into(), noreply)
        }
        Request::Delete { key, noreply } => {
            let done = client.delete(key, Delete::default())?;
            let deleted = done == Deleted::Deleted;
            (if deleted { "DELETED" } else { "NOT_FOUND" }.into(), noreply)
        }
        Request::FlushAll { delay, noreply } => {
            if !client.executor.shared.config.is_yes("memcached-flush") {
                (String::from("CLIENT_ERROR flush_all not allowed"), noreply)
            } else {
                client.flush(delay)?;
                ("OK".into(), noreply)
            }
        }
        Request::Version => (format!("VERSION {VERSION}"), false),
        Request::Verbosity { noreply } => ("OK".into(), noreply),
        Request::Stats(words) => {
            stats_text(client, &words);
            return Ok(Step::Done(end));
        }
        Request::Crawl { what } => {
            dump_keys(client, what);
            return Ok(Step::Done(end));
        }
        Request::Watch => {
            ("ERROR watch is not supported: see INFO, SLOWLOG and the metrics".into(), false)
        }
        Request::Shutdown { graceful } => return Ok(shut_down(client, graceful, end)),
        Request::Quit => return Ok(Step::Close(end)),
        Request::Get(_) | Request::Store(_) | Request::Meta(_) | Request::Say { .. } => {
            return Ok(Step::Done(end));
        }
    };
    if !noreply {
        line(client, &text);
    }
    Ok(Step::Done(end))
}

pub(super) const NOT_A_NUMBER: &str =
    "CLIENT_ERROR cannot increment or decrement non-numeric value";

fn stats_text(client: &mut Client<'_, '_>, words: &[&[u8]]) {
    let shared = client.executor.shared;
    match words {
        [b"reset"] => {
            shared.memcached.reset();
            line(client, "RESET");
        }
        // Nothing is counted by prefix: switching that on or off changes nothing, and there is nothing to dump.
        [b"detail", b"off"] => line(client, "OK"),
        [b"detail", b"on"] => line(client, "SERVER_ERROR counting by prefix is not supported"),
        [b"detail", b"dump"] | [b"cachedump", _, _, ..] => line(client, "END"),
        [b"detail", ..] => line(client, "CLIENT_ERROR usage: stats detail on|off|dump"),
        [b"cachedump", ..] => line(client, "CLIENT_ERROR bad command line"),
        _ => match stats::group(shared, words, client.now_ms()) {
            Some(lines) => stats::write_text(&mut client.reply.out, &lines),
            None => line(client, "ERROR"),
        },
    }
}

fn shut_down(client: &mut Client<'_, '_>, graceful: bool, end: usize) -> Step {
    let shared = client.executor.shared;
    if !shared.config.is_yes("memcached-shutdown") {
        line(client, "ERROR: shutdown not enabled");
        return Step::Done(end);
    }
    if graceful {
        managed::leave(shared);
    }
    let mut reply = Reply::new(Vec::new(), false);
    client.executor.run(client.session, &mut reply, Some(rows().shutdown), &[b"SHUTDOWN"], None);
    match reply.out.strip_prefix(b"-") {
        Some(error) => {
            refuse(client, &String::from_utf8_lossy(error.trim_ascii_end()));
            Step::Done(end)
        }
        None => Step::Close(end),
    }
}

/// All keys of database 0, slot by slot under its lock.
fn dump_keys(client: &mut Client<'_, '_>, what: Crawl) {
    let shared = client.executor.shared;
    let now_ms = client.now_ms();
    if !shared.config.is_yes("memcached-dump-keys") {
        return line(client, "CLIENT_ERROR metadump not allowed");
    }
    for slot in 0..DUMP_SLOTS {
        let Some(mut locked) = shared.keyspace.lock_table(0, slot) else { continue };
        locked.table(0, slot).each(|entry| {
            if !entry.is_string() || entry.ttl().is_some_and(|at| at <= now_ms) {
                return;
            }
            let mut text = String::from(if what == Crawl::Metadump { "key=" } else { "mg " });
            stats::uri_encode(&mut text, entry.key());
            if what == Crawl::Metadump {
                let exp = entry.ttl().map_or(-1, |at| at / 1000);
                let fetch = if entry.is_fetched() { "yes" } else { "no" };
                let (cas, size) = (entry.item().cas, entry.memory());
                text.push_str(&format!(" exp={exp} la={} cas={cas} fetch={fetch}", now_ms / 1000));
                text.push_str(&format!(" cls=1 size={size}\n"));
            } else {
                text.push_str("\r\n");
            }
            client.reply.out.extend_from_slice(text.as_bytes());
        });
    }
    line(client, if what == Crawl::Metadump { "END" } else { "EN" });
}

/// A key as a reply shows it, in the form in which it was asked for.
fn show_key(out: &mut Vec<u8>, key: &Key<'_>) {
    out.extend_from_slice(b" k");
    if key.is_binary() {
        base64::encode(out, key.bytes());
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(key.bytes());
    }
}

/// The flags that are answered whatever came of it: the key and the client's own word.
fn show_always(out: &mut Vec<u8>, key: &Key<'_>, flags: &Flags<'_>) {
    for letter in &flags.shown {
        match letter {
            b'k' => show_key(out, key),
            b'O' => {
                out.extend_from_slice(b" O");
                out.extend_from_slice(flags.opaque);
            }
            _ => {}
        }
    }
}

fn answer(client: &mut Client<'_, '_>, code: &str, key: &Key<'_>, flags: &Flags<'_>) {
    client.reply.out.extend_from_slice(code.as_bytes());
    show_always(&mut client.reply.out, key, flags);
    client.reply.out.extend_from_slice(b"\r\n");
}

fn meta_get(client: &mut Client<'_, '_>, key: &Key<'_>, flags: &Flags<'_>) -> Result<(), Refusal> {
    let now_ms = client.now_ms();
    let how = Get {
        cas: flags.has_cas_shown || flags.cas.is_some(),
        expire: flags.ttl.map(|t| Expire::of(t, now_ms)),
        recache_s: flags.recache,
        leases: true,
    };
    // Another client may make the item between the look and the making: it is then looked at again.
    for _ in 0..3 {
        if client.get(key.bytes(), how, |out, seen| show_item(out, key, flags, seen, false))? {
            return Ok(());
        }
        let Some(exptime) = flags.vivify else { break };
        let mut store = Store::new(key.bytes(), &[], Mode::Add);
        store.expire = Expire::of(exptime, now_ms);
        store.state = Item::TOKEN_SENT;
        store.new_cas = flags.new_cas;
        store.want_cas = flags.has_cas_shown;
        let Stored::Stored(cas) = client.store(&store)? else { continue };
        let ttl = if let Expire::At(at) = store.expire { Some(at) } else { None };
        let item = Item { flags: 0, state: 0, cas };
        let (value, fetched, idle_s) = (&b""[..], false, 0);
        let seen = Seen { value, item, ttl, fetched, idle_s, now_ms, won: true };
        show_item(&mut client.reply.out, key, flags, &seen, true);
        return Ok(());
    }
    if !flags.quiet {
        answer(client, "EN", key, flags);
    }
    Ok(())
}

fn show_item(out: &mut Vec<u8>, key: &Key<'_>, flags: &Flags<'_>, seen: &Seen<'_>, is_made: bool) {
    let known = !is_made && flags.cas.is_some_and(|cas| cas == seen.item.cas);
    let with_value = flags.value && !known;
    if with_value {
        out.extend_from_slice(b"VA ");
        number(out, seen.value.len());
    } else {
        out.extend_from_slice(b"HD");
    }
    for letter in &flags.shown {
        match letter {
            b'k' => {
                show_key(out, key);
                continue;
            }
            b'O' => {
                out.extend_from_slice(b" O");
                out.extend_from_slice(flags.opaque);
                continue;
            }
            _ => out.extend_from_slice(&[b' ', *letter]),
        }
        match letter {
            b's' => number(out, seen.value.len()),
            b't' => number(out, seen.left_s()),
            b'c' => number(out, seen.item.cas),
            b'f' => number(out, seen.item.flags),
            b'h' => number(out, u8::from(seen.fetched)),
            _ => number(out, seen.idle_s),
        }
    }
    for (set, mark) in [
        (seen.item.state & Item::TOKEN_SENT != 0, b" Z"),
        (seen.item.state & Item::STALE != 0, b" X"),
        (seen.won, b" W"),
    ] {
        if set {
            out.extend_from_slice(mark);
        }
    }
    out.extend_from_slice(b"\r\n");
    if with_value {
        out.extend_from_slice(seen.value);
        out.extend_from_slice(b"\r\n");
    }
}

fn meta_set(
    client: &mut Client<'_, '_>,
    key: &Key<'_>,
    flags: &Flags<'_>,
    mut store: Store<'_>,
) -> Result<(), Refusal> {
    let now_ms = client.now_ms();
    store.flags = flags.client_flags.unwrap_or(0);
    store.expire = Expire::of(flags.ttl.unwrap_or(0), now_ms);
    store.new_cas = flags.new_cas;
    store.invalidate = flags.invalidate;
    store.vivify = flags.vivify.map(|v| Expire::of(v, now_ms));
    store.want_cas = flags.has_cas_shown;
    let bytes = store.value.len();
    let (code, cas) = match client.store(&store)? {
        Stored::Stored(_) if flags.quiet => return Ok(()),
        Stored::Stored(cas) => ("HD", cas),
        Stored::NotStored => ("NS", 0),
        Stored::Exists => ("EX", 0),
        Stored::NotFound => ("NF", 0),
        Stored::TooLarge => {
            line(client, TOO_LARGE);
            return Ok(());
        }
    };
    let out = &mut client.reply.out;
    out.extend_from_slice(code.as_bytes());
    for letter in &flags.shown {
        match letter {
            b'k' => show_key(out, key),
            b'O' => {
                out.extend_from_slice(b" O");
                out.extend_from_slice(flags.opaque);
            }
            b'c' => {
                out.extend_from_slice(b" c");
                number(out, cas);
            }
            b's' => {
                out.extend_from_slice(b" s");
                number(out, bytes);
            }
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn meta_delete(
    client: &mut Client<'_, '_>,
    key: &Key<'_>,
    flags: &Flags<'_>,
) -> Result<(), Refusal> {
    let how = Delete {
        cas: flags.cas,
        invalidate: flags.invalidate,
        value_only: flags.value_only,
        expire: flags.ttl.map(|t| Expire::of(t, client.now_ms())),
        new_cas: flags.new_cas,
    };
    let done = client.delete(key.bytes(), how)?;
    if flags.quiet && done != Deleted::Exists {
        return Ok(());
    }
    let code = match done {
        Deleted::Deleted => "HD",
        Deleted::NotFound => "NF",
        Deleted::Exists => "EX",
    };
    answer(client, code, key, flags);
    Ok(())
}

fn meta_count(
    client: &mut Client<'_, '_>,
    key: &Key<'_>,
    flags: &Flags<'_>,
    down: bool,
) -> Result<(), Refusal> {
    let now_ms = client.now_ms();
    let initial = flags.vivify.map(|n| (flags.initial.unwrap_or(0), Expire::of(n, now_ms)));
    let count = Count1 {
        key: key.bytes(),
        down,
        delta: flags.delta.unwrap_or(1),
        initial,
        cas: flags.cas,
        new_cas: flags.new_cas,
        expire: flags.ttl.map(|t| Expire::of(t, now_ms)),
        want_cas: flags.has_cas_shown,
    };
    let (value, cas, ttl) = match client.add(&count)? {
        Counted::Number { .. } if flags.quiet => return Ok(()),
        Counted::NotFound if flags.quiet => return Ok(()),
        Counted::Number { value, cas, ttl } => (value, cas, ttl),
        Counted::NotFound => {
            answer(client, "NF", key, flags);
            return Ok(());
        }
        Counted::Exists => {
            answer(client, "EX", key, flags);
            return Ok(());
        }
        Counted::NotANumber => {
            line(client, NOT_A_NUMBER);
            return Ok(());
        }
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    let out = &mut client.reply.out;
    if flags.value {
        out.extend_from_slice(b"VA ");
        number(out, digits.len());
    } else {
        out.extend_from_slice(b"HD");
    }
    for letter in &flags.shown {
        match letter {
            b'k' => show_key(out, key),
            b'O' => {
                out.extend_from_slice(b" O");
                out.extend_from_slice(flags.opaque);
            }
            b't' => {
                out.extend_from_slice(b" t");
                number(out, left_s(ttl, now_ms));
            }
            b'c' => {
                out.extend_from_slice(b" c");
                number(out, cas);
            }
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
    if flags.value {
        out.extend_from_slice(digits);
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

fn meta_debug(client: &mut Client<'_, '_>, key: &Key<'_>) -> Result<(), Refusal> {
    let how = Get { cas: true, ..Get::default() };
    let shown = client.get(key.bytes(), how, |out, seen| {
        let mut text = String::from("ME ");
        match key.is_binary() {
            true => text.push_str(&String::from_utf8_lossy(key.written)),
            false => stats::uri_encode(&mut text, key.bytes()),
        }
        let (exp, la, cas) = (seen.left_s(), seen.idle_s, seen.item.cas);
        let fetch = if seen.fetched { "yes" } else { "no" };
        let size = key.bytes().len() + seen.value.len() + super::ITEM_OVERHEAD;
        text.push_str(&format!(" exp={exp} la={la} cas={cas} fetch={fetch} cls=1 size={size}\r\n"));
        out.extend_from_slice(text.as_bytes());
    })?;
    if !shown {
        line(client, "EN");
    }
    Ok(())
}

/// Runs a flush whose time has come.
pub fn flush_if_due(executor: &mut crate::command::exec::Executor<'_>) {
    let shared = executor.shared;
    let at = shared.memcached.flush_at_ms();
    if at == 0 || at > executor.env.now_ms || shared.state.is_replica.load(Ordering::Acquire) {
        return;
    }
    shared.memcached.set_flush(0);
    let info = crate::session::ClientInfo::new(0, String::new(), String::new(), at, 0, 0);
    let mut session = crate::session::Session::new(std::sync::Arc::new(info), true);
    if let Err(error) = super::ops::flush_now(executor, &mut session) {
        tracing::warn!(error, "a flush_all that was put off could not be made");
    }
}
