//! What the first member shows while it is tried: the requests that it refuses, and how far behind its primary it is.
//!
//! Refused requests are looked at in every round of the pause, since clients feel them. How far a replica is behind is looked
//! at when the pause is over: until then it may catch up. Both are as of the last reports, which are not of one moment: a
//! replica's may be older than its primary's by a round, so that its bound is to be well above what is written in that time.

use crds::RolloutStatus;

use super::Scope;
use super::view::View;
use crate::desired::Seat;

/// So many requests are refused at least before their share counts: one of three says nothing.
const FAULTS_MIN: i64 = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is known against it.
    Good,
    /// What is to be known is not.
    Unclear,
    /// It is not to go further, and why.
    Bad(String),
}

/// Requests of clients that the member has served, and those of them that it refused for a reason of its own.
pub(super) fn traffic(view: &View<'_>, seat: Seat) -> (i64, i64) {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    view.report(seat).map_or((0, 0), |r| (number(r.requests), number(r.faults)))
}

/// What is to be said of the member that is tried. `is_over`: the pause is.
pub(super) fn judge(view: &View<'_>, state: &RolloutStatus, seat: Seat, is_over: bool) -> Verdict {
    match refuses_too_much(view, state, seat) {
        Some(why) => Verdict::Bad(why),
        None if is_over => lag(view, seat),
        None => Verdict::Good,
    }
}

fn refuses_too_much(view: &View<'_>, state: &RolloutStatus, seat: Seat) -> Option<String> {
    let most = view.desired.rollout.max_error_rate?;
    state.ready_since.as_ref()?;
    let (mut requests, mut faults) = traffic(view, seat);
    // Fewer than there were: it was started again, or its counters were set to zero.
    if requests >= state.requests_before && faults >= state.faults_before {
        (requests, faults) = (requests - state.requests_before, faults - state.faults_before);
    }
    let is_more = i128::from(faults) * 10_000 > i128::from(requests) * i128::from(most);
    (faults >= FAULTS_MIN && is_more).then(|| {
        format!(
            "refused {faults} of {requests} requests since it was in sync, more than {}%",
            f64::from(most) / 100.0
        )
    })
}

fn lag(view: &View<'_>, seat: Seat) -> Verdict {
    let (Some(most), Some(shard)) = (view.desired.rollout.max_lag, seat.shard()) else {
        return Verdict::Good;
    };
    if view.is_primary(seat) {
        return Verdict::Good;
    }
    let lineage = |seat: Seat| view.report(seat)?.lineage.as_ref();
    let primary = view.wanted(Scope::Shard(shard)).into_iter().find(|s| view.is_primary(*s));
    let (Some(ours), Some(theirs)) = (lineage(seat), primary.and_then(lineage)) else {
        return Verdict::Unclear;
    };
    // Offsets of one history only can be compared.
    if ours.replid != theirs.replid {
        return Verdict::Unclear;
    }
    let behind = theirs.offset.saturating_sub(ours.offset);
    if behind <= most {
        return Verdict::Good;
    }
    Verdict::Bad(format!("is {behind} bytes behind its primary, more than {most}"))
}
