//! One connection's requests, text and meta: decoded, run, answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::answer::{line, refuse, value_line};
use super::client::Client;
use super::dump::Dump;
use super::meta::{self, Meta};
use super::ops::{Expire, Get, Refusal, Store, Stored};
use super::stats::Count;
use super::text::{self, BAD_CHUNK, BAD_FORMAT, Keys, Request, Storage, TOO_LARGE};
use super::{KEY_BYTES_MAX, auth, binary, plain};
use crate::forward::memcached::Form;

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
    /// One of them was put to another member: set when that has ended the answer by an error.
    is_cut: Option<Arc<AtomicBool>>,
    /// All keys are being shown; the line that asks for them is still in the buffer.
    dump: Option<Dump>,
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
            if self.is_cut.take().is_some_and(|is_cut| is_cut.load(Ordering::Acquire)) {
                return self.end_keys(buffer, at);
            }
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
            return auth::by_text(client, words, buffer, end, &mut self.skip);
        }
        if let Some(dump) = &mut self.dump {
            let is_over = dump.piece(client);
            return if is_over { self.end_dump(end) } else { Step::Done(at) };
        }
        let request = text::decode(words);
        let (is_noreply, data_bytes) = (request.is_noreply(), request.data_bytes());
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
            Request::Crawl { what } => {
                self.dump = Some(Dump::new(what));
                Ok(Step::Done(at))
            }
            other => plain::run(client, other, end),
        };
        match step {
            Ok(step) => step,
            Err(Refusal::Held) => {
                client.reply.out.truncate(begin);
                Step::Held(at)
            }
            Err(Refusal::Elsewhere(to)) => {
                client.reply.out.truncate(begin);
                // It was about to be done: its data is all there.
                let end = end + data_bytes as usize;
                let form = if is_noreply { Form::Silent } else { Form::Text };
                client.put(*to, &buffer[at..end], false, form);
                Step::Done(end)
            }
            Err(Refusal::Error(error)) => {
                if !is_noreply {
                    refuse(client, &error);
                }
                // Not all of it need be there: what is too large is refused by its line.
                self.skip = data_bytes;
                Step::Done(end)
            }
        }
    }

    fn end_dump(&mut self, end: usize) -> Step {
        self.dump = None;
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
                    return self.end_keys(buffer, at);
                }
                Err(Refusal::Elsewhere(to)) => {
                    let form = if is_last {
                        self.keys = None;
                        Form::Text
                    } else {
                        Form::Piece(self.is_cut.insert(Arc::default()).clone())
                    };
                    client.put(*to, &keys.request_of(key), keys.exptime.is_none(), form);
                    return Step::Done(at + blank + len + usize::from(is_last));
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

    /// The rest of the line of a `get` is left out: an error has ended its answer.
    fn end_keys(&mut self, buffer: &[u8], at: usize) -> Step {
        self.keys = None;
        match memchr::memchr(b'\n', &buffer[at..]) {
            Some(len) => Step::Done(at + len + 1),
            None => Step::Close(buffer.len()),
        }
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
        let done = client.store(&store)?;
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
            Meta::Get(key, flags) => meta::run::get(client, key, flags)?,
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
                        meta::run::set(client, key, flags, store)?;
                    }
                    None => line(client, BAD_CHUNK),
                }
                return Ok(Step::Done(end + bytes + 2));
            }
            Meta::Delete(key, flags) => meta::run::delete(client, key, flags)?,
            Meta::Arithmetic { key, flags, down } => meta::run::count(client, key, flags, *down)?,
            Meta::Debug(key) => meta::run::debug(client, key)?,
        }
        Ok(Step::Done(end))
    }
}
