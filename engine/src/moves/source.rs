//! The side that has the slots: gives a snapshot of them, then what changes, then all of it away.

use std::io::{self, BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::giving::Attempt;
use super::pace::Pace;
use super::progress::{Listed, Progress};
use super::{SlotSet, acting, goes_on};
use crate::clock;
use crate::command::{Keys, find};
use crate::journal::Pin;
use crate::resp::{Decoder, Limits, encode_request};
use crate::server::Shared;
use crate::snapshot;
use crate::stopwatch::Stopwatch;
use crate::stream::Stream;
use crate::tls::secure::Connection;
use crate::topology::{Change, Epoch, Move, slot_of};

const CHUNK_BYTES: usize = 256 * 1024;
/// The rest of the journal that is sent while clients wait.
const NEAR_BYTES: usize = 64 * 1024;
/// Bytes that the target may be behind before the move is broken off.
const LAG_MAX: u64 = 256 << 20;
/// The target answers within this time, or the move is broken off.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for what is sent while clients wait.
const HELD_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked at whether what clients wait for has come.
const LOOK: Duration = Duration::from_micros(100);
/// How long clients wait for the target to know that it owns the slots.
const TARGET_PATIENCE: Duration = Duration::from_millis(700);
/// Longest request of the journal, bytes: what a client could have sent.
const REQUEST_BYTES_MAX: usize = 1 << 30;

/// What a target asks for: the move, and the shard epoch under which it takes the slots in.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub id: Epoch,
    pub to_epoch: Epoch,
    /// The attempt that has begun by it.
    pub attempt: Attempt,
}

/// Begins to give a move away, if this member may now. The target empties the slots only after that.
///
/// # Errors
/// The reason why not, for the target.
pub fn begin(shared: &Shared, id: Epoch, to_epoch: Epoch) -> Result<Wanted, String> {
    may_give(shared, id)?;
    let attempt = shared.moves.giving.begin(id)?;
    Ok(Wanted { id, to_epoch, attempt })
}

fn may_give(shared: &Shared, id: Epoch) -> Result<(Move, Epoch), String> {
    let view = shared.cluster.view();
    let under_way = view.topology.move_of(id).ok_or("ERR no such move is known here")?;
    match acting(shared) {
        Some((shard, epoch)) if shard == under_way.from => Ok((under_way.clone(), epoch)),
        _ => Err("ERR this member is not the primary of the move's source".into()),
    }
}

/// Serves a target on a connection that sent LARDER.MOVE; `rest` is output that was not written yet.
pub fn serve(shared: Arc<Shared>, stream: Connection, wanted: Wanted, rest: Vec<u8>) {
    let spawned = std::thread::Builder::new().name("slots-out".into()).spawn(move || {
        let result = run(&shared, stream, wanted, &rest);
        shared.moves.giving.end(wanted.attempt);
        match result {
            Ok(()) => tracing::info!(id = wanted.id, "slots are moved"),
            Err(error) => tracing::info!(id = wanted.id, %error, "a move of slots broke off"),
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot start a thread to give slots away");
    }
}

fn run(shared: &Arc<Shared>, stream: Connection, wanted: Wanted, rest: &[u8]) -> io::Result<()> {
    let stream = Stream::from_loop(stream)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    (&stream).write_all(rest)?;
    let (under_way, epoch) = may_give(shared, wanted.id).map_err(io::Error::other)?;
    let slots = SlotSet::of(&under_way.slots);
    let keys = keys_in(shared, &slots);
    let progress = Progress::new(wanted.id, slots.clone(), keys, clock::monotonic_ms());
    let listed = Listed::new(shared, Arc::new(progress));
    let progress = listed.progress.clone();
    let answers = BufReader::new(stream.clone());
    let mut source =
        Source { shared, stream, answers, under_way, epoch, wanted, slots, progress, syncs: 0 };
    source.await_answer("0", PATIENCE)?;
    let mut tail = source.snapshot()?;
    while source.forward(&mut tail)? > NEAR_BYTES {}
    source.give_away(&mut tail)
}

/// Keys in these slots, of all databases.
fn keys_in(shared: &Shared, slots: &SlotSet) -> u64 {
    let keyspace = &shared.keyspace;
    let of = |(db, slot): (u16, u16)| {
        keyspace.lock_table(db, slot).map_or(0, |mut locked| locked.table(db, slot).len() as u64)
    };
    slots.iter().flat_map(|slot| (0..keyspace.databases()).map(move |db| (db, slot))).map(of).sum()
}

/// Where in the journal the move stands.
struct Tail {
    pin: Arc<Pin>,
    at: u64,
    decoder: Decoder,
    /// Bytes of a request that has not come whole yet.
    buffer: Vec<u8>,
}

struct Source<'s> {
    shared: &'s Arc<Shared>,
    stream: Stream,
    answers: BufReader<Stream>,
    under_way: Move,
    /// Our shard epoch.
    epoch: Epoch,
    wanted: Wanted,
    slots: SlotSet,
    progress: Arc<Progress>,
    syncs: u64,
}

impl Source<'_> {
    fn check(&self) -> io::Result<()> {
        if !self.shared.moves.giving.is_last(self.wanted.attempt) {
            return Err(begun_anew());
        }
        if goes_on(self.shared, &self.under_way, self.epoch) {
            return Ok(());
        }
        Err(io::Error::other("the move was ended, or this member is primary no longer"))
    }

    fn snapshot(&mut self) -> io::Result<Tail> {
        let shared = self.shared;
        let mut pin = None;
        let turn = shared.snapshots.turn();
        self.check()?;
        let begun = snapshot::begin_slots(shared, turn, self.progress.clone(), |moment| {
            // From this moment on every write is in the journal.
            shared.journal.set_active(true);
            pin = shared.journal.pin(moment.offset, LAG_MAX);
        });
        let Some(pin) = pin else { return Err(io::Error::other("no place in the journal")) };
        shared.moves.watch.begin();
        let sent = self.send_snapshot(begun, &pin);
        shared.moves.watch.end();
        sent?;
        self.progress.copied();
        self.sync(PATIENCE)?;
        let at = pin.offset();
        Ok(Tail { pin, at, decoder: Decoder::default(), buffer: Vec::new() })
    }

    /// Sends the keys, no faster than clients bear; at once where the journal or old values pile up meanwhile.
    fn send_snapshot(&self, begun: snapshot::Begun<'_>, pin: &Pin) -> io::Result<()> {
        let (shared, watch) = (self.shared, &self.shared.moves.watch);
        let mut pace = Pace::new(clock::monotonic_ms(), watch.served());
        let piles_up = || shared.journal.end().saturating_sub(pin.offset()) > LAG_MAX / 4;
        begun.write_requests(&mut |bytes, presses| {
            (&self.stream).write_all(bytes)?;
            pace.sent(bytes.len());
            self.progress.sent(bytes.len(), pace.limit());
            let wait_ms = pace.wait_ms(clock::monotonic_ms(), watch.served());
            if wait_ms > 0 && !presses && !piles_up() {
                self.check()?;
                std::thread::sleep(Duration::from_millis(wait_ms));
            }
            Ok(())
        })
    }

    /// Sends the next piece of the journal and waits until the target has it; gives the piece's length.
    fn forward(&mut self, tail: &mut Tail) -> io::Result<usize> {
        self.check()?;
        let (len, out) = self.read(tail)?;
        if !out.is_empty() {
            (&self.stream).write_all(&out)?;
            self.sync(PATIENCE)?;
        }
        Ok(len)
    }

    /// The next piece of the journal: its length, and the requests in it that concern the slots.
    fn read(&self, tail: &mut Tail) -> io::Result<(usize, Vec<u8>)> {
        let before = tail.buffer.len();
        if !self.shared.journal.read(tail.at, CHUNK_BYTES, &mut tail.buffer) {
            return Err(io::Error::other("the target was too far behind"));
        }
        let len = tail.buffer.len() - before;
        tail.at += len as u64;
        tail.pin.advance(tail.at);
        let limits = Limits { authenticated: true, bulk_bytes_max: REQUEST_BYTES_MAX };
        let (mut at, mut out) = (0, Vec::new());
        while let Some(end) =
            tail.decoder.next(&tail.buffer, at, limits).map_err(io::Error::other)?
        {
            let args: Vec<&[u8]> =
                tail.decoder.args.iter().map(|(a, b)| &tail.buffer[*a..*b]).collect();
            if concerns(&self.slots, &args) {
                encode_request(&mut out, &args);
            }
            at = end;
        }
        tail.buffer.drain(..at);
        tail.decoder.shift_to_request(at);
        Ok((len, out))
    }

    /// Waits until the target has executed all that was sent.
    fn sync(&mut self, patience: Duration) -> io::Result<()> {
        self.syncs += 1;
        let number = self.syncs.to_string();
        self.ask(&["SYNC", &number], &number, patience)
    }

    fn ask(&mut self, words: &[&str], expected: &str, patience: Duration) -> io::Result<()> {
        let mut request: Vec<&[u8]> = vec![super::target::CONTROL.as_bytes()];
        request.extend(words.iter().map(|w| w.as_bytes()));
        let mut bytes = Vec::new();
        encode_request(&mut bytes, &request);
        (&self.stream).write_all(&bytes)?;
        self.await_answer(expected, patience)
    }

    fn await_answer(&mut self, expected: &str, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim_end() == format!(":{expected}") {
            return Ok(());
        }
        Err(io::Error::other(format!("the target answered {line:?}")))
    }

    /// Holds the slots' clients, sends the rest, and has the council change the owner.
    fn give_away(&mut self, tail: &mut Tail) -> io::Result<()> {
        let shared = self.shared;
        let Wanted { id, attempt, .. } = self.wanted;
        let mut watch = Stopwatch::new();
        let number = shared.hold_slots(attempt, &self.slots);
        let result = self.hand_on(tail, number, &mut watch);
        if result.is_ok() {
            // Its word is only to spare clients a detour: without it they are sent on all the same.
            let epoch = shared.cluster.view().topology.epoch.to_string();
            if let Err(error) = self.ask(&["OWNED", &epoch], &epoch, TARGET_PATIENCE) {
                tracing::info!(id, %error, "the target has not said that it serves");
            }
        }
        watch.lap("told");
        shared.release_slots(attempt);
        shared.redirect_blocked(None);
        tracing::info!(
            id,
            held_us = watch.total_us(),
            laps_us = watch.laps(),
            "the slots' clients were held"
        );
        result
    }

    /// Nothing in the slots is executed any more: the target gets the last of it, and then the slots.
    fn hand_on(&mut self, tail: &mut Tail, number: u64, watch: &mut Stopwatch) -> io::Result<()> {
        let shared = self.shared;
        let until = clock::monotonic_ms() + HELD_PATIENCE.as_millis() as u64;
        while !shared.are_slots_held_by_all(number) {
            if clock::monotonic_ms() >= until {
                return Err(io::Error::other("a long command holds the move up"));
            }
            std::thread::sleep(LOOK);
        }
        watch.lap("held");
        let end = shared.journal.end();
        while tail.at < end {
            let (_, out) = self.read(tail)?;
            (&self.stream).write_all(&out)?;
        }
        self.sync(HELD_PATIENCE)?;
        watch.lap("sent");
        self.check()?;
        let Wanted { id, to_epoch, attempt } = self.wanted;
        if !shared.moves.giving.put_to_council(attempt) {
            return Err(begun_anew());
        }
        let moved = Change::Moved { id, from_epoch: self.epoch, to_epoch };
        let resolved = self.resolve(moved);
        watch.lap("decided");
        resolved
    }

    /// Has the council decide, and waits until it has: as long as a `Moved` may still be committed, nobody may
    /// write to the slots here. Under another shard epoch there is nothing to wait for: whoever acts then knows what
    /// was decided before, and `Moved` for this one comes to nothing. (A lease that has ended is no reason: it may be
    /// renewed, and `Moved` be committed in between.)
    fn resolve(&self, moved: Change) -> io::Result<()> {
        let shared = self.shared;
        let Some(engine) = shared.managed.get() else { return Ok(()) };
        let mut outcome = engine.propose(moved);
        loop {
            if shared.cluster.view().topology.move_of(self.wanted.id).is_none() {
                let first = self.under_way.slots.first().map_or(0, |r| r.first);
                let kept = shared.cluster.owner_of(first) == Some(self.under_way.from);
                return if kept { Err(io::Error::other("it was cancelled")) } else { Ok(()) };
            }
            if !engine.is_primary_of(self.epoch) || shared.state.shutdown.load(Ordering::Acquire) {
                return Err(io::Error::other("this member is primary no longer"));
            }
            if let Err(error) = outcome {
                tracing::info!(id = self.wanted.id, error, "the council did not move the slots");
                outcome = engine.propose(Change::CancelMove { id: self.wanted.id });
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn begun_anew() -> io::Error {
    io::Error::other("the target has begun anew")
}

/// The request changes keys of the slots. (All keys of a request are in one slot.) What a transaction is wrapped
/// in does not matter: nobody reads the slots at the target yet.
fn concerns(slots: &SlotSet, args: &[&[u8]]) -> bool {
    let Some(command) = args.first().and_then(|name| find(name)) else { return false };
    if matches!(command.name, "flushall" | "flushdb") {
        return true;
    }
    if matches!(command.keys, Keys::None) {
        return false;
    }
    command.key_positions(args).first().is_some_and(|at| slots.contains(slot_of(args[*at])))
}
