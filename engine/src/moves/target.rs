//! The side that the slots come to: takes in what the source sends, as writes of its own.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::functions::Taken;
use super::{SlotSet, acting, goes_on, sweep};
use crate::clock;
use crate::command::exec::Executor;
use crate::persist::load;
use crate::replication::Wire;
use crate::resp::{Decoder, Limits, Reply};
use crate::server::Shared;
use crate::session::{ClientInfo, Session};
use crate::topology::{Epoch, Move};

/// Name of what the source says between the requests, and of what the target asks with.
pub(super) const CONTROL: &str = "LARDER.MOVE";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const SILENCE_MS: u64 = 30_000;
/// How often replicas are looked at that do not know yet whose the slots are.
const AWARE_LOOK: Duration = Duration::from_millis(5);
/// Pause before a move that broke off is begun anew.
const RETRY: Duration = Duration::from_millis(200);
/// How long the target waits for a topology that the source has already.
const TOPOLOGY_MS: u64 = 600;
/// Longest request, bytes: a whole value, as RESTORE takes it.
const REQUEST_BYTES_MAX: usize = 1 << 30;

/// Takes a move in, until it is ended or this member is primary no longer.
pub(super) fn run(shared: &Arc<Shared>, under_way: &Move, epoch: Epoch) {
    let taken = Taken::default();
    while goes_on(shared, under_way, epoch) {
        if let Err(error) = (Target { shared, under_way, epoch }).attempt(&taken)
            && goes_on(shared, under_way, epoch)
        {
            tracing::info!(id = under_way.id, %error, "taking slots in broke off, and begins anew");
            std::thread::sleep(RETRY);
        }
    }
}

pub(super) struct Target<'s> {
    pub(super) shared: &'s Arc<Shared>,
    pub(super) under_way: &'s Move,
    pub(super) epoch: Epoch,
}

/// What the source's requests are executed with.
pub(super) struct Intake<'s> {
    executor: Executor<'s>,
    session: Session,
    reply: Reply,
}

impl Intake<'_> {
    pub(super) fn new(shared: &Shared) -> Intake<'_> {
        let info = ClientInfo::new(0, "slots-in".into(), String::new(), 0, usize::MAX, usize::MAX);
        let mut session = Session::new(Arc::new(info), true);
        session.importing = true;
        let stats = &shared.stats.loops[shared.loops.len() + 1];
        let executor = Executor::new(shared, load::env(shared), stats);
        Intake { executor, session, reply: Reply::new(Vec::new(), false) }
    }
}

impl Target<'_> {
    fn attempt(&self, taken: &Taken) -> io::Result<()> {
        let mut wire = self.connect()?;
        self.take_functions(&mut wire, taken)?;
        let (id, epoch) = (self.under_way.id.to_string(), self.epoch.to_string());
        self.ask(&mut wire, &[CONTROL, &id, &epoch])?;
        self.await_replicas()?;
        // What an earlier attempt left is no part of the snapshot. Not before the source has said that nothing comes of
        // that one: the slots could be ours by it.
        let clear = |slot| sweep::clear_slot(self.shared, slot, self.epoch);
        if !SlotSet::of(&self.under_way.slots).iter().all(clear) {
            return Err(gone());
        }
        wire.stream.write_all(b":0\r\n")?;
        self.take_in(&mut wire)
    }

    /// Until no replica of ours still takes the slots for ours, from before they had gone.
    fn await_replicas(&self) -> io::Result<()> {
        while !sweep::is_nobody_unaware(self.shared) {
            if !goes_on(self.shared, self.under_way, self.epoch) {
                return Err(gone());
            }
            std::thread::sleep(AWARE_LOOK);
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<Wire> {
        let view = self.shared.cluster.view();
        let source = view.primary_of(self.under_way.from);
        let source = source.ok_or_else(|| io::Error::other("the source has no primary"))?;
        let stream = self.shared.dial_member(source, CONNECT_TIMEOUT)?;
        let mut wire = Wire::new(stream, SILENCE_MS)?;
        if let Some(login) = self.shared.config.login() {
            self.ask(&mut wire, &login)?;
        }
        Ok(wire)
    }

    fn ask<W: AsRef<str> + AsRef<[u8]>>(&self, wire: &mut Wire, request: &[W]) -> io::Result<()> {
        wire.request(request)?;
        let answer = wire.line(&|| !goes_on(self.shared, self.under_way, self.epoch))?;
        if answer.starts_with('+') {
            return Ok(());
        }
        let name: &str = request[0].as_ref();
        Err(io::Error::other(format!("{name} was answered {answer:?}")))
    }

    /// Executes what comes until the source hangs up.
    fn take_in(&self, wire: &mut Wire) -> io::Result<()> {
        let shared = self.shared;
        let mut intake = Intake::new(shared);
        let mut decoder = Decoder::default();
        let limits = Limits { authenticated: true, bulk_bytes_max: REQUEST_BYTES_MAX };
        let mut heard_ms = clock::monotonic_ms();
        loop {
            intake.executor.env.now_ms = clock::unix_ms();
            intake.executor.mono_ms = clock::monotonic_ms();
            let mut at = 0;
            while let Some(end) =
                decoder.next(&wire.buffer, at, limits).map_err(io::Error::other)?
            {
                let buffer = &wire.buffer;
                let args: SmallVec<[&[u8]; 8]> =
                    decoder.args.iter().map(|(a, b)| &buffer[*a..*b]).collect();
                if args.first().is_some_and(|a| a.eq_ignore_ascii_case(CONTROL.as_bytes())) {
                    let answer = self.answer(&args)?;
                    wire.stream.write_all(answer.as_bytes())?;
                } else {
                    // Without it the slots would not be what they are at the source.
                    self.execute(&mut intake, &args)?.map_err(|text| {
                        io::Error::other(format!("a request of the source failed: {text}"))
                    })?;
                }
                at = end;
            }
            wire.buffer.drain(..at);
            decoder.shift_to_request(at);
            if wire.fill()? {
                heard_ms = clock::monotonic_ms();
            } else if !goes_on(shared, self.under_way, self.epoch) {
                return Ok(());
            } else if clock::monotonic_ms() > heard_ms + SILENCE_MS {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the source is silent"));
            }
        }
    }

    /// Executes a request as a write of our own; the inner error is the reply's.
    pub(super) fn execute(
        &self,
        intake: &mut Intake<'_>,
        args: &[&[u8]],
    ) -> io::Result<Result<(), String>> {
        let is_flush = |name: &[u8]| {
            name.eq_ignore_ascii_case(b"flushall") || name.eq_ignore_ascii_case(b"flushdb")
        };
        if args.first().is_some_and(|name| is_flush(name)) {
            // The source's data set was emptied: here that means these slots, which begin anew.
            return Err(io::Error::other("the source was emptied"));
        }
        // Roles change only while nothing is taken in.
        let _importing = self.shared.moves.importing();
        let acts = acting(self.shared).is_some_and(|(_, epoch)| epoch == self.epoch);
        if self.shared.hold.is_on() || !acts {
            return Err(gone());
        }
        let Intake { executor, session, reply } = intake;
        let errors = reply.errors;
        load::execute(executor, session, reply, args);
        if reply.errors > errors {
            return Ok(Err(String::from_utf8_lossy(&reply.out).trim().to_owned()));
        }
        Ok(Ok(()))
    }

    /// Where writes are acknowledged by majority, what was taken in counts from then on, too.
    fn await_majority(&self) -> io::Result<()> {
        let quorum = &self.shared.quorum;
        let (end, until) =
            (self.shared.journal.end(), clock::monotonic_ms() + crate::quorum::WAIT_MS);
        while quorum.is_on() && quorum.offset() < end {
            if clock::monotonic_ms() >= until {
                return Err(io::Error::other("too few replicas follow"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// What the source is told: that all before was executed, or that the slots are known to be ours.
    fn answer(&self, args: &[&[u8]]) -> io::Result<String> {
        let text = |i: usize| args.get(i).map(|a| String::from_utf8_lossy(a).into_owned());
        let (Some(word), Some(number)) = (text(1), text(2)) else {
            return Err(io::Error::other("the source says something that is not known here"));
        };
        if word == "SYNC" {
            self.await_majority()?;
        }
        if word == "OWNED" {
            let epoch: Epoch = number.parse().map_err(io::Error::other)?;
            let until = clock::monotonic_ms() + TOPOLOGY_MS;
            while self.shared.cluster.view().topology.epoch < epoch {
                if clock::monotonic_ms() >= until {
                    return Err(io::Error::other("the new topology has not come"));
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(format!(":{number}\r\n"))
    }
}

fn gone() -> io::Error {
    io::Error::other("this member is primary no longer")
}
