//! How often what happened: a world in which nothing goes wrong would prove nothing.

use std::collections::BTreeMap;
use std::fmt;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Set,
    Get,
    Unknown,
    Redirected,
    Refused,
    RequestHeld,
    MessageLost,
    MessageDoubled,
    MessageCutOff,
    ConnectionRefused,
    Cut,
    ReplicationCut,
    Stranded,
    Crash,
    CrashOfPrimary,
    CrashOfLeader,
    PowerFailure,
    WritesLostUnsynced,
    SlowDisk,
    FailingDisk,
    Pause,
    BodyDeleted,
    BodyDeletedByForce,
    DiskLost,
    BodyMade,
    Joined,
    Left,
    Restarted,
    Configured,
    OperatorCrashed,
    StepLost,
    Unseen,
    OldLook,
    Edited,
    HandoverWished,
    Handover,
    Failover,
    PrimaryFromNobody,
    LeaderElected,
    SeatMoved,
    LeftInSync,
    JoinedInSync,
    AwaitedWished,
    ElectorsChanged,
    MoveBegun,
    MoveBrokeOff,
    MoveRefused,
    Moved,
    MoveCancelled,
    KeysMoved,
    FaultAtReady,
    FaultAtCopy,
    FaultAtTail,
    FaultAtHold,
    FaultAtCouncil,
    FaultAtEnd,
}

const ALL: &[(What, &str)] = &[
    (What::Set, "writes acknowledged"),
    (What::Get, "reads answered"),
    (What::Unknown, "requests without an answer"),
    (What::Redirected, "redirected"),
    (What::Refused, "refused"),
    (What::RequestHeld, "requests held"),
    (What::MessageLost, "messages lost"),
    (What::MessageDoubled, "doubled"),
    (What::MessageCutOff, "cut off"),
    (What::ConnectionRefused, "connections refused"),
    (What::Cut, "cuts"),
    (What::ReplicationCut, "of replication only"),
    (What::Stranded, "primaries that die with writes that reached nobody"),
    (What::Crash, "crashes"),
    (What::CrashOfPrimary, "of primaries"),
    (What::CrashOfLeader, "of the council's leader"),
    (What::PowerFailure, "power failures"),
    (What::WritesLostUnsynced, "writes lost unsynced"),
    (What::SlowDisk, "slow disks"),
    (What::FailingDisk, "failing disks"),
    (What::Pause, "stopped processes"),
    (What::BodyDeleted, "bodies deleted"),
    (What::BodyDeletedByForce, "by force"),
    (What::DiskLost, "disks lost"),
    (What::BodyMade, "bodies made"),
    (What::Joined, "members joined"),
    (What::Left, "left"),
    (What::Restarted, "made anew"),
    (What::Configured, "configured"),
    (What::OperatorCrashed, "crashes of the operator"),
    (What::StepLost, "steps or answers lost"),
    (What::Unseen, "members unseen"),
    (What::OldLook, "plans of an old look"),
    (What::Edited, "changes of the manifest"),
    (What::HandoverWished, "handovers wished for"),
    (What::Handover, "handovers"),
    (What::Failover, "failovers"),
    (What::PrimaryFromNobody, "primaries where there was none"),
    (What::LeaderElected, "leaders elected"),
    (What::SeatMoved, "changes of the voters"),
    (What::LeftInSync, "left the in-sync set"),
    (What::JoinedInSync, "joined it"),
    (What::AwaitedWished, "primaries' proposals of who is waited for"),
    (What::ElectorsChanged, "changes of the electors"),
    (What::MoveBegun, "moves begun at their source"),
    (What::MoveBrokeOff, "broken off"),
    (What::MoveRefused, "refused by the council"),
    (What::Moved, "moves done"),
    (What::MoveCancelled, "cancelled"),
    (What::KeysMoved, "keys moved"),
    (What::FaultAtReady, "faults in a move that has begun"),
    (What::FaultAtCopy, "while it copies"),
    (What::FaultAtTail, "while the journal follows"),
    (What::FaultAtHold, "while the slots are held"),
    (What::FaultAtCouncil, "while the council decides"),
    (What::FaultAtEnd, "while the target is told"),
];

/// Counts by kind.
#[derive(Clone, Default)]
pub(crate) struct Tally(BTreeMap<What, u64>);

impl Tally {
    pub(crate) fn count(&mut self, what: What, by: u64) {
        if by > 0 {
            *self.0.entry(what).or_default() += by;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| self.count(*what, *count));
    }

    /// What has never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        ALL.iter().filter(|(what, _)| !self.0.contains_key(what)).map(|(_, name)| *name).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (what, name)) in ALL.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {name}", self.0.get(what).copied().unwrap_or(0))?;
        }
        Ok(())
    }
}
