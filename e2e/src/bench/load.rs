//! The load generator: closed loop by default, open loop at a rate, one event loop per thread.
//!
//! Closed: each connection sends `pipeline` requests in one write and awaits all their replies
//! before the next batch; latency counts from that write. Open: requests are due at fixed times,
//! are sent when due on the next connection in turn, whatever is still unanswered, and latency
//! counts from when they were due. A stalled server thus shows in every request it delayed, and
//! not in one alone (no coordinated omission).

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use rustls::ClientConfig;

use super::replies::Replies;
use super::stream::Stream;
use super::wire::{Dialect, Encoder, Pick};
use super::{Error, Options, clock};

#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) addr: SocketAddr,
    /// By TLS, as this says.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) dialect: Dialect,
    pub(super) encoder: Encoder,
    /// Sent once on each connection before the load (the floor learns its lengths from it).
    pub(super) preamble: Vec<u8>,
    pub(super) connections: usize,
    pub(super) pipeline: usize,
    pub(super) threads: usize,
    pub(super) rate: Option<u64>,
    pub(super) keys: u64,
    pub(super) warmup: Duration,
    pub(super) span: Duration,
    pub(super) seed: u64,
    /// Whether the latency of each connection is wanted, too.
    pub(super) by_connection: bool,
}

impl Load {
    /// As the command line says, with no preamble.
    pub(super) fn of(
        options: &Options,
        addr: SocketAddr,
        dialect: Dialect,
        encoder: Encoder,
        pipeline: usize,
        round: usize,
    ) -> Self {
        Self {
            addr,
            tls: None,
            dialect,
            encoder,
            preamble: Vec::new(),
            connections: options.connections,
            pipeline,
            threads: options.client_threads.max(1),
            rate: options.rate,
            keys: options.keys().max(1),
            warmup: Duration::from_secs_f64(options.warmup),
            span: Duration::from_secs_f64(options.seconds),
            seed: round as u64,
            by_connection: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ops: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) elapsed: Duration,
    pub(super) server_cpu: Duration,
    /// Nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Open loop: how much later than they were due requests were sent, nanoseconds. That is the client's part.
    pub(super) late: Histogram<u64>,
    /// Medians of the connections that were answered, nanoseconds, where they were asked for.
    pub(super) medians: Vec<f64>,
}

const WARMUP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;
/// Unanswered requests of one thread above which an open loop stops sending: it is overload.
const BACKLOG_MAX: usize = 1 << 20;
const READ_BUFFER: usize = 64 * 1024;
/// Of a histogram, and of one of the many that are of a connection each: these shall not fill the caches.
const DIGITS: u8 = 3;
const DIGITS_OF_ONE: u8 = 2;

/// Runs the load; `server_cpu` is asked at both ends of the measured span.
pub(super) fn run(
    load: &Load,
    mut server_cpu: impl FnMut() -> Result<Duration, Error>,
) -> Result<Outcome, Error> {
    let phase = AtomicU8::new(WARMUP);
    let (spans, workers) = thread::scope(|scope| {
        let (connecting, connected) = mpsc::channel::<()>();
        let workers: Vec<_> = (0..load.threads)
            .map(|index| {
                let (phase, connecting) = (&phase, connecting.clone());
                scope.spawn(move || {
                    let worker = Worker::new(load, index);
                    drop(connecting);
                    worker?.run(phase)
                })
            })
            .collect();
        drop(connecting);
        // Ends once no thread is connecting any more: thousands of connections take longer than the load before the
        // measured span.
        let _ = connected.recv();
        thread::sleep(load.warmup);
        let before = server_cpu();
        let start = clock::now();
        phase.store(MEASURE, Ordering::Relaxed);
        thread::sleep(load.span);
        phase.store(STOP, Ordering::Relaxed);
        let elapsed = start.elapsed();
        let after = server_cpu();
        let workers: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                worker.join().unwrap_or_else(|_| Err(Error::Refused("a load thread died".into())))
            })
            .collect();
        ((before, after, elapsed), workers)
    });
    let (before, after, elapsed) = spans;
    let mut outcome = Outcome {
        ops: 0,
        errors: 0,
        first_error: None,
        elapsed,
        server_cpu: after?.saturating_sub(before?),
        latency: histogram(DIGITS)?,
        late: histogram(DIGITS)?,
        medians: Vec::new(),
    };
    for tally in workers {
        let tally = tally?;
        outcome.ops += tally.ops;
        outcome.errors += tally.errors;
        outcome.first_error = outcome.first_error.or(tally.first_error);
        outcome.medians.extend(tally.medians);
        for (sum, own) in [(&mut outcome.latency, tally.latency), (&mut outcome.late, tally.late)] {
            let added = sum.add(&own);
            added.map_err(|error| Error::Refused(format!("adding histograms: {error}")))?;
        }
    }
    Ok(outcome)
}

fn histogram(digits: u8) -> Result<Histogram<u64>, Error> {
    Histogram::new_with_bounds(1_000, 100_000_000_000, digits)
        .map_err(|error| Error::Refused(format!("histogram: {error}")))
}

#[derive(Debug)]
struct Tally {
    ops: u64,
    errors: u64,
    first_error: Option<String>,
    latency: Histogram<u64>,
    late: Histogram<u64>,
    medians: Vec<f64>,
}

struct Connection {
    stream: Stream,
    replies: Replies,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    filled: usize,
    /// Closed loop: requests of the batch still unanswered, and when it was sent.
    unanswered: u64,
    batch_at: Instant,
    /// Open loop: when each unanswered request was due.
    due: VecDeque<Instant>,
    latency: Option<Histogram<u64>>,
}

struct Worker<'a> {
    load: &'a Load,
    poll: Poll,
    connections: Vec<Connection>,
    /// Requests a second of this thread, in an open loop.
    interval: Option<Duration>,
    random: u64,
    tally: Tally,
}

impl<'a> Worker<'a> {
    fn new(load: &'a Load, index: usize) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::io("epoll"))?;
        let share =
            load.connections / load.threads + usize::from(index < load.connections % load.threads);
        let mut connections = Vec::with_capacity(share);
        for token in 0..share {
            let mut stream = Stream::connect(load.addr, load.tls.as_ref(), &load.preamble)?;
            stream.register(poll.registry(), Token(token))?;
            connections.push(Connection {
                stream,
                replies: Replies::new(load.dialect),
                out: Vec::new(),
                sent: 0,
                input: vec![0; READ_BUFFER],
                filled: 0,
                unanswered: 0,
                batch_at: clock::now(),
                due: VecDeque::new(),
                latency: load.by_connection.then(|| histogram(DIGITS_OF_ONE)).transpose()?,
            });
        }
        let interval =
            load.rate.map(|rate| Duration::from_secs_f64(load.threads as f64 / rate.max(1) as f64));
        let tally = Tally {
            ops: 0,
            errors: 0,
            first_error: None,
            latency: histogram(DIGITS)?,
            late: histogram(DIGITS)?,
            medians: Vec::new(),
        };
        // Any odd constant sets the threads apart; a zero state would stay zero.
        let random = (load.seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64 + 1);
        Ok(Self { load, poll, connections, interval, random, tally })
    }

    fn run(mut self, phase: &AtomicU8) -> Result<Tally, Error> {
        if self.connections.is_empty() {
            return Ok(self.tally);
        }
        let mut events = Events::with_capacity(1024);
        let mut due = clock::now();
        let mut turn = 0;
        if self.interval.is_none() {
            (0..self.connections.len()).try_for_each(|index| self.send_batch(index))?;
        }
        while phase.load(Ordering::Relaxed) != STOP {
            // An open loop polls without sleeping: waking late would count as the server's delay.
            let timeout = if self.interval.is_some() { 0 } else { 100 };
            match self.poll.poll(&mut events, Some(Duration::from_millis(timeout))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.map_err(Error::io("epoll"))?,
            }
            let measuring = phase.load(Ordering::Relaxed) == MEASURE;
            for event in &events {
                let index = event.token().0;
                if event.is_writable() {
                    flush(&mut self.connections[index])?;
                }
                if event.is_readable() {
                    self.receive(index, measuring)?;
                }
            }
            if let Some(interval) = self.interval {
                self.send_due(interval, &mut due, &mut turn, measuring)?;
            }
        }
        for connection in &mut self.connections {
            self.tally.errors += connection.replies.errors;
            let error = connection.replies.first_error.take();
            self.tally.first_error = self.tally.first_error.take().or(error);
            let own = connection.latency.as_ref().filter(|own| !own.is_empty());
            self.tally.medians.extend(own.map(|own| own.value_at_quantile(0.5) as f64));
        }
        Ok(self.tally)
    }

    fn random(&mut self) -> u64 {
        // xorshift64*: the cheapest that is even enough over a key space.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn push_request(&mut self, index: usize) {
        let random = self.random();
        let keys = self.load.keys;
        let pick = Pick { key: (random >> 20) % keys, keys, chance: (random & 0xf_ffff) as u32 };
        self.load.encoder.encode(pick, &mut self.connections[index].out);
    }

    fn send_batch(&mut self, index: usize) -> Result<(), Error> {
        (0..self.load.pipeline).for_each(|_| self.push_request(index));
        let connection = &mut self.connections[index];
        connection.unanswered = self.load.pipeline as u64;
        connection.batch_at = clock::now();
        flush(connection)
    }

    fn send_due(
        &mut self,
        interval: Duration,
        due: &mut Instant,
        turn: &mut usize,
        measuring: bool,
    ) -> Result<(), Error> {
        let now = clock::now();
        let backlog: usize = self.connections.iter().map(|each| each.due.len()).sum();
        let first = *turn;
        while *due <= now && backlog + (*turn - first) < BACKLOG_MAX {
            let index = *turn % self.connections.len();
            self.push_request(index);
            self.connections[index].due.push_back(*due);
            if measuring {
                record(&mut self.tally.late, now.duration_since(*due), 1);
            }
            *due += interval;
            *turn += 1;
        }
        let touched = (*turn - first).min(self.connections.len());
        for step in 0..touched {
            let index = (first + step) % self.connections.len();
            flush(&mut self.connections[index])?;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize, measuring: bool) -> Result<(), Error> {
        loop {
            let connection = &mut self.connections[index];
            let room = connection.input.len() - connection.filled;
            let read = match connection.stream.read(&mut connection.input[connection.filled..]) {
                Ok(0) => return Err(Error::Refused("the server closed a connection".into())),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read")(error)),
            };
            connection.filled += read;
            let (taken, done) = connection.replies.feed(&connection.input[..connection.filled]);
            connection.input.copy_within(taken..connection.filled, 0);
            connection.filled -= taken;
            let now = clock::now();
            if self.interval.is_some() {
                for _ in 0..done {
                    let due = connection.due.pop_front().unwrap_or(now);
                    if measuring {
                        let own = connection.latency.as_mut();
                        record_both(&mut self.tally.latency, own, now.duration_since(due), 1);
                    }
                }
            } else {
                connection.unanswered = connection.unanswered.saturating_sub(done);
                if measuring {
                    let own = connection.latency.as_mut();
                    record_both(&mut self.tally.latency, own, now - connection.batch_at, done);
                }
            }
            if measuring {
                self.tally.ops += done;
            }
            if self.interval.is_none() && self.connections[index].unanswered == 0 {
                self.send_batch(index)?;
            }
            // A short read emptied the socket; asking again would only cost a system call.
            if read < room && self.connections[index].stream.tells_its_end() {
                return Ok(());
            }
        }
    }
}

fn record(latency: &mut Histogram<u64>, taken: Duration, count: u64) {
    let nanos = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX);
    latency.saturating_record_n(nanos, count);
}

/// For all, and for the one connection where that is wanted.
fn record_both(
    all: &mut Histogram<u64>,
    own: Option<&mut Histogram<u64>>,
    taken: Duration,
    count: u64,
) {
    record(all, taken, count);
    if let Some(own) = own {
        record(own, taken, count);
    }
}

fn flush(connection: &mut Connection) -> Result<(), Error> {
    while connection.sent < connection.out.len() {
        match connection.stream.write(&connection.out[connection.sent..]) {
            Ok(written) => connection.sent += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("write")(error)),
        }
    }
    connection.out.clear();
    connection.sent = 0;
    connection.stream.push().map_err(Error::io("write"))
}
