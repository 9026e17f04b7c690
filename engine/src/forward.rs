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
//! Memcached clients follow nothing either: `memcached` puts their requests, as they are, into one of RESP.

pub mod memcached;
mod thread;
mod upstream;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use smallvec::SmallVec;

use crate::command::exec::LOADING;
use crate::command::{Command, Keys, flag};
use crate::resp::{Reply, encode_request};
use crate::server::Shared;
use crate::session::{Queue, Session};
use crate::topology::slot_of;
use crate::waiters::{OnTimeout, Waiter};
use thread::Forward;

/// Clients that have a thread for this at the same time.
const CLIENTS_MAX: usize = 1_000;
const STACK_BYTES: usize = 256 * 1024;
const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// What a client that follows nothing has beside its session.
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
    /// Whose connection it is to be; `None`: the member's own, as which LARDER.MEMCACHED is said.
    user: Option<String>,
    resp3: bool,
    /// How a Memcached client reads the reply.
    form: Option<memcached::Form>,
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
    if !refused.is_some_and(|error| is_elsewhere(shared, error)) {
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

/// A refusal that the slot's member may not give, now or soon. READONLY of a key in a cluster is one: its primary is not
/// quite that yet, or has just ceased to be.
pub fn is_elsewhere(shared: &Shared, error: &str) -> bool {
    let is_changing = || error.starts_with("READONLY ") && shared.cluster.is_enabled();
    error.starts_with("MOVED ") || error.starts_with("CLUSTERDOWN ") || is_changing()
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
    let job = Job {
        waiter: waiter(session, command),
        request: request.bytes,
        replies: request.replies,
        slot,
        only_reads: command.is(flag::READONLY) && !matches!(command.keys, Keys::None),
        pin,
        is_silent: session.reply_off || session.reply_skip,
        user: Some(session.info.names().user),
        resp3: session.resp3,
        form: None,
    };
    if let Err(error) = hand_over(shared, session, job) {
        reply.error(&error);
    }
}

fn waiter(session: &Session, command: &'static Command) -> Arc<Waiter> {
    Arc::new(Waiter::new(
        session.info.clone(),
        command,
        Vec::new(),
        session.db,
        session.resp3,
        Vec::new(),
        0,
        OnTimeout::Null,
    ))
}

/// Gives the job to the client's thread; the client waits from then on.
fn hand_over(shared: &Shared, session: &mut Session, job: Job) -> Result<(), String> {
    let Some(plain) = &mut session.plain else {
        return Err("ERR requests of this client are not forwarded".into());
    };
    if plain.thread.is_none() {
        plain.thread = Some(start(shared)?);
    }
    plain.is_pinned = match job.pin {
        Pin::Stays => plain.is_pinned,
        Pin::Begins => true,
        Pin::Ends => false,
    };
    shared.waiters.block(&job.waiter);
    session.info.blocked.store(true, Ordering::Relaxed);
    session.waiter = Some(job.waiter.clone());
    shared.stats.forwarded.fetch_add(1, Ordering::Relaxed);
    let is_sent = plain.thread.as_ref().is_some_and(|thread| thread.send(job).is_ok());
    debug_assert!(is_sent, "the thread lives as long as the client");
    Ok(())
}

/// One of the `CLIENTS_MAX` places, until it is dropped.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: Arc<Shared>) -> Option<Self> {
        let taken = shared.forwarding.0.fetch_add(1, Ordering::AcqRel);
        let place = Self(shared);
        (taken < CLIENTS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.forwarding.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A thread for one client; it ends when the client has gone.
fn start(shared: &Shared) -> Result<mpsc::Sender<Job>, String> {
    let shared = shared.strong().ok_or(LOADING)?;
    let place = Place::take(shared).ok_or_else(|| {
        format!(
            "ERR {CLIENTS_MAX} clients here have keys of other members already: use a client that follows, or another \
             member"
        )
    })?;
    let (sender, jobs) = mpsc::channel();
    let thread = std::thread::Builder::new().name("forward".into()).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || Forward::new(&place.0).run(&jobs));
    spawned.map_err(|error| format!("ERR cannot start a thread: {error}"))?;
    Ok(sender)
}
