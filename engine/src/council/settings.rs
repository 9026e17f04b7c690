//! The council's times, all derived from one setting.

/// Milliseconds on a member's own monotonic clock, unless the name says otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The one setting: after about this long without a sign of life a primary is replaced.
    pub failure_timeout_ms: u64,
    /// A member reports to the voters, and a primary renews its lease, once per beat.
    pub beat_ms: u64,
    /// A lease lasts this long from when its renewal was *sent*, on the primary's clock.
    pub lease_ms: u64,
    /// The leader waits this long, on its own clock, for a lease to be over.
    pub lease_wait_ms: u64,
    /// No beat for this long makes a member a suspect.
    pub suspect_ms: u64,
    /// After a loss of power: how long members of a shard are waited for that have better data.
    pub grace_ms: u64,
    /// A voter that is silent for this long gives up its seat.
    pub voter_silence_ms: u64,
    /// A replica that lags or is silent for this long is no longer in sync.
    pub sync_lag_ms: u64,
    /// The same, where writes wait for every replica in sync (`minInSync`).
    pub kept_lag_ms: u64,
    /// A handover that has not come about by then is called off.
    pub handover_ms: u64,
    pub tick_ms: u64,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
}

/// Clocks run at a rate that differs from true time by at most this much: a hundred times worse
/// than what crystals do, so that a virtual machine's clock has room to be corrected.
pub const DRIFT_PERCENT: u64 = 1;

impl Settings {
    /// All times for a failure timeout of `ms` milliseconds; below 100 it is taken as 100.
    pub fn new(ms: u64) -> Self {
        let ms = ms.clamp(100, 3_600_000);
        let lease_ms = ms * 7 / 10;
        Self {
            failure_timeout_ms: ms,
            beat_ms: ms / 10,
            lease_ms,
            // (1 + drift) / (1 - drift) is less than 1 + 3 * drift; clocks are read in whole units.
            lease_wait_ms: lease_ms + (lease_ms * 3 * DRIFT_PERCENT).div_ceil(100) + 5,
            suspect_ms: ms / 2,
            grace_ms: ms * 10,
            voter_silence_ms: ms * 30,
            sync_lag_ms: ms * 2,
            kept_lag_ms: ms,
            handover_ms: ms,
            tick_ms: ms / 40,
            election_ticks: 12,
            heartbeat_ticks: 3,
        }
    }
}
