//! What council members say to each other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hex;
use crate::topology::{Change, Epoch, MemberId, Report, ShardId, Topology};

/// A message with the cluster that it belongs to; one of another cluster is dropped unread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub cluster: String,
    pub incarnation: u64,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Among voters: one message of the Raft library, as protobuf.
    Raft(#[serde(with = "hex")] Vec<u8>),
    /// From each member to each voter, every beat.
    Beat(Box<Beat>),
    /// The leader's answer to a beat.
    Heard(Heard),
    /// The leader's answer to a renewal, after a majority has confirmed that it leads.
    Granted(Renewal),
    /// The topology, for who knows only an older one.
    Topology(Arc<Topology>),
    /// A wish on its way to the leader, and the answer.
    Propose {
        token: u64,
        change: Box<Change>,
        expected: Option<Epoch>,
    },
    Outcome {
        token: u64,
        outcome: Result<Epoch, String>,
    },
    /// The leader asks a primary to stop executing now: a handover is wanted.
    Release {
        shard: ShardId,
        epoch: Epoch,
    },
    /// The handover was called off: the primary may ask for its lease again.
    Resume {
        shard: ShardId,
        epoch: Epoch,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub report: Report,
    /// Epoch of the newest topology that the sender knows.
    pub epoch: Epoch,
    /// Set by a primary that wants its lease prolonged.
    pub renew: Option<Renewal>,
    /// Shard epoch under which the sender executes nothing more; the report's lineage is final.
    pub released: Option<Epoch>,
    /// The newest `Heard` that the sender has seen: the report is younger than that.
    pub echo: Option<Stamp>,
}

/// A primary's wish to keep its lease. The sender alone knows when it sent number `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    pub shard: ShardId,
    pub epoch: Epoch,
    pub boot: String,
    pub seq: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    pub leader: MemberId,
    pub stamp: Stamp,
    pub epoch: Epoch,
    /// Answer with a beat at once.
    pub poll: bool,
    /// In a cluster without an operator: who is not heard, for those who are asked who is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<MemberId>,
}

/// A moment on the clock of the leader of that term; means nothing to anybody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    pub term: u64,
    pub at_ms: u64,
}
