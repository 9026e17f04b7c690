//! How often what happened: a world in which nothing goes wrong would prove nothing.

use std::collections::BTreeMap;
use std::fmt;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    MessageLost,
    MessageLate,
    MessageReordered,
    MessageDoubled,
    MessageCutOff,
    ConnectionRefused,
    Cut,
    CutOneWay,
    ReplicationCut,
    Crash,
    CrashOfLeader,
    PowerFailure,
    BatchesLostUnsynced,
    WritesLostUnsynced,
    SlowSync,
    FailingDisk,
    LostDisk,
    Pause,
    ClockFast,
    ClockSlow,
    SlotsWished,
    MoveWished,
    LeaveWished,
    Moved,
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
}

const ALL: &[(What, &str)] = &[
    (What::MessageLost, "messages lost"),
    (What::MessageLate, "late by more than 50 ms"),
    (What::MessageReordered, "overtaken"),
    (What::MessageDoubled, "doubled"),
    (What::MessageCutOff, "cut off"),
    (What::ConnectionRefused, "connections refused"),
    (What::Cut, "cuts in both directions"),
    (What::CutOneWay, "in one"),
    (What::ReplicationCut, "of replication only"),
    (What::Crash, "crashes"),
    (What::CrashOfLeader, "of the council's leader"),
    (What::PowerFailure, "power failures"),
    (What::BatchesLostUnsynced, "batches lost unsynced"),
    (What::WritesLostUnsynced, "writes lost unsynced"),
    (What::SlowSync, "syncs slower than 200 ms"),
    (What::FailingDisk, "failing disks"),
    (What::LostDisk, "lost disks"),
    (What::Pause, "stopped processes"),
    (What::ClockFast, "clocks fast by 0.5 % or more"),
    (What::ClockSlow, "clocks slow by 0.5 % or more"),
    (What::SlotsWished, "wishes for slots"),
    (What::MoveWished, "moves wished for"),
    (What::LeaveWished, "members wished away"),
    (What::Moved, "moves"),
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
