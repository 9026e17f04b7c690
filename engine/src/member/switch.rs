//! One council exchanged for another: joined, begun anew, or succeeded by what survivors made of it.
//!
//! While a `Switch` is under way neither council speaks: the old one is told nothing and asked nothing, and the new
//! one is made when the disk has answered for all that the old one wrote and, in the same file, for what the new
//! one begins with. Killed before that, a member is in the old one; after it, in the new one.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Answering;
use super::driver::{Driver, council_of};
use crate::bus::Answer;
use crate::council::Council;
use crate::council::record::{Batch, Record, Saved};
use crate::topology::Topology;

/// The council that takes the place of the present one, once a batch is on disk.
pub(super) struct Switch {
    batch: u64,
    to: To,
}

pub(super) enum To {
    /// Another one, that has admitted this member.
    Join(Arc<Topology>),
    /// One of its own.
    Alone { hard: bool, answer: Answering },
    /// A later incarnation of its cluster.
    Later { records: Vec<Record>, epoch: u64, answer: oneshot::Sender<Answer> },
}

impl Driver {
    pub(super) fn is_switching(&self) -> bool {
        self.switch.is_some()
    }

    /// A later incarnation has this member: the council that it was in is given up.
    pub(super) fn succeed(&mut self, topology: Topology, answer: oneshot::Sender<Answer>) {
        let epoch = topology.epoch;
        let records = vec![Record::Known(Arc::new(topology))];
        self.become_later(records, epoch, answer);
    }

    /// This member begins a later incarnation of its cluster, as its only voter.
    pub(super) fn recover(&mut self, topology: Topology, answer: oneshot::Sender<Answer>) {
        let votes_alone = topology.voters.iter().eq([&self.me]);
        if !votes_alone || !topology.members.contains_key(&self.me) {
            let reason = "whoever recovers a cluster is its only voter at first".to_owned();
            // Who asked may have gone.
            let _ = answer.send(Answer::Refused { reason });
            return;
        }
        let epoch = topology.epoch;
        tracing::warn!(
            incarnation = topology.incarnation,
            epoch,
            members = topology.members.len(),
            "going on without the majority of the council, as the operator was told"
        );
        let records = Council::first_records(&self.me, topology);
        self.become_later(records, epoch, answer);
    }

    fn become_later(&mut self, records: Vec<Record>, epoch: u64, answer: oneshot::Sender<Answer>) {
        self.settle();
        let to = To::Later { records: records.clone(), epoch, answer };
        self.switch(to, records, true);
    }

    pub(super) fn switch(&mut self, to: To, records: Vec<Record>, rewrite: bool) {
        // No lease of one council is ever counted in another, whatever their epochs are.
        self.local.lease(0, 0);
        self.local.become_idle();
        self.part = None;
        let batch = self.last_batch + 1;
        let all = Batch { number: batch, rewrite, sync: true, records };
        if self.disk.send(all).is_err() {
            tracing::error!("the council's disk cannot be written");
            self.is_over = true;
        }
        self.switch = Some(Switch { batch, to });
    }

    /// The disk has answered for that batch.
    pub(super) fn switched(&mut self, batch: u64) -> io::Result<()> {
        let Some(switch) = self.switch.take_if(|s| s.batch <= batch) else { return Ok(()) };
        if let Some(meets) = &mut self.meets {
            meets.joining = None;
        }
        self.drop_wishes();
        self.links.clear();
        self.last_batch = 0;
        match switch.to {
            To::Join(topology) => {
                tracing::info!(cluster = topology.cluster, "joined the cluster of another member");
                self.council = self.new_council(Saved::from_records([Record::Known(topology)]))?;
                self.settle();
            }
            To::Later { records, epoch, answer } => {
                self.council = self.new_council(Saved::from_records(records))?;
                self.settle();
                // Who asked may have gone.
                let _ = answer.send(Answer::Done { epoch });
            }
            To::Alone { hard, answer } => {
                self.renew_identity(hard)?;
                self.local.begin_anew();
                self.council = self.new_council(Saved::default())?;
                self.begin_alone()?;
                self.settle();
                let epoch = self.council.topology().map_or(0, |t| t.epoch);
                tracing::info!(id = self.me, "reset: this member is alone");
                // Who asked may have gone.
                let _ = answer.send(Ok(epoch));
            }
        }
        Ok(())
    }

    fn new_council(&self, saved: Saved) -> io::Result<Council> {
        council_of(&self.identity, self.options.failure_timeout_ms, saved)
    }
}
