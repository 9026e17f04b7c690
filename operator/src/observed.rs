//! What is there: one look at every member of a cluster, and what the council last told.
//!
//! `None` means *unseen*, and unseen is not dead: a member that does not answer may be cut off from
//! the operator only, and serve. Nothing here is newer than the look itself; the next one decides
//! whether a step has had its effect.

use std::collections::BTreeMap;

use engine::bus::Answer;
use engine::topology::{Epoch, MemberId, Report, Topology};

use crate::desired::Seat;
use crate::status::Status;

/// One look at a cluster.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Every seat that has a body, a disk or both. The listing is complete: a seat that is not in it
    /// has neither (a driver that cannot list fails its observation instead).
    pub members: BTreeMap<Seat, Member>,
    /// The newest topology that a member told, by (incarnation, epoch): the only memory there is.
    pub topology: Option<Topology>,
    /// The status as it was last recorded. It remembers times, and whether a cluster was ever formed.
    pub past: Option<Box<Status>>,
    /// Where clients connect: what the driver made, for the account.
    pub access: Access,
    /// Fingerprint of what members are made from now.
    pub template: String,
    /// What went wrong before this look, one sentence each: it holds nothing up that can be done.
    pub troubles: Vec<String>,
    /// The time of this look, RFC 3339: for the account that is given of it, and for what the user gave a time for;
    /// never for a decision on who is there.
    pub now: String,
}

/// Where clients connect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    pub endpoints: Vec<crds::Endpoint>,
    /// Secret or file that holds the password; `None`: there is none.
    pub auth_secret: Option<String>,
    /// Selector of the members' pods, where there are pods.
    pub label_selector: Option<String>,
}

/// What is in one seat.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// The pod or process; `None`: there is none.
    pub body: Option<Body>,
    /// The volume or directory; `None`: there is none that outlives the body.
    pub disk: Option<Disk>,
    pub address: Address,
    /// What the member says of itself; `None`: unseen.
    pub report: Option<Report>,
    /// Which cluster it says it belongs to; `None` beside a report: to none so far.
    pub belongs: Option<Belongs>,
}

impl Member {
    /// What is in the seat, as it was seen.
    pub fn sight(&self) -> Sight {
        let mark =
            |uid: &String, version: &String| Mark { uid: uid.clone(), version: version.clone() };
        Sight {
            body: self.body.as_ref().map(|b| mark(&b.uid, &b.version)),
            disk: self.disk.as_ref().map(|d| mark(&d.uid, &d.version)),
        }
    }
}

/// What was seen in a seat. Whoever takes it away takes nothing that has changed since: another operator may have let the
/// member in meanwhile, and changes what is in the seat before it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    pub body: Option<Mark>,
    pub disk: Option<Mark>,
}

/// Tells one state of a thing from all others, in its kind's own terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub uid: String,
    pub version: String,
}

/// A pod or a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Tells this body from an earlier one in the same seat.
    pub uid: String,
    /// Is another one after each change; empty where nobody else changes it.
    pub version: String,
    pub phase: Phase,
    /// A process has run in it at least once, so that it may have learned a topology.
    pub started: bool,
    /// It was made from an older template (image, resources, directives that take a restart).
    pub outdated: bool,
    /// Why it does not get on, in the words of whoever runs it.
    pub stuck: Option<String>,
    pub node: Option<String>,
    pub zone: Option<String>,
    /// So often its process was started again after it ended by itself.
    pub restarts: u32,
    /// Its node takes nothing new (it is cordoned): who is there is about to go elsewhere.
    pub draining: bool,
}

/// How far a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet: waiting for a node, an image, a volume.
    #[default]
    Pending,
    Running,
    /// It is going, and a new one can only be made when it is gone.
    Stopping,
    /// It has ended and will not start again by itself.
    Ended,
    /// It is on a node that is gone for good or has been silent for long: nobody will tell its end.
    Lost,
}

/// What outlives a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub uid: String,
    /// Is another one after each change; empty where nobody else changes it.
    pub version: String,
    /// No member has ever used it, so that no topology can be on it.
    pub fresh: bool,
    /// It is tied to a node that is gone for good, so that no body can ever use it again.
    pub lost: bool,
}

/// Where a member is reached. The host is a DNS name where there is DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
    /// Where clients are served by TLS; 0: nowhere.
    pub tls_port: u16,
    pub bus_port: u16,
}

impl Address {
    /// The port of clients: the plain one, if there is one.
    pub fn client_port(&self) -> u16 {
        if self.port == 0 { self.tls_port } else { self.port }
    }
}

/// The topology that one member knows, as far as it matters beside the newest one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belongs {
    pub cluster: String,
    pub incarnation: u64,
    pub epoch: Epoch,
    /// Who leads the council, if this member has heard of one within the failure timeout.
    pub leader: Option<MemberId>,
}

/// What one member told when it was asked.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub report: Report,
    pub topology: Option<Topology>,
    pub leader: Option<MemberId>,
}

impl Told {
    /// `None`: it said something else.
    pub(crate) fn of(answer: Answer) -> Option<Self> {
        let Answer::Report { report, topology, leader } = answer else { return None };
        Some(Self { report: *report, topology: topology.map(|t| *t), leader })
    }
}

impl Observed {
    /// Takes in what a member told: its report, and its topology when that is the newest. `past` has
    /// to be there before: a volume of an earlier cluster must not pass for this one's.
    pub fn hear(&mut self, seat: Seat, told: Told) {
        let Told { report, topology, leader } = told;
        let member = self.members.entry(seat).or_default();
        member.report = Some(report);
        member.belongs = topology.as_ref().map(|t| Belongs {
            cluster: t.cluster.clone(),
            incarnation: t.incarnation,
            epoch: t.epoch,
            leader,
        });
        if let Some(told) = topology {
            let past = self.past.as_ref().and_then(|p| p.cluster_id.as_ref());
            let age = |t: &Topology| (past == Some(&t.cluster), t.incarnation, t.epoch);
            if self.topology.as_ref().is_none_or(|known| age(known) < age(&told)) {
                self.topology = Some(told);
            }
        }
    }
}
