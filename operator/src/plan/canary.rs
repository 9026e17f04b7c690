//! How a change that takes restarts gets on: the member that gets it first, the time that it is given, and what stops it.
//!
//! It is a function of the account before and of what is seen, and stands in the account again: an operator
//! that is started anew goes on where the last one was. The first member is named there a round before it is
//! made anew, so that no second one can be taken for it. see: `the_first_is_named_before_it_is_restarted`

use crds::RolloutStatus;

use super::trial::{self, Verdict};
use super::view::View;
use crate::desired::Seat;
use crate::status::Status;
use crate::when;

/// So often members that were made anew may be started again before the change is stopped.
const RESTARTS_MAX: i64 = 3;

/// What is said of a member whose report, or whose primary's, is missing.
const UNCLEAR: &str = "does not tell how far it is behind its primary";

/// The order in which members are made anew: one that is down is the first, for it has nothing to lose and blocks the
/// others; then replicas, then primaries.
pub(super) fn rank(view: &View<'_>, seat: Seat) -> (bool, bool, Seat) {
    (!view.is_down(seat), view.is_primary(seat), seat)
}

pub(super) fn is_outdated(view: &View<'_>, seat: Seat) -> bool {
    view.body(seat).is_some_and(|b| b.outdated)
}

/// How far the change is; `None`: no member is made from an older template.
pub(super) fn progress(view: &View<'_>) -> Option<RolloutStatus> {
    let past = view.observed.past.as_deref().and_then(|p| Some((p.rollout.as_ref()?, p)));
    let Some(now) = when::seconds(&view.observed.now).filter(|_| view.topology().is_some()) else {
        // Nothing is forgotten while nobody is seen.
        return past.map(|(rollout, _)| rollout.clone());
    };
    let first =
        view.all_wanted().filter(|s| is_outdated(view, *s)).min_by_key(|s| rank(view, *s))?;
    // After a stop, any change of the manifest is the word to begin anew.
    let goes_on = |(rollout, status): &(&RolloutStatus, &Status)| {
        let same = status.observed_generation == view.desired.generation;
        rollout.template == view.observed.template && (same || rollout.stopped.is_none())
    };
    let mut state = match past.filter(goes_on) {
        Some((rollout, _)) => rollout.clone(),
        None => RolloutStatus {
            template: view.observed.template.clone(),
            restarts_before: restarts(view).0,
            ..RolloutStatus::default()
        },
    };
    if state.stopped.is_some() {
        return Some(state);
    }
    let moment = || Some(view.observed.now.clone());
    let pause = view.desired.rollout.canary_pause;
    let of_name = |name: &String| Seat::parse(&view.desired.name, name);
    let canary = state.canary.as_ref().and_then(of_name);
    let canary = canary
        .filter(|s| view.all_wanted().any(|w| w == *s) && (*s == first || !is_outdated(view, *s)));
    let canary = canary.unwrap_or(first);
    state.canary = (pause > 0).then(|| view.name(canary));
    let made = view.body(canary).is_some_and(|b| !b.outdated);
    state.since = if made { state.since.or_else(moment) } else { None };
    let ready = made && view.is_in_sync(canary);
    if !ready {
        (state.ready_since, state.requests_before, state.faults_before) = (None, 0, 0);
    } else if state.ready_since.is_none() {
        // What it refused until now was to be expected: it was loading.
        state.ready_since = moment();
        (state.requests_before, state.faults_before) = trial::traffic(view, canary);
    }
    let is_over = has_passed(now, &state.ready_since, pause);
    let verdict = trial::judge(view, &state, canary, is_over);
    state.passed = pause == 0 || state.passed || is_over && verdict == Verdict::Good;
    let late = first_late(view);
    state.waiting_since = if late.is_some() { state.waiting_since.or_else(moment) } else { None };
    state.stopped = why_stopped(view, &state, now, (canary, verdict), late);
    Some(state)
}

/// The time is over that began then; all in seconds.
fn has_passed(now: i64, since: &Option<String>, seconds: i64) -> bool {
    since.as_deref().and_then(when::seconds).is_some_and(|since| now - since >= seconds)
}

fn why_stopped(
    view: &View<'_>,
    state: &RolloutStatus,
    now: i64,
    (canary, verdict): (Seat, Verdict),
    late: Option<Seat>,
) -> Option<String> {
    let (pause, within) = (view.desired.rollout.canary_pause, view.desired.rollout.ready_within);
    let (again, worst) = restarts(view);
    match (late, worst) {
        (_, Some(worst)) if again - state.restarts_before >= RESTARTS_MAX => Some(format!(
            "{} was made anew and does not stay up: started again {} times",
            view.name(worst),
            view.body(worst).map_or(0, |b| b.restarts)
        )),
        (Some(late), _) if has_passed(now, &state.waiting_since, within) => Some(format!(
            "{} was made anew and has not been in sync within {within} s",
            view.name(late)
        )),
        _ if state.passed => None,
        _ => {
            let is_late = has_passed(now, &state.since, pause + within);
            let why = match verdict {
                Verdict::Bad(why) => Some(why),
                Verdict::Unclear if is_late => Some(UNCLEAR.into()),
                Verdict::Good if is_late => Some(format!("does not stay in sync for {pause} s")),
                Verdict::Unclear | Verdict::Good => None,
            };
            why.map(|why| format!("{} was made anew and {why}", view.name(canary)))
        }
    }
}

/// A member that was made anew, or is about to be, and is not in sync.
pub(super) fn first_late(view: &View<'_>) -> Option<Seat> {
    view.all_wanted().find(|s| !is_outdated(view, *s) && !view.is_in_sync(*s))
}

/// How often the members that are not outdated were started again, and which of them most often.
fn restarts(view: &View<'_>) -> (i64, Option<Seat>) {
    let of =
        |seat: Seat| view.body(seat).filter(|b| !b.outdated).map_or(0, |b| i64::from(b.restarts));
    let worst = view.all_wanted().filter(|s| of(*s) > 0).max_by_key(|s| of(*s));
    (view.all_wanted().map(of).sum(), worst)
}

/// Whether this member may be made anew now; else the sentence why not yet.
pub(super) fn may_go(view: &View<'_>, state: &RolloutStatus, seat: Seat) -> Result<(), String> {
    let Some(canary) = state.canary.as_ref().filter(|_| !state.passed) else { return Ok(()) };
    let pause = view.desired.rollout.canary_pause;
    if *canary == view.name(seat) {
        let past = view.observed.past.as_ref().and_then(|p| p.rollout.as_ref());
        let named =
            past.is_some_and(|p| p.canary.as_ref() == Some(canary) && p.template == state.template);
        return if named { Ok(()) } else { Err(format!("{canary} is the first to be made anew")) };
    }
    let now = when::seconds(&view.observed.now).unwrap_or_default();
    match state.ready_since.as_deref().and_then(when::seconds) {
        Some(since) if now - since >= pause => Err(format!("{canary} was made anew and {UNCLEAR}")),
        Some(since) => {
            let until = when::text(since + pause);
            Err(format!("{canary} was made anew, and the others follow from {until} on"))
        }
        None => Err(format!("{canary} is made anew first, and is to be in sync for {pause} s")),
    }
}
