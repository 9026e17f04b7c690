//! The vocabulary that users see: condition types, condition reasons and event reasons.
//!
//! A reason of a step is the step's own name (`ReplaceMember`), so that an event, the status and the
//! source say the same word.

/// Condition types.
pub mod condition {
    /// Every shard has a primary that serves, and the observed generation is in force.
    pub const READY: &str = "Ready";
    /// The plan has steps left: something is being made, moved or restarted.
    pub const PROGRESSING: &str = "Progressing";
    /// Something is missing or broken: a shard without a primary, a replica that is gone.
    pub const DEGRADED: &str = "Degraded";
    /// Primaries are spread over nodes and zones as well as can be. Only there where nodes are known.
    pub const BALANCED: &str = "Balanced";
    /// It gets no further until the manifest changes. Only there while it is so: kstatus calls the
    /// object failed by it.
    pub const STALLED: &str = "Stalled";
}

/// Reasons of the condition `Ready`, and of `Progressing` and `Degraded` where they say more.
pub mod reason {
    /// All is as the manifest says.
    pub const SERVING: &str = "Serving";
    /// The cluster is being formed for the first time.
    pub const FORMING: &str = "Forming";
    /// At least one shard has no primary that serves.
    pub const SHARD_DOWN: &str = "ShardDown";
    /// Every shard serves, but a member is missing or not in sync.
    pub const MEMBER_LOST: &str = "MemberLost";
    /// A shard that wants replicas has none in sync.
    pub const NO_REPLICA: &str = "NoReplica";
    /// Members do not answer the operator, or no majority of the council does.
    pub const COUNCIL_SILENT: &str = "CouncilSilent";
    /// A majority of the council lost its disks; only `spec.recovery` lets those go on who are left.
    pub const COUNCIL_LOST: &str = "CouncilLost";
    /// A member refused a directive of `spec.config`; nothing was rolled further.
    pub const CONFIG_REFUSED: &str = "ConfigRefused";
    /// The manifest says what this version cannot do or does not understand; the message names the field.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The Secret that `spec.auth.secretName` names is missing or has no such key.
    pub const SECRET_MISSING: &str = "SecretMissing";
    /// An object that the cluster needs is there already, and is not this CacheCluster's.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The API server refused an object, or was not reached; the message is its own.
    pub const ROUND_FAILED: &str = "RoundFailed";
    /// A member's volume is on a node that is gone, and nobody else has its data.
    pub const VOLUME_LOST: &str = "VolumeLost";
    /// A pod cannot be scheduled, or its image cannot be pulled; the message is Kubernetes' own.
    pub const POD_STUCK: &str = "PodStuck";
    /// `spec.pause` is set: the operator only looks.
    pub const PAUSED: &str = "Paused";
    /// Slots move from shard to shard, with their keys; the message says how many are left.
    pub const MOVING_SLOTS: &str = "MovingSlots";
    /// There are to be more or fewer shards, and members of them are being made or let go.
    pub const SCALING: &str = "Scaling";
    /// There are to be fewer shards, and what all of them hold does not fit into those that stay.
    pub const NO_ROOM: &str = "NoRoom";
    /// Members are being added, replaced, moved or restarted.
    pub const CHANGING: &str = "Changing";
    /// The council has fewer voters than it is to have; the loss of one disk could stop it.
    pub const SEATING_VOTERS: &str = "SeatingVoters";
    /// A member that was made anew does not come up in time, or does not stay up; nothing more is restarted.
    pub const ROLLOUT_STOPPED: &str = "RolloutStopped";
    /// The first member was made anew, and the others wait as long as `spec.rollout.canaryPause` says.
    pub const CANARY_PAUSE: &str = "CanaryPause";
    /// Primaries are spread over nodes and zones as well as can be.
    pub const PRIMARIES_SPREAD: &str = "PrimariesSpread";
    /// A primary is being handed over to where primaries are spread better.
    pub const HANDING_OVER: &str = "HandingOver";
    /// Primaries are to be handed over, and `spec.balance.window` is not open; the message says when it is.
    pub const OUT_OF_WINDOW: &str = "OutOfWindow";
    /// Primaries are to be handed over, and that is done on request only.
    pub const ON_REQUEST: &str = "OnRequest";
    /// Primaries are to be handed over when the cluster has been whole for a while.
    pub const QUIETING: &str = "Quieting";
    /// Nothing is left to do.
    pub const SETTLED: &str = "Settled";
    /// Nothing is missing.
    pub const HEALTHY: &str = "Healthy";
}

/// Reasons of events that are no steps.
pub mod event {
    /// A replica became primary because the old one was gone; the message counts the writes dropped.
    pub const FAILED_OVER: &str = "FailedOver";
    /// The condition `Ready` became true.
    pub const READY: &str = "Ready";
    /// The condition `Ready` became false.
    pub const NOT_READY: &str = "NotReady";
    /// A step was carried out and has no better name.
    pub const STEP: &str = "Step";
    /// A step failed; the next round plans afresh.
    pub const STEP_FAILED: &str = "StepFailed";
    /// A round ended before its end: the API server refused something, or was not reached.
    pub const ROUND_FAILED: &str = super::reason::ROUND_FAILED;
    /// The Secret that `spec.auth.secretName` names says another password than the one in force.
    pub const PASSWORD_KEPT: &str = "PasswordKept";
    /// A pure cache whose members all vanished was formed anew.
    pub const FORMED_ANEW: &str = "FormedAnew";
    /// Survivors of a council that was lost for good went on as another incarnation.
    pub const RECOVERED: &str = "Recovered";
}
