//! The plain port: what another member serves is put to that member, for clients that follow nothing.
//!
//! ```text
//!   client --- plain port ---> its loop: what is this member's is run as on any port
//!                                |  refused: the slot is another's
//!                                v
//!                              a thread of this client's --- a connection a member ---> the slot's primary
//!                                |                           as the client's user, in its protocol
//!                                v
//!                              the loop takes the reply, and goes on with the client's next request
//! ```
//!
//! A request is put anew as long as it surely was not done: when nobody was reached, or when who was asked sends it
//! elsewhere; and a read, when a connection breaks. So a failover or a slot on its way is a pause, of `PATIENCE_MS` at most.
//! A transaction goes as a whole, once its EXEC has come; from WATCH on everything goes to the one member that watches.

mod upstream;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use smallvec::SmallVec;

use crate::clock;
use crate::command::{Command, Keys, flag};
use crate::resp::{Reply, encode_request};
use crate::server::Shared;
use crate::session::{Queue, Session};
use crate::topology::slot_of;
use crate::waiters::{OnTimeout, Waiter};
use upstream::{Broken, Upstream};

/// How long a request is put anew that nobody has done.
const PATIENCE_MS: u64 = 5_000;
const RETRY: Duration = Duration::from_millis(20);
/// Clients that have a thread for this at the same time.
const CLIENTS_MAX: usize = 1_000;
const STACK_BYTES: usize = 256 * 1024;
const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// What a client of the plain port has beside its session.
#[derive(Default)]
pub struct Plain {
    thread: Option<mpsc::Sender<Job>>,
    /// It watches keys of another member: all that it says goes there.
    is_pinned: bool,
}

/// How many clients have a thread.
#[derive(Default)]
pub struct Forwarding(AtomicUsize);

/// A request, and the client that waits for its reply.
struct Job {
    waiter: Arc<Waiter>,
    /// As it is sent, and how many replies come to it: the last one is the client's.
    request: Vec<u8>,
    replies: usize,
    /// `None`: for the member that the client is pinned to.
    slot: Option<u16>,
    /// Nothing changes by it, so that it can be put twice.
    only_reads: bool,
    pin: Pin,
    /// The client wants no reply.
    is_silent: bool,
    user: String,
    resp3: bool,
}

/// What becomes of the member that a client is pinned to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pin {
    Stays,
    Begins,
    Ends,
}

/// A request of the client is another member's, or may be soon: `true` when it was put to that one, or queued for it.
/// `refused`: what this member says to it.
pub fn takes(
    shared: &Shared,
    session: &mut Session,
    reply: &mut Reply,
    command: &'static Command,
    args: &[&[u8]],
    refused: Option<&str>,
) -> bool {
    let Some(plain) = &session.plain else { return false };
    if plain.is_pinned && session.authenticated && !stays(command) {
        let pin = if ends_watch(command) { Pin::Ends } else { Pin::Stays };
        put(shared, session, reply, command, Request::of(args), None, pin);
        return true;
    }
    if !refused
        .is_some_and(|error| error.starts_with("MOVED ") || error.starts_with("CLUSTERDOWN "))
    {
        return false;
    }
    if command.name == "exec" {
        return put_transaction(shared, session, reply, command);
    }
    let keys = command.key_positions(args);
    let Some(first) = keys.first() else { return false };
    if session.queue.is_some() {
        crate::command::exec::queue(session, reply, command, args);
        return true;
    }
    let slot = Some(slot_of(args[*first]));
    let pin = if command.name == "watch" { Pin::Begins } else { Pin::Stays };
    if pin == Pin::Begins && !session.watched.is_empty() {
        reply.error(CROSS_SLOT);
        return true;
    }
    put(shared, session, reply, command, Request::of(args), slot, pin);
    true
}

/// What says who the client is, or ends it, is this member's whatever it is pinned to.
fn stays(command: &Command) -> bool {
    matches!(command.name, "auth" | "hello" | "quit" | "reset" | "client")
}

fn ends_watch(command: &Command) -> bool {
    matches!(command.name, "exec" | "discard" | "unwatch")
}

/// Requests as they are sent.
struct Request {
    bytes: Vec<u8>,
    replies: usize,
}

impl Request {
    fn of(args: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, args);
        Self { bytes, replies: 1 }
    }

    /// A queue with its MULTI and EXEC.
    fn of_queue(queue: &Queue) -> Self {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, &["MULTI"]);
        for (_, args) in &queue.commands {
            encode_request(&mut bytes, args);
        }
        encode_request(&mut bytes, &["EXEC"]);
        Self { bytes, replies: queue.commands.len() + 2 }
    }
}

/// EXEC of what was queued: all of it goes to the one member whose slot it is.
fn put_transaction(
    shared: &Shared,
    session: &mut Session,
    reply: &mut Reply,
    command: &'static Command,
) -> bool {
    let Some(queue) = session.queue.take_if(|q| !q.aborted) else { return false };
    session.info.in_multi.store(false, Ordering::Relaxed);
    let mut slots: SmallVec<[u16; 8]> =
        session.watched.iter().map(|(_, key)| slot_of(key)).collect();
    for (command, args) in &queue.commands {
        let args: SmallVec<[&[u8]; 8]> = args.iter().map(Vec::as_slice).collect();
        slots.extend(command.key_positions(&args).iter().map(|at| slot_of(args[*at])));
    }
    crate::command::exec::unwatch(shared, session);
    slots.dedup();
    let [slot] = slots[..] else {
        reply.error(CROSS_SLOT);
        return true;
    };
    put(shared, session, reply, command, Request::of_queue(&queue), Some(slot), Pin::Stays);
    true
}

/// Has the client wait, and its thread put the request.
fn put(
    shared: &Shared,
    session: &mut Session,
    reply: &mut Reply,
    command: &'static Command,
    request: Request,
    slot: Option<u16>,
    pin: Pin,
) {
    let waiter = Arc::new(Waiter::new(
        session.info.clone(),
        command,
        Vec::new(),
        session.db,
        session.resp3,
        Vec::new(),
        0,
        OnTimeout::Null,
    ));
    let job = Job {
        waiter: waiter.clone(),
        request: request.bytes,
        replies: request.replies,
        slot,
        only_reads: command.is(flag::READONLY) && !matches!(command.keys, Keys::None),
        pin,
        is_silent: session.reply_off || session.reply_skip,
        user: session.info.names().user,
        resp3: session.resp3,
    };
    let Some(plain) = &mut session.plain else { return };
    if plain.thread.is_none() {
        match start(shared) {
            Ok(sender) => plain.thread = Some(sender),
            Err(error) => return reply.error(&error),
        }
    }
    plain.is_pinned = match pin {
        Pin::Stays => plain.is_pinned,
        Pin::Begins => true,
        Pin::Ends => false,
    };
    shared.waiters.block(&waiter);
    session.info.blocked.store(true, Ordering::Relaxed);
    session.waiter = Some(waiter);
    shared.stats.forwarded.fetch_add(1, Ordering::Relaxed);
    let is_sent = plain.thread.as_ref().is_some_and(|thread| thread.send(job).is_ok());
    debug_assert!(is_sent, "the thread lives as long as the client");
}

/// A thread for one client; it ends when the client has gone.
fn start(shared: &Shared) -> Result<mpsc::Sender<Job>, String> {
    let shared = shared.strong().ok_or("LOADING Larder is loading the dataset in memory")?;
    if shared.forwarding.0.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
        shared.forwarding.0.fetch_sub(1, Ordering::AcqRel);
        return Err(format!(
            "ERR {CLIENTS_MAX} clients of this plain port have keys of other members already: use a cluster client, or \
             another member"
        ));
    }
    let (sender, jobs) = mpsc::channel();
    let with = shared.clone();
    let spawned = std::thread::Builder::new().name("forward".into()).stack_size(STACK_BYTES).spawn(
        move || {
            Forward { shared: &with, upstreams: BTreeMap::new(), pinned: None, of: None }
                .run(&jobs);
            with.forwarding.0.fetch_sub(1, Ordering::AcqRel);
        },
    );
    match spawned {
        Ok(_) => Ok(sender),
        Err(error) => {
            shared.forwarding.0.fetch_sub(1, Ordering::AcqRel);
            Err(format!("ERR cannot start a thread: {error}"))
        }
    }
}

/// One client's side, in its thread.
struct Forward<'s> {
    shared: &'s Arc<Shared>,
    /// By the member's address.
    upstreams: BTreeMap<String, Upstream>,
    /// The member that watches for the client, as long as the connection stands.
    pinned: Option<String>,
    /// User and protocol that the connections were made for.
    of: Option<(String, bool)>,
}

impl Forward<'_> {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let of = Some((job.user.clone(), job.resp3));
            if self.of != of {
                self.upstreams.clear();
                self.of = of;
            }
            let bytes = self.reply_to(&job);
            if job.pin == Pin::Ends {
                self.pinned = None;
            }
            if job.waiter.cancel() {
                self.shared.waiters.unblock(&job.waiter);
                let bytes = if job.is_silent { Vec::new() } else { bytes };
                self.shared.answer(&job.waiter.client, bytes.into());
            }
        }
    }

    fn reply_to(&mut self, job: &Job) -> Vec<u8> {
        let until = clock::monotonic_ms() + PATIENCE_MS;
        loop {
            let (mut reply, is_final) = match self.attempt(job) {
                Ok(replies) => {
                    let is_elsewhere = replies.iter().any(|reply| sends_elsewhere(reply));
                    let is_final = !is_elsewhere || job.slot.is_none();
                    (replies.into_iter().next_back().unwrap_or_default(), is_final)
                }
                Err(Broken { why, was_sent }) => {
                    let may_be_done = was_sent && !job.only_reads;
                    let error = match (job.slot, may_be_done) {
                        (None, _) => format!("EXECABORT Transaction discarded because of: {why}"),
                        (_, true) => format!("ERR whether this was done is not known: {why}"),
                        (_, false) => format!("CLUSTERDOWN {why}"),
                    };
                    (format!("-{error}\r\n").into_bytes(), may_be_done || job.slot.is_none())
                }
            };
            let is_over = job.waiter.is_done() || clock::monotonic_ms() >= until;
            if is_final || is_over {
                if job.replies == 1 && sends_elsewhere(&reply) && reply.starts_with(b"-MOVED") {
                    // Who follows nothing is told what has happened, not where to go.
                    reply = b"-CLUSTERDOWN the slot's owner is changing\r\n".to_vec();
                }
                return reply;
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Puts a request to its member once.
    fn attempt(&mut self, job: &Job) -> Result<Vec<Vec<u8>>, Broken> {
        let unsent = |why: String| Broken { why, was_sent: false };
        let address = match job.slot {
            None => {
                self.pinned.clone().ok_or_else(|| unsent("the watched keys are lost".into()))?
            }
            Some(slot) => {
                let owner = self.shared.cluster.owner_of(slot);
                let view = self.shared.cluster.view();
                let member = owner.and_then(|shard| view.primary_of(shard));
                let member = member.ok_or_else(|| unsent("the slot has no primary".into()))?;
                let port = member.client_port(Upstream::is_by_tls(self.shared));
                let address = format!("{}:{port}", member.host);
                if !self.upstreams.contains_key(&address) {
                    let dialled =
                        Upstream::dial(self.shared, &member.host, port, &job.user, job.resp3);
                    let upstream = dialled.map_err(|e| {
                        unsent(format!("member {} is not reached: {e}", member.name))
                    })?;
                    self.upstreams.insert(address.clone(), upstream);
                }
                address
            }
        };
        let upstream = self.upstreams.get_mut(&address);
        let upstream = upstream.ok_or_else(|| unsent("the watched keys are lost".into()))?;
        let bytes_max = self.shared.config.hot().reply_bytes_max;
        let said = upstream.ask(&job.request, job.replies, bytes_max, &|| job.waiter.is_done());
        match &said {
            Ok(_) if job.pin == Pin::Begins => self.pinned = Some(address),
            Ok(_) => {}
            Err(_) => {
                self.upstreams.remove(&address);
                self.pinned.take_if(|pinned| *pinned == address);
            }
        }
        said
    }
}

/// The reply says that the request was not done, and that it may be by another member, or later.
fn sends_elsewhere(reply: &[u8]) -> bool {
    const CODES: [&[u8]; 6] =
        [b"-MOVED ", b"-ASK ", b"-TRYAGAIN ", b"-CLUSTERDOWN ", b"-LOADING ", b"-MASTERDOWN "];
    CODES.iter().any(|code| reply.starts_with(code))
}
