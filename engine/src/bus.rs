//! The bus: the mutually authenticated channel among members, and between operator and members.
//!
//! TCP with TLS 1.3, both sides show a certificate of the cluster's own CA (`transport`: what an unmanaged cluster
//! may have in its place). A frame is a big-endian
//! `u32` length (at most `FRAME_BYTES_MAX`) and that many bytes of JSON, one `Envelope` each.
//! Unknown fields are ignored, so that two adjacent versions understand each other.

pub mod client;
pub mod frame;
pub mod link;
pub mod links;
mod names;
pub mod server;
pub mod tls;
pub mod transport;

use serde::{Deserialize, Serialize};

use crate::topology::{Change, Member, MemberId, Report, SlotRange, Topology};

/// Largest frame on the bus, bytes: a topology of a thousand members is some 300 KB.
pub const FRAME_BYTES_MAX: u32 = 8 << 20;
/// Version of the bus protocol; the first frame of each side tells it.
pub const VERSION: u16 = 1;

/// What the operator (or a test) asks of a member. One `Answer` follows each, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Tell about yourself and what you know of the topology.
    Report,
    /// Form a new cluster with this member as the first voter. Refused when it already belongs to one.
    /// Shards and slots are assigned as given; further members follow by `Join` wishes.
    Form { incarnation: u64, me: Member, shards: Vec<SlotRange> },
    /// A wish put to the council; the member passes it on to the leader when it is not the leader.
    /// `expected_epoch`: refused with the current epoch when the topology has moved on (None: whatever).
    Wish { change: Change, expected_epoch: Option<u64> },
    /// Tell who is who to a member that knows no cluster yet: it joins the council's transport as a learner.
    /// Or to a survivor, with a higher incarnation than its own: it gives up the council that it was in.
    Adopt { topology: Topology, me: Member },
    /// Go on with what is left of a cluster whose council has lost its majority for good: the next incarnation, in which
    /// this member alone votes. Refused unless it is of the same cluster, and higher than what it knows.
    Recover { topology: Topology },
    /// Set directives live, as CONFIG SET does, and those of `reset` to their defaults, as far as they
    /// are known here; answers with the ones refused.
    Configure {
        hash: String,
        directives: Vec<(String, String)>,
        #[serde(default)]
        reset: Vec<String>,
    },
    /// Shut down in good order.
    Shutdown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Report { report: Box<Report>, topology: Option<Box<Topology>>, leader: Option<String> },
    Done { epoch: u64 },
    Refused { reason: String },
}

/// What a member says to one that it meets (CLUSTER MEET).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Meeting {
    /// Tell where you belong.
    Hello,
    /// I am alone, and would be one of yours: with that boot and those slots. `known_as`: the host at which I
    /// have found you.
    Join { member: Member, boot: String, slots: Vec<SlotRange>, known_as: String },
    /// You are alone: meet me there.
    Come { host: String, bus_port: u16 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Met {
    /// Who answers, and the cluster and the number of members that it knows.
    Here { id: MemberId, cluster: String, incarnation: u64, members: usize },
    /// The topology in which the new member stands.
    Joined { topology: Box<Topology> },
    /// It will be tried.
    Coming,
    /// Not now: try again.
    Busy { reason: String },
    /// Never.
    Refused { reason: String },
}
