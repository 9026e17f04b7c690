//! The client of a member's bus for drivers that reach members by address: reports, and wishes.

use std::io;
use std::time::Duration;

use engine::bus::tls::Tls;
use engine::bus::{Answer, Ask, client};
use engine::topology::{Change, Topology};

use crate::Error;
use crate::observed::Told;
use crate::plan::Step;

/// How long a member may take to report; all are asked at the same time.
const REPORT_LIMIT: Duration = Duration::from_millis(500);
/// How long a member may take to do as asked: the council has to agree on a wish.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// What a member says of itself, and of the cluster; `None`: it did not answer in time.
pub(crate) async fn report(address: &str, tls: &Tls) -> Option<Told> {
    client::ask(address, tls, Ask::Report, REPORT_LIMIT).await.ok().and_then(Told::of)
}

/// Asks a member to do something.
pub(crate) async fn ask(address: &str, tls: &Tls, ask: Ask) -> Result<(), Error> {
    let action = || format!("ask the member at {address}");
    match client::ask(address, tls, ask, ASK_LIMIT).await {
        Ok(Answer::Refused { reason }) => Err(Error::world(action(), reason)),
        Ok(Answer::Done { .. } | Answer::Report { .. }) => Ok(()),
        Err(error) => Err(Error::world(action(), error)),
    }
}

/// Puts a wish to the council through the first of these members that takes it.
pub(crate) async fn wish(addresses: &[String], tls: &Tls, wish: Ask) -> Result<(), Error> {
    let mut last = Error::world("put a wish to the council", io::Error::other("nobody answers"));
    for address in addresses.iter().take(3) {
        match ask(address, tls, wish.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What a step says on the bus, and to whom; `None`: it is about a body, not a member.
pub enum Said {
    /// To the member in the step's seat.
    Member(crate::desired::Seat, Ask),
    /// To any member of the council.
    Council(Ask),
}

/// The words of a step.
pub fn said(step: &Step) -> Option<Said> {
    let wish = |change, expected_epoch| Some(Said::Council(Ask::Wish { change, expected_epoch }));
    match step {
        Step::CreateMember { .. } | Step::DeleteMember { .. } | Step::RestartMember { .. } => None,
        Step::Form { seat, me, incarnation, shards } => {
            let (me, shards) = (me.clone(), shards.clone());
            Some(Said::Member(*seat, Ask::Form { incarnation: *incarnation, me, shards }))
        }
        Step::Recover { seat, topology } => {
            let topology = Topology::clone(topology);
            Some(Said::Member(*seat, Ask::Recover { topology }))
        }
        Step::Adopt { seat, me, topology } => {
            let (me, topology) = (me.clone(), topology.clone());
            Some(Said::Member(*seat, Ask::Adopt { topology, me }))
        }
        Step::Join { member, seen } => {
            wish(Change::Enter { member: member.clone(), seen: *seen }, None)
        }
        Step::Bar { name } => wish(Change::Bar { name: name.clone() }, None),
        Step::Leave { id, .. } => wish(Change::Leave { member: id.clone() }, None),
        Step::Assign { shard, slots, epoch } => {
            wish(Change::Assign { shard: *shard, slots: slots.clone() }, Some(*epoch))
        }
        Step::Move { slots, from, to, epoch } => {
            let change = Change::Move { slots: slots.clone(), from: *from, to: *to };
            wish(change, Some(*epoch))
        }
        Step::HandOver { shard, to, epoch, .. } => {
            wish(Change::handover(*shard, to.clone(), *epoch), None)
        }
        Step::CancelMove { id } => wish(Change::CancelMove { id: *id }, None),
        Step::Configure { seat, hash, directives, reset } => {
            let (hash, directives) = (hash.clone(), directives.clone());
            Some(Said::Member(*seat, Ask::Configure { hash, directives, reset: reset.clone() }))
        }
    }
}
