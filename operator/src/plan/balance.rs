//! Handing primaries back to where they are spread best, one at a time, when the manifest says.

use crds::reasons::reason;
use engine::topology::ShardId;

use super::spread::{Choice, Place, handovers};
use super::view::View;
use super::{Draft, Scope, Step};
use crate::desired::Seat;
use crate::observed::Phase;
use crate::when::{self, Window};

/// For so long the cluster has to be whole before a primary is handed back by itself, seconds: who comes and
/// goes does not take its primaries along each time.
const QUIET: i64 = 30;

/// How primaries are spread, for the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Over nodes and zones as well as can be; `None`: not looked at, for something else is under way.
    pub spread: Option<bool>,
    /// One word out of `crds::reasons`.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// Hands one primary over, when the cluster is whole and nothing else is under way (`idle`).
pub(super) fn spread_primaries(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    let (Scope::Primaries { idle }, Some(topology)) = (scope, view.topology()) else { return };
    let (shards, choices): (Vec<_>, Vec<_>) =
        view.shards().filter_map(|s| Some((s, choice(view, s)?))).unzip();
    if choices.is_empty() {
        // No node is known, as on one machine.
        return;
    }
    let whole = view.all_wanted().all(|s| view.is_in_sync(s) && is_here_to_stay(view, s));
    if !idle || !whole || !topology.moves.is_empty() {
        let message =
            "looked at when every member is in its role and in sync, and nothing else is under way";
        draft.primaries =
            Some(Outlook { spread: None, reason: reason::CHANGING, message: message.into() });
        return;
    }
    let wanted = handovers(&choices);
    let Some((first, place)) = wanted.first() else {
        let message = "primaries are spread over nodes and zones as well as can be";
        let (spread, reason) = (Some(true), reason::PRIMARIES_SPREAD);
        draft.primaries = Some(Outlook { spread, reason, message: message.into() });
        return;
    };
    let shard = shards[*first];
    let to = heir(view, shard, place);
    let text = match wanted.len() {
        1 => format!(
            "a primary is not where it is to be: that of shard {shard} goes to node {}",
            place.node
        ),
        n => format!("{n} primaries are not where they are to be"),
    };
    let (reason, message) = match (may(view), to) {
        (Ok(()), Some(seat)) => {
            hand_over(view, shard, seat, place, draft);
            (reason::HANDING_OVER, format!("{text}; one is handed over"))
        }
        (Ok(()), None) => (reason::CHANGING, text),
        (Err((reason, when)), _) => (reason, format!("{text}; {when}")),
    };
    draft.primaries = Some(Outlook { spread: Some(false), reason, message });
}

fn hand_over(view: &View<'_>, shard: ShardId, seat: Seat, place: &Place, draft: &mut Draft) {
    let state = view.topology().and_then(|t| t.shards.get(&shard));
    let (Some(state), Some(member)) = (state, view.current(seat)) else { return };
    let why =
        format!("primaries are spread better with that of shard {shard} on node {}", place.node);
    let (to, name, epoch) = (member.id.clone(), member.name.clone(), state.epoch);
    draft.step(why, Step::HandOver { shard, to, name, epoch });
}

/// Where the shard's primary is and may be; `None`: that is not known, or it serves nothing.
fn choice(view: &View<'_>, shard: ShardId) -> Option<Choice> {
    if view.goes(shard) || !view.owns_slots(shard) {
        return None;
    }
    let now = place(view, view.acting_primary(shard)?)?;
    let others = heirs(view, shard).filter_map(|seat| place(view, seat)).collect();
    Some(Choice { now, others })
}

/// The replicas that a primary may be handed to.
fn heirs(view: &View<'_>, shard: ShardId) -> impl Iterator<Item = Seat> {
    let seats = view.wanted(Scope::Shard(shard)).into_iter();
    seats.filter(|s| {
        let draining = view.body(*s).is_none_or(|b| b.draining);
        !view.is_primary(*s) && view.is_in_sync(*s) && !draining
    })
}

fn heir(view: &View<'_>, shard: ShardId, to: &Place) -> Option<Seat> {
    heirs(view, shard).find(|s| place(view, *s).as_ref() == Some(to))
}

fn place(view: &View<'_>, seat: Seat) -> Option<Place> {
    let body = view.body(seat)?;
    Some(Place { node: body.node.clone()?, zone: body.zone.clone().unwrap_or_default() })
}

fn is_here_to_stay(view: &View<'_>, seat: Seat) -> bool {
    let leaving = view.report(seat).is_some_and(|r| r.leaving);
    view.body(seat).is_some_and(|b| b.phase == Phase::Running && !b.outdated) && !leaving
}

/// Whether a primary may be handed over now; else the reason, and when it will be.
fn may(view: &View<'_>) -> Result<(), (&'static str, String)> {
    let balance = &view.desired.balance;
    if view.desired.paused {
        return Err((reason::PAUSED, "spec.pause is set".into()));
    }
    if balance.request.is_some() && balance.request.as_deref() != done(view) {
        return Ok(());
    }
    if !balance.automatic {
        let how = "they are handed over when spec.balance.request gets another value";
        return Err((reason::ON_REQUEST, how.into()));
    }
    let Some(now) = when::seconds(&view.observed.now) else {
        return Err((reason::CHANGING, "the time is not known".into()));
    };
    if let Some(window) = balance.window.filter(|w: &Window| !w.is_open(now)) {
        let next = when::text(window.next(now));
        return Err((reason::OUT_OF_WINDOW, format!("they are handed over from {next} on")));
    }
    match view.whole_since() {
        Some(since) if now - since >= QUIET => Ok(()),
        _ => Err((
            reason::QUIETING,
            format!("they are handed over when the cluster has been whole for {QUIET} s"),
        )),
    }
}

/// The last request that was met.
pub(crate) fn done<'a>(view: &View<'a>) -> Option<&'a str> {
    view.observed.past.as_ref()?.balance.as_ref()?.request.as_deref()
}
