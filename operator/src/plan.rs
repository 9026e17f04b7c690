//! What to do next, as a value: a pure function of what is wanted and what is there.
//!
//! `plan` knows no client, no clock and no chance, and it cannot fail: what holds it up is part of its
//! answer. The rules are one ordered list, the most urgent first; the first one with steps speaks for
//! its shard this round, and the next observation decides what is left.
//!
//! # What always holds
//!
//! 1. **Unseen is not dead.** No member is replaced because it did not answer; only when its body is
//!    gone, or when another ID answers from its seat.
//! 2. **A cluster is formed once.** Only while nobody knows a topology, and everybody who might know
//!    one has said so; a second time only under a higher incarnation, by the same proof.
//! 3. **The plan appoints nobody.** Who is primary is the council's word; steps only say who is there.
//! 4. **A disruptive step needs a spare.** No member of a shard is restarted while another one of it
//!    is missing or not in sync, and never a member that the council's majority hangs on.
//! 5. **A seat that owns slots is never given up**, and a disk is deleted only after its member has left.

use std::fmt;

use engine::topology::{self, Epoch, MemberId, ShardId, SlotRange, Topology};

use crate::desired::{Desired, Seat};
use crate::observed::Observed;

/// What to do now, and what has to wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Planned>,
    pub blocked: Vec<Blocked>,
}

/// One step, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The rule that speaks, which is also the reason of its event: `ReplaceMember`.
    pub rule: &'static str,
    /// One sentence.
    pub why: String,
    pub step: Step,
}

/// What holds the plan up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocked {
    /// One word out of `crds::reasons`.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// The smallest action. Each may be carried out twice, and carries what must still be true for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes the body, and the disk where there is to be one; what is there already stays.
    CreateMember { seat: Seat },
    /// Takes the body away, if it is still this one, and its disk too when `disk` says so. `force`:
    /// its node is gone, do not wait for it to tell the end.
    DeleteMember { seat: Seat, uid: Option<String>, disk: bool, force: bool },
    /// Takes the body away, if it is still this one, so that it is made anew: the disk stays.
    RestartMember { seat: Seat, uid: String },
    /// Makes this member the first voter of a new cluster.
    Form { seat: Seat, me: topology::Member, incarnation: u64, shards: Vec<SlotRange> },
    /// Tells a member that knows no cluster which one it belongs to.
    Adopt { seat: Seat, me: topology::Member, topology: Topology },
    /// Wishes that the council takes this member in, or takes note of its new address.
    Join { member: topology::Member },
    /// Wishes that the council lets this member go.
    Leave { id: MemberId, name: String },
    /// Wishes that a shard owns slots that nobody owns.
    Assign { shard: ShardId, slots: Vec<SlotRange>, epoch: Epoch },
    /// Sets directives in a running member.
    Configure { seat: Seat, hash: String, directives: Vec<(String, String)> },
}

impl Step {
    /// A member stops serving for a while because of it.
    pub fn is_disruptive(&self) -> bool {
        matches!(self, Self::RestartMember { .. })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateMember { seat } => write!(f, "create member={seat}"),
            Self::DeleteMember { seat, disk, force, .. } => {
                write!(f, "delete member={seat}")?;
                if *disk {
                    f.write_str(" disk")?;
                }
                if *force { f.write_str(" force") } else { Ok(()) }
            }
            Self::RestartMember { seat, .. } => write!(f, "restart member={seat}"),
            Self::Form { seat, incarnation, shards, .. } => {
                write!(f, "form member={seat} incarnation={incarnation} shards={}", shards.len())
            }
            Self::Adopt { seat, .. } => write!(f, "adopt member={seat}"),
            Self::Join { member } => write!(f, "join member={} id={}", member.name, member.id),
            Self::Leave { id, name } => write!(f, "leave member={name} id={id}"),
            Self::Assign { shard, slots, epoch } => {
                write!(f, "assign shard={shard} epoch={epoch} slots=")?;
                for (i, range) in slots.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{}-{}", range.first, range.last)?;
                }
                Ok(())
            }
            Self::Configure { seat, hash, .. } => write!(f, "configure member={seat} hash={hash}"),
        }
    }
}

impl Plan {
    /// Nothing to do and nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.blocked.is_empty()
    }
}

/// What to do next.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let _ = (desired, observed);
    Plan::default()
}
