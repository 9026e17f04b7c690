//! One client's side: its thread, which puts its requests to other members, one after another.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::upstream::{Broken, Upstream};
use super::{Job, Pin};
use crate::clock;
use crate::server::Shared;

/// How long a request is put anew that nobody has done.
const PATIENCE_MS: u64 = 5_000;
const RETRY: Duration = Duration::from_millis(20);

/// One client's side, in its thread.
pub(super) struct Forward<'s> {
    shared: &'s Arc<Shared>,
    /// By the member's address.
    upstreams: BTreeMap<String, Upstream>,
    /// The member that watches for the client, as long as the connection stands.
    pinned: Option<String>,
    /// User and protocol that the connections were made for.
    of: Option<(Option<String>, bool)>,
}

impl<'s> Forward<'s> {
    pub(super) fn new(shared: &'s Arc<Shared>) -> Self {
        Self { shared, upstreams: BTreeMap::new(), pinned: None, of: None }
    }

    pub(super) fn run(mut self, jobs: &mpsc::Receiver<Job>) {
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
                let bytes = match &job.form {
                    Some(form) => form.answer(&bytes),
                    None if job.is_silent => Vec::new(),
                    None => bytes,
                };
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
                let address = member.client_address(self.shared.config.is_yes("tls-cluster"));
                if !self.upstreams.contains_key(&address) {
                    let user = job.user.as_deref();
                    let dialled = Upstream::dial(self.shared, member, user, job.resp3);
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
    const CODES: [&[u8]; 7] = [
        b"-MOVED ",
        b"-ASK ",
        b"-TRYAGAIN ",
        b"-CLUSTERDOWN ",
        b"-LOADING ",
        b"-MASTERDOWN ",
        b"-READONLY ",
    ];
    CODES.iter().any(|code| reply.starts_with(code))
}
