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
//! 5. **A seat that owns slots is never given up**, and a disk is deleted only after its member has left,
//!    or when it is out of reach for good and somebody else has its data.
//! 6. **A shard goes when it is empty.** Its slots move to those that stay first, never to one that is to
//!    go; then its replicas leave, and its primary last.

mod balance;
mod canary;
mod form;
mod members;
mod recover;
mod rollout;
mod shards;
mod slots;
mod spread;
mod trial;
mod view;

use std::fmt;

use crds::reasons::reason;
use engine::topology::{self, Epoch, MemberId, ShardId, SlotRange, Topology};

use crate::desired::{Desired, Seat};
use crate::observed::{Observed, Sight};
pub use balance::Outlook;
pub(crate) use balance::done as request_done;
pub use slots::SLOTS_PER_MOVE;
pub(crate) use view::View;

/// What to do now, and what has to wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Planned>,
    pub blocked: Vec<Blocked>,
    /// How primaries are spread; `None`: no node is known. It holds nothing up.
    pub primaries: Option<Outlook>,
}

/// One step, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The rule that speaks, which is also the reason of its event: `ReplaceMember`.
    pub rule: &'static str,
    /// One sentence.
    pub why: String,
    /// The shard that it is about; `None`: the witnesses, or slots that move between two.
    pub shard: Option<ShardId>,
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
    /// Takes the body away, if it is still as it was seen, and its disk too when `disk` says so. `force`:
    /// its node is gone, do not wait for it to tell the end.
    DeleteMember { seat: Seat, seen: Sight, disk: bool, force: bool },
    /// Takes the body away, if it is still this one, so that it is made anew: the disk stays.
    RestartMember { seat: Seat, uid: String },
    /// Makes this member the first voter of a new cluster.
    Form { seat: Seat, me: topology::Member, incarnation: u64, shards: Vec<SlotRange> },
    /// Makes this member the first voter of the cluster's next incarnation, with those who are left.
    Recover { seat: Seat, topology: Box<Topology> },
    /// Tells a member which cluster it belongs to, when it knows none, or only a former incarnation.
    Adopt { seat: Seat, me: topology::Member, topology: Topology },
    /// Wishes that the council takes this member in, or takes note of its new address.
    /// It was planned by the topology of epoch `seen`.
    Join { member: topology::Member, seen: Epoch },
    /// Wishes that nobody of that name is let in by a look from before, so that its disk can be deleted.
    Bar { name: String },
    /// Wishes that the council lets this member go.
    Leave { id: MemberId, name: String },
    /// Wishes that a shard owns slots that nobody owns.
    Assign { shard: ShardId, slots: Vec<SlotRange>, epoch: Epoch },
    /// Wishes that slots move from one shard to another, with their keys.
    Move { slots: Vec<SlotRange>, from: ShardId, to: ShardId, epoch: Epoch },
    /// Wishes that a move under way is given up: its slots stay where they are.
    CancelMove { id: Epoch },
    /// Wishes that a shard's primary hands over to this member, if it is still the one of that epoch.
    HandOver { shard: ShardId, to: MemberId, name: String, epoch: Epoch },
    /// Sets directives in a running member, and those of `reset` to their defaults.
    Configure { seat: Seat, hash: String, directives: Vec<(String, String)>, reset: Vec<String> },
}

impl Step {
    /// A member stops serving for a while because of it.
    pub fn is_disruptive(&self) -> bool {
        matches!(self, Self::RestartMember { .. })
    }

    /// The topology is another one after it, so that a later wish for this epoch would be refused.
    fn alters_topology(&self) -> bool {
        matches!(
            self,
            Self::Form { .. }
                | Self::Recover { .. }
                | Self::Join { .. }
                | Self::Bar { .. }
                | Self::Leave { .. }
                | Self::Assign { .. }
        )
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
            Self::Recover { seat, topology } => {
                let (incarnation, left) = (topology.incarnation, topology.members.len());
                write!(f, "recover member={seat} incarnation={incarnation} members={left}")
            }
            Self::Adopt { seat, .. } => write!(f, "adopt member={seat}"),
            Self::Join { member, .. } => write!(f, "join member={} id={}", member.name, member.id),
            Self::Bar { name } => write!(f, "bar member={name}"),
            Self::Leave { id, name } => write!(f, "leave member={name} id={id}"),
            Self::Assign { shard, slots, epoch } => {
                write!(f, "assign shard={shard} epoch={epoch} slots={}", text_of(slots))
            }
            Self::Move { slots, from, to, epoch } => {
                write!(f, "move from={from} to={to} epoch={epoch} slots={}", text_of(slots))
            }
            Self::CancelMove { id } => write!(f, "cancel move={id}"),
            Self::HandOver { shard, name, epoch, .. } => {
                write!(f, "hand over shard={shard} epoch={epoch} to={name}")
            }
            Self::Configure { seat, hash, .. } => write!(f, "configure member={seat} hash={hash}"),
        }
    }
}

fn text_of(slots: &[SlotRange]) -> String {
    let ranges = slots.iter().map(|r| format!("{}-{}", r.first, r.last));
    ranges.collect::<Vec<_>>().join(",")
}

impl Plan {
    /// Nothing to do and nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.blocked.is_empty()
    }
}

/// A rule: what it does about one scope, and what holds it up.
pub struct Rule {
    /// A verb phrase, and the reason of the event when it acts.
    pub name: &'static str,
    /// One sentence for the reference.
    pub doc: &'static str,
    act: fn(&View<'_>, Scope, &mut Draft),
}

/// The rule that makes shards more or fewer: the account has a word for what it does.
pub(crate) const RULE_OF_SHARDS: &str = "ScaleShards";

/// The rules by urgency. The first one with something to do speaks for its scope this round.
pub const RULES: &[Rule] = &[
    Rule {
        name: "RecoverCouncil",
        doc: "A council whose majority lost its disks decides nothing any more. What that costs is stated; \
              those who are left go on as the next incarnation when spec.recovery names it.",
        act: recover::recover,
    },
    Rule {
        name: "ReplaceMember",
        doc: "A member whose pod is gone gets a new one; one that lost its disk, and so came back \
              under another ID, takes the place of its former self. A volume on a node that is gone is \
              given up when another member has its data.",
        act: members::replace,
    },
    Rule {
        name: "FormCluster",
        doc: "All members are made at once; the first one forms the cluster when nobody can belong \
              to one already, and the others join it.",
        act: form::form,
    },
    Rule {
        name: "KeepWitness",
        doc: "A member without data votes where there are two with data, and leaves when there are \
              more.",
        act: members::keep_witness,
    },
    Rule {
        name: RULE_OF_SHARDS,
        doc: "Shards that are wanted are made, and slots move to them a few at a time, until each has \
              its share. The slots of shards that are too many move to those that stay, if these have \
              the memory; then their members leave and are deleted, the primary last.",
        act: shards::scale,
    },
    Rule {
        name: "ScaleReplicas",
        doc: "Replicas that are wanted are made and join; those that are too many leave, and are \
              deleted when they have left, the primary never.",
        act: members::scale,
    },
    Rule {
        name: "Reconfigure",
        doc: "Directives that need no restart are set in one member first, and in the others when it \
              took them; one that was taken out goes back to its default.",
        act: rollout::reconfigure,
    },
    Rule {
        name: "RestartMember",
        doc: "Members made from an older template are made anew, one of a shard at a time, the \
              replicas first and the primary last; after the first one not before spec.rollout.canaryPause is \
              over. When one does not come up in time or does not stay up, or when the first one refuses too \
              many requests or is too far behind, that is the end of it until the manifest changes.",
        act: rollout::restart,
    },
    Rule {
        name: "SeatVoters",
        doc: "The council picks its voters itself. Until it has as many as its members allow, the loss of \
              one disk could stop it, and nothing is called settled.",
        act: members::seat_voters,
    },
    Rule {
        name: "SpreadPrimaries",
        doc: "When every member is in its role and nothing else is under way, primaries are handed over, one at \
              a time, until no node and then no zone has more of them than it need have; at the time that \
              spec.balance says.",
        act: balance::spread_primaries,
    },
];

/// What a rule speaks about: one shard, the witnesses, or the slots as they are dealt among all shards; and
/// the primaries as they are spread over nodes, with whether all the others have nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Shard(ShardId),
    Witnesses,
    Slots,
    Primaries { idle: bool },
}

impl Scope {
    fn shard(self) -> Option<ShardId> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Witnesses | Self::Slots | Self::Primaries { .. } => None,
        }
    }
}

/// What the rules have said of one scope so far.
#[derive(Default)]
pub(crate) struct Draft {
    steps: Vec<(String, Step)>,
    blocked: Vec<Blocked>,
    primaries: Option<Outlook>,
}

impl Draft {
    fn step(&mut self, why: impl Into<String>, step: Step) {
        self.steps.push((why.into(), step));
    }

    fn blocked(&mut self, reason: &'static str, message: impl Into<String>) {
        self.blocked.push(Blocked { reason, message: message.into() });
    }
}

/// What to do next.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let view = View::new(desired, observed);
    let mut plan = Plan::default();
    let mut spare = usize::from(desired.shards_at_once).saturating_sub(view.disrupted());
    for scope in view.scopes() {
        let mut draft = Draft::default();
        let scope = match scope {
            Scope::Primaries { .. } => Scope::Primaries { idle: plan.is_settled() },
            other => other,
        };
        for rule in RULES {
            (rule.act)(&view, scope, &mut draft);
            if plan.steps.iter().any(|p| p.step.alters_topology()) {
                // It names an epoch that is over by then; the next round knows the one after.
                draft.steps.retain(|(_, step)| !matches!(step, Step::Move { .. }));
            }
            // Each by itself leaves the council its majority; all of a round have to (seed 367 of the simulation of
            // the whole: shards that are restarted two at a time, each with a voter out of three).
            let restarted = |step: &Step| match step {
                Step::RestartMember { seat, .. } => Some(*seat),
                _ => None,
            };
            let already: Vec<Seat> = plan.steps.iter().filter_map(|p| restarted(&p.step)).collect();
            draft.steps.retain(|(_, step)| {
                let seat = restarted(step).filter(|_| !already.is_empty());
                seat.is_none_or(|seat| rollout::keeps_majority(&view, seat, &already).is_ok())
            });
            // A restart that has begun is no further disruption.
            let has_begun = |step: &Step| restarted(step).is_some_and(|s| view.is_restarting(s));
            let disruptive: Vec<_> = draft
                .steps
                .iter()
                .filter(|(_, step)| step.is_disruptive() && !has_begun(step))
                .collect();
            if disruptive.iter().any(|(_, step)| view.is_disrupted_by(step)) {
                match spare.checked_sub(1) {
                    Some(left) => spare = left,
                    None => draft.steps.clear(),
                }
            } else if !disruptive.is_empty()
                && view.disrupted() > usize::from(desired.shards_at_once)
            {
                draft.steps.clear();
            }
            if !draft.steps.is_empty() {
                let said = draft.steps.drain(..);
                let (rule, shard) = (rule.name, scope.shard());
                plan.steps.extend(said.map(|(why, step)| Planned { rule, why, shard, step }));
                break;
            }
        }
        plan.blocked.append(&mut draft.blocked);
        plan.primaries = draft.primaries.or(plan.primaries);
        if plan.steps.iter().any(|p| matches!(p.step, Step::Recover { .. })) {
            // All else is for the council that begins with it.
            break;
        }
    }
    plan.blocked.extend(
        observed
            .troubles
            .iter()
            .map(|trouble| Blocked { reason: reason::ROUND_FAILED, message: trouble.clone() }),
    );
    if desired.paused {
        plan.steps.clear();
        let message = "spec.pause is set: the operator looks and tells, and changes nothing";
        plan.blocked.push(Blocked { reason: reason::PAUSED, message: message.into() });
    }
    plan.blocked.sort();
    plan.blocked.dedup();
    assert_post_conditions(desired, observed, &plan);
    plan
}

/// What no plan may ever say, whatever the rules became. See the essay above.
fn assert_post_conditions(desired: &Desired, observed: &Observed, plan: &Plan) {
    let forms = plan.steps.iter().filter(|p| matches!(p.step, Step::Form { .. })).count();
    assert!(forms <= usize::from(observed.topology.is_none()), "a cluster is formed once");
    let Some(topology) = &observed.topology else { return };
    for planned in &plan.steps {
        match &planned.step {
            Step::Recover { topology: next, .. } => {
                assert!(
                    next.incarnation == topology.incarnation + 1,
                    "one incarnation after the other"
                );
                assert!(
                    desired.recovery == Some(next.incarnation),
                    "only the user gives a council up"
                );
            }
            Step::Leave { id, .. } => {
                let primary =
                    |s: &topology::Shard| s.primary.as_ref() == Some(id) && !s.slots.is_empty();
                assert!(!topology.shards.values().any(primary), "a primary does not leave");
            }
            Step::DeleteMember { seat, disk: true, .. } => {
                let report = observed.members.get(seat).and_then(|m| m.report.as_ref());
                let known = report.is_some_and(|r| topology.members.contains_key(&r.id));
                assert!(!known, "a disk is deleted only after its member has left");
                let name = seat.name(&desired.name);
                let shard = seat.shard().and_then(|id| Some((id, topology.shards.get(&id)?)));
                if let Some((id, _)) = shard.filter(|(_, s)| !s.slots.is_empty()) {
                    let others = topology.members_of(id).iter().any(|m| m.name != name);
                    assert!(others, "a shard that owns slots keeps a member");
                }
            }
            Step::HandOver { .. } => {
                assert!(
                    plan.steps.len() == 1,
                    "a primary is handed over when nothing else is done"
                );
            }
            Step::Move { slots, from, to, .. } => {
                assert!(from != to, "slots move between two shards");
                assert!(*to < desired.shards, "no slots move to a shard that is to go");
                let count = slots::count(slots);
                assert!((1..=SLOTS_PER_MOVE).contains(&count), "slots move a few at a time");
            }
            _ => {}
        }
    }
}
