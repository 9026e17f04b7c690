//! The stream: requests are run and appended to our own journal, and acknowledged.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Attempt, LIMITS, REQUEST_BYTES_MAX};
use crate::clock;
use crate::persist::load as loading;
use crate::replication::fresh::Note;
use crate::replication::payload::Wire;
use crate::replication::timeout_ms;
use crate::resp::{Decoder, Reply};
use crate::session::Session;

/// Longest wait for the disk before an acknowledgement says how far it is, milliseconds.
const DISK_MS: u64 = 1000;

impl Attempt<'_> {
    pub(super) fn acknowledge(&self, wire: &mut Wire) -> io::Result<()> {
        let offset = self.shared.journal.end().to_string();
        let running = self.shared.persist.aof();
        match running {
            Some(_) => {
                let durable = self.shared.state.durable_offset.load(Ordering::Acquire);
                let durable = durable.min(self.shared.journal.end()).to_string();
                wire.request(&["REPLCONF", "ACK", &offset, "FACK", &durable])
            }
            None => wire.request(&["REPLCONF", "ACK", &offset]),
        }
    }

    /// With `appendfsync always`: until what was applied is on disk, bounded.
    fn await_disk(&self) {
        let state = &self.shared.state;
        let (end, until) = (self.shared.journal.end(), clock::monotonic_ms() + DISK_MS);
        while state.acks_wait_for_disk.load(Ordering::Acquire)
            && state.durable_offset.load(Ordering::Acquire) < end
            && clock::monotonic_ms() < until
            && !self.link.is_stopped()
        {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The stream, for as long as the link holds.
    /// `vouches`: told our clock, the primary says of when all that it sent is.
    pub(super) fn stream(
        &self,
        wire: &mut Wire,
        mut session: Session,
        vouches: bool,
    ) -> io::Result<()> {
        let shared = self.shared;
        let fresh = &shared.replication.fresh;
        fresh.begin();
        let mut next_clock_ms = if vouches { 0 } else { u64::MAX };
        let mut executor = loading::executor(shared);
        let mut reply = Reply::new(Vec::new(), false);
        let mut decoder = Decoder::default();
        let timeout_ms = timeout_ms(shared);
        let mut heard_ms = clock::monotonic_ms();
        let mut next_ack_ms = 0;
        // Bytes of the buffer that were run but belong to a transaction that is not whole yet.
        let mut held = 0;
        loop {
            executor.env.now_ms = clock::unix_ms();
            let mut wanted = false;
            let mut note = None;
            let end_before = shared.journal.end();
            {
                let _applying = shared.replication.applying();
                if self.link.is_stopped() {
                    return Ok(());
                }
                let (mut at, mut whole) = (held, 0);
                while let Some(end) =
                    decoder.next(&wire.buffer, at, LIMITS).map_err(io::Error::other)?
                {
                    let buffer = &wire.buffer;
                    let args: SmallVec<[&[u8]; 8]> =
                        decoder.args.iter().map(|(a, b)| &buffer[*a..*b]).collect();
                    let word = |i: usize, w: &str| {
                        args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(w.as_bytes()))
                    };
                    if vouches && word(0, "replconf") && word(1, "larder-current") {
                        // No part of the stream: it is cut out, and what follows takes its place.
                        note = Note::parse(&args[2..]).or(note);
                        drop(args);
                        wire.buffer.drain(at..end);
                        continue;
                    }
                    if word(0, "replconf") {
                        wanted |= word(1, "getack");
                    } else if !args.is_empty() {
                        let errors = reply.errors;
                        loading::execute(&mut executor, &mut session, &mut reply, &args);
                        if reply.errors > errors {
                            complain(args[0], &reply.out);
                        }
                    }
                    at = end;
                    if session.queue.is_none() {
                        whole = at;
                    }
                }
                if whole > 0 {
                    shared.replication.stream_db.store(u64::from(session.db), Ordering::Relaxed);
                    shared.journal.append_raw(&wire.buffer[..whole], session.db);
                    wire.buffer.drain(..whole);
                    decoder.shift_to_request(whole);
                }
                held = at - whole;
                // While it is this link that is applied, and no other.
                if let Some(note) = note {
                    fresh.take(note, shared.journal.end(), clock::monotonic_ms());
                }
            }
            // Clients of the primary wait for us: told at once, and once it is on disk where that counts.
            if shared.quorum.is_configured() && shared.journal.end() > end_before {
                wanted = true;
                self.await_disk();
            }
            let now = clock::monotonic_ms();
            if wanted || now >= next_ack_ms {
                next_ack_ms = now + 1000;
                self.acknowledge(wire)?;
            }
            if now >= next_clock_ms {
                let period = fresh.period_ms(shared.config.max_staleness_ms());
                next_clock_ms = now + period;
                let known = shared.cluster.view().topology.epoch;
                let (now, known) = (now.to_string(), known.to_string());
                wire.request(&["REPLCONF", "larder-clock", &now, &known])?;
                // Looked at again by then, whatever comes.
                wire.stream.set_read_timeout(Some(Duration::from_millis(period)))?;
            }
            if wire.buffer.len() > 2 * REQUEST_BYTES_MAX {
                return Err(io::Error::other("the primary sent a request that is too long"));
            }
            if wire.fill()? {
                heard_ms = clock::monotonic_ms();
                self.link.last_io_ms.store(clock::unix_ms(), Ordering::Relaxed);
            } else if clock::monotonic_ms() - heard_ms > timeout_ms {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the primary is silent"));
            }
        }
    }
}

/// The primary ran a request that we cannot: the data sets differ from here on.
fn complain(name: &[u8], reply: &[u8]) {
    tracing::error!(
        command = %String::from_utf8_lossy(&name[..name.len().min(64)]),
        error = %String::from_utf8_lossy(&reply[..reply.len().min(200)]).trim(),
        "a request of the primary failed here"
    );
}
