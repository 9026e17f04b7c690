//! An unmanaged member's own council: begun alone, given up for another one, begun anew.

use std::io;
use std::sync::Arc;

use super::driver::Driver;
use super::switch::To;
use super::{Answering, random_hex};
use crate::clock;
use crate::council::record::Record;
use crate::topology::{Change, Member, Topology};

/// How often a changed address is put to the council, milliseconds.
const ADDRESS_MS: u64 = 2_000;

impl Driver {
    /// It may be admitted elsewhere any moment: nothing changes here until that is known.
    pub(super) fn is_joining(&self) -> bool {
        self.is_switching() || self.meets.as_ref().is_some_and(|m| m.joining.is_some())
    }

    /// This member, as it has not met anybody.
    fn alone(&self) -> Option<Member> {
        let address = &self.meets.as_ref()?.address;
        Some(Member {
            id: self.me.clone(),
            // A name stands for one disk, and here nobody gives names.
            name: self.me.clone(),
            host: address.host.clone(),
            port: address.port,
            tls_port: address.tls_port,
            bus_port: address.bus_port,
            shard: Some(0),
            node: address.node.clone(),
            zone: address.zone.clone(),
        })
    }

    /// A member without a cluster is one by itself.
    pub(super) fn begin_alone(&mut self) -> io::Result<()> {
        let Some(me) = self.alone().filter(|_| self.council.topology().is_none()) else {
            return Ok(());
        };
        let cluster = random_hex(40)?;
        self.council.form_alone(clock::monotonic_ms(), cluster, &me).map_err(io::Error::other)
    }

    /// The settings may give this member another address than the one that the others know.
    pub(super) fn look_after_address(&mut self) {
        let now_ms = clock::monotonic_ms();
        let Some(wanted) = self.alone() else { return };
        let Some(known) = self.council.topology().and_then(|t| t.members.get(&self.me)) else {
            return;
        };
        let host = if wanted.host.is_empty() { known.host.clone() } else { wanted.host.clone() };
        let wanted = Member { host, shard: known.shard, name: known.name.clone(), ..wanted };
        if wanted == *known || self.council.leader().is_none() {
            return;
        }
        let Some(meets) = &mut self.meets else { return };
        if meets.joining.is_none() && now_ms >= meets.addressed_ms + ADDRESS_MS {
            meets.addressed_ms = now_ms;
            self.council.propose(now_ms, Change::Join(wanted), None);
        }
    }

    /// Tells the data engine who is not heard, when that has changed.
    pub(super) fn tell_silent(&mut self) {
        let silent = self.council.silent();
        let Some(meets) = &mut self.meets else { return };
        if meets.silent != silent {
            self.local.silent(&silent);
            meets.silent = silent;
        }
    }

    /// The other council has admitted this member: its own one is given up.
    pub(super) fn join(&mut self, number: u64, topology: Topology) {
        self.settle();
        let is_alone = self.council.topology().is_some_and(|t| t.members.len() == 1);
        let Some(meets) = self.meets.as_mut().filter(|m| m.joining == Some(number)) else { return };
        if !is_alone || !topology.members.contains_key(&self.me) {
            tracing::warn!(cluster = topology.cluster, "not joined: this member is not alone");
            meets.joining = None;
            return;
        }
        let topology = Arc::new(topology);
        // On disk as all there is: the file of the old council is gone with it.
        let records = vec![Record::Known(topology.clone())];
        self.switch(To::Join(topology), records, true);
    }

    /// CLUSTER RESET: alone again, with nothing of what the cluster had.
    pub(super) fn reset(&mut self, hard: bool, answer: Answering) {
        if self.meets.is_none() || self.is_joining() {
            // Who asked may have gone.
            let _ = answer.send(Err("this member is about to join a cluster; try again".into()));
            return;
        }
        self.settle();
        // Its last records; the new council's come when these are on disk.
        self.switch(To::Alone { hard, answer }, vec![], false);
    }

    /// Under an ID that may have voted, or that others may still count on, nothing new begins.
    pub(super) fn renew_identity(&mut self, hard: bool) -> io::Result<()> {
        let was_alone = self.council.topology().is_some_and(|t| t.members.len() == 1);
        if hard || !was_alone {
            self.identity.renew(&self.options.dir)?;
            self.me = self.identity.id.clone();
            self.dialer.me = self.me.clone();
            self.named.send_replace(self.me.clone());
            self.local.renamed(&self.me);
        }
        Ok(())
    }
}
