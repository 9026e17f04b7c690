//! Who is in the cluster: members that are replaced, added, let go, and the witness.

use crds::reasons::reason;
use engine::topology;

use super::view::View;
use super::{Draft, Scope, Step};
use crate::desired::Seat;
use crate::observed::{Member, Phase};

/// A seat of the topology whose body is gone gets a new one; a member that came back under a new ID
/// joins, and its former self leaves; a member that moved is made known at its new address.
pub(super) fn replace(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    let known = || view.wanted(scope).into_iter().filter(|s| !view.known(*s).is_empty());
    // Bodies come first: a wish that is not granted ends the round for its shard, and the council may need the votes of those
    // who are to be made to grant any (seed 347 of the simulation of the whole).
    known().for_each(|seat| revive(view, seat, draft));
    view.surplus(scope).into_iter().for_each(|seat| recall(view, seat, draft));
    for seat in known() {
        admit(view, seat, draft);
        let name = view.name(seat);
        let Some(report) = view.report(seat) else {
            if view.body(seat).is_some() && !view.is_down(seat) {
                draft.blocked(reason::MEMBER_LOST, format!("{name} does not answer"));
            }
            continue;
        };
        if view.current(seat).is_some() && !view.is_in_sync(seat) {
            let why = match &report.disk_error {
                Some(error) => format!("{name} cannot write its disk: {error}"),
                None if report.loading => format!("{name} is loading its data"),
                None if view.is_primary(seat) => format!("{name} is about to serve as primary"),
                None => format!("{name} is not in sync yet"),
            };
            draft.blocked(reason::MEMBER_LOST, why);
        }
        // Its former self: only a member that was seen under another ID proves that it is gone.
        for old in view.known(seat).iter().filter(|m| m.id != report.id) {
            if view.leads(&old.id) {
                let message = format!(
                    "{} came back without its data while it was primary; waiting for the council \
                     to appoint another one",
                    old.name
                );
                draft.blocked(reason::SHARD_DOWN, message);
            } else if view.current(seat).is_some() {
                let why = format!("{} came back under a new ID, having lost its disk", old.name);
                draft.step(why, Step::Leave { id: old.id.clone(), name: old.name.clone() });
            }
        }
    }
}

/// The witnesses that are wanted are made and join. Those that are too many leave when three members
/// with data are there to vote.
pub(super) fn keep_witness(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    if scope != Scope::Witnesses {
        return;
    }
    for seat in view.wanted(scope).into_iter().filter(|s| view.known(*s).is_empty()) {
        revive(view, seat, draft);
        admit(view, seat, draft);
    }
    if view.topology().is_none() {
        return;
    }
    let voting = view.all_wanted().filter(|s| s.shard().is_some() && view.is_in_sync(*s)).count();
    let alone = view.all_wanted().filter(|s| s.shard().is_some()).count() == 1;
    for seat in view.surplus(scope).into_iter().take(1) {
        if alone || voting >= 3 {
            dismiss(view, seat, "a witness is not needed any more", draft);
        } else {
            let message = format!("{} votes until three members with data do", view.name(seat));
            draft.blocked(reason::CHANGING, message);
        }
    }
}

/// Replicas that are wanted and not there yet are made; those that are too many are let go, one of a
/// shard at a time.
pub(super) fn scale(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    let Scope::Shard(shard) = scope else { return };
    if view.topology().is_none() || !view.serves(shard) {
        return;
    }
    make(view, scope, draft);
    // Those who are wanted may not have joined yet: until one has, whoever is there may be needed.
    let has_members = view.wanted(scope).iter().any(|s| !view.known(*s).is_empty());
    if draft.steps.is_empty() && has_members {
        for seat in view.surplus(scope).into_iter().take(1) {
            dismiss(view, seat, "the shard has more members than are wanted", draft);
        }
    }
}

/// Makes the members of a shard that are wanted and that the council does not know.
pub(super) fn make(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    for seat in view.wanted(scope).into_iter().filter(|s| view.known(*s).is_empty()) {
        revive(view, seat, draft);
        if view.body(seat).is_some() && view.report(seat).is_none() && !view.is_down(seat) {
            let message = format!("waiting for the first report of {}", view.name(seat));
            draft.blocked(reason::CHANGING, message);
        }
    }
}

/// Sees to it that the seat has a body that can get on.
pub(super) fn revive(view: &View<'_>, seat: Seat, draft: &mut Draft) {
    let name = view.name(seat);
    let Some(body) = view.body(seat) else {
        let why = format!("{name} is wanted, and there is none");
        draft.step(why, Step::CreateMember { seat });
        return;
    };
    match body.phase {
        Phase::Ended | Phase::Lost => {
            let force = body.phase == Phase::Lost;
            let what = if force { "is on a node that is gone" } else { "has ended" };
            let seen = view.sight(seat);
            let step = Step::DeleteMember { seat, seen, disk: false, force };
            draft.step(format!("{name} {what}"), step);
        }
        Phase::Stopping => draft.blocked(reason::MEMBER_LOST, format!("{name} is being stopped")),
        Phase::Pending if view.member(seat).is_some_and(Member::has_lost_its_disk) => {
            give_up_disk(view, seat, draft);
        }
        Phase::Pending | Phase::Running => {
            if let Some(stuck) = &body.stuck {
                draft.blocked(reason::POD_STUCK, format!("{name}: {stuck}"));
            }
        }
    }
}

/// A disk on a node that is gone is given up, together with the body that waits for it, so that the
/// seat begins anew and empty; but only while somebody else has what was on it. What is there only once
/// is left to whoever can bring the node back. see: `only_copy_on_a_lost_node_is_never_given_up`
fn give_up_disk(view: &View<'_>, seat: Seat, draft: &mut Draft) {
    let name = view.name(seat);
    let replaceable = match seat.shard() {
        Some(shard) => view
            .wanted(Scope::Shard(shard))
            .into_iter()
            .any(|s| s != seat && view.is_primary(s) && view.is_in_sync(s)),
        // A witness holds nothing but a vote; its former self leaves by those of the others.
        None => view.topology().is_some(),
    };
    if replaceable {
        let seen = view.sight(seat);
        let step = Step::DeleteMember { seat, seen, disk: true, force: false };
        draft.step(format!("the volume of {name} is on a node that is gone"), step);
    } else {
        let message = format!(
            "the volume of {name} is on a node that is gone, and nobody else is known to have its \
             data: bring the node back, or delete the volume to go on without"
        );
        draft.blocked(reason::VOLUME_LOST, message);
    }
}

/// Takes a member that was seen into the cluster: it is told which one, and the council is told of
/// it; also when the council knows it at another address.
pub(super) fn admit(view: &View<'_>, seat: Seat, draft: &mut Draft) {
    let (Some(topology), Some(member)) = (view.topology(), view.member(seat)) else { return };
    let Some(report) = &member.report else { return };
    let name = view.name(seat);
    let me = member.entry(&report.id, name.clone(), seat);
    match &member.belongs {
        Some(belongs) if belongs.cluster != topology.cluster => {
            let message = format!(
                "{name} belongs to another cluster ({}, not {}): its volume has to be deleted \
                 before it can join this one",
                belongs.cluster, topology.cluster
            );
            draft.blocked(reason::MEMBER_LOST, message);
            return;
        }
        Some(belongs) if belongs.incarnation < topology.incarnation => {
            let step = Step::Adopt { seat, me: me.clone(), topology: topology.clone() };
            let former = belongs.incarnation;
            draft.step(format!("{name} knows only the former incarnation {former}"), step);
        }
        Some(_) => {}
        None => {
            let step = Step::Adopt { seat, me: me.clone(), topology: topology.clone() };
            draft.step(format!("{name} knows no cluster yet"), step);
        }
    }
    let seen = topology.epoch;
    match topology.members.get(&report.id) {
        None => {
            draft.step(format!("the council does not know {name}"), Step::Join { member: me, seen })
        }
        Some(known) if *known != me => {
            draft.step(format!("{name} is at another address"), Step::Join { member: me, seen });
        }
        Some(_) => {}
    }
}

/// Waits for the council to have the voters that it is to have.
pub(super) fn seat_voters(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    let Some(topology) = view.topology().filter(|_| scope == Scope::Witnesses) else { return };
    let (has, wanted) = (topology.voters.len(), engine::council::seats(topology.members.len()));
    if has < wanted {
        draft.blocked(
            reason::SEATING_VOTERS,
            format!("the council has {has} of its {wanted} voters"),
        );
    }
}

/// Gives a seat its body back that the cluster cannot do without, though its member is not wanted any more: nobody leaves or
/// joins without a majority of the votes (seeds 30 and 124 of the simulation of the whole: the pod of a witness was lost
/// while the replica was to be made that takes its place; the only voter was one too many), and nobody leaves a shard that
/// no primary serves, which may wait for this one (seed 676: a shard had just become smaller, and who was left over had all
/// that was acknowledged; seed 8565: it had lost that for good, with its pod, which only another in its place can tell; seed
/// 1449: so it was with a new shard that had no slots yet, and got none without a primary).
fn recall(view: &View<'_>, seat: Seat, draft: &mut Draft) {
    let has_disk = view.member(seat).is_some_and(|m| m.disk.is_some());
    if view.body(seat).is_some() || view.known(seat).is_empty() {
        return;
    }
    let name = view.name(seat);
    let is_needed = |shard| view.owns_slots(shard) || !view.wanted(Scope::Shard(shard)).is_empty();
    let is_down = |shard| is_needed(shard) && view.acting_primary(shard).is_none();
    if has_disk && view.votes(seat) && !view.council_can_decide() {
        let why = format!("the council needs the vote of {name} to let it go");
        draft.step(why, Step::CreateMember { seat });
    } else if let Some(shard) = seat.shard().filter(|shard| is_down(*shard)) {
        let why = if has_disk {
            format!("no primary serves shard {shard}, and {name} may have what is missing")
        } else {
            format!(
                "no primary serves shard {shard}, which waits for {name}: who takes its place tells that it is gone"
            )
        };
        draft.step(why, Step::CreateMember { seat });
    }
}

/// The council is to have fewer voters once these have left.
fn leaves_fewer_seats(view: &View<'_>, leaving: &[&topology::Member]) -> bool {
    let (Some(topology), false) = (view.topology(), leaving.is_empty()) else { return false };
    let left = topology.members.len().saturating_sub(leaving.len());
    engine::council::seats(left) < topology.voters.len()
}

/// Lets a member go: first out of the council, then the body with its disk.
///
/// The council lets nobody go without a majority of its votes: a vote that lies on a disk without a body is
/// brought back first when they are not enough without it (seed 7923 of the simulation; see `recall`). And a body stays
/// until its vote is another's: members that leave at the same time could else be the majority. Who was not seen, and is in
/// no topology that was, may be in a later one: its disk stays until the leader of the council says that it is not (seed
/// 5562: after power failures the only topology that was told was an old one). Where the council becomes smaller by it, a voter
/// that lost its disk is replaced first (seed 8106: of three voters one had lost its disk, and on the way to one there
/// are two, who both have to vote), or leaves first, where its seat is not wanted any more either (seeds 52454 and 58793: it was
/// waited for, and was not let in).
///
/// Another operator may let the member in again between the look and the deletion. Who lets a member in looks, lays claim to its
/// body and disk, which changes them, and lets it in by that look's epoch; who deletes looks, bars, and deletes only what has
/// not changed. When it was let in before the bar, the bar is refused; by a look after the bar, the claim came after that,
/// and what was seen has changed (seeds 2411 and 1658).
pub(super) fn dismiss(view: &View<'_>, seat: Seat, why: &str, draft: &mut Draft) {
    let known = view.known(seat);
    let name = view.name(seat);
    let takes_a_vote = known.iter().any(|m| !view.is_gone(&m.id));
    let waits = takes_a_vote && leaves_fewer_seats(view, known);
    if let Some(gone) = view.voter_to_be_replaced(seat).filter(|_| waits) {
        let gone = view.name(gone);
        let message = format!(
            "{name} stays until {gone} votes again: the council needs who is left of it to become smaller"
        );
        return draft.blocked(reason::CHANGING, message);
    }
    let stays = |id: &str| view.leads(id) && seat.shard().is_some_and(|s| view.owns_slots(s));
    for old in known.iter().filter(|m| !stays(&m.id)) {
        draft.step(why, Step::Leave { id: old.id.clone(), name: old.name.clone() });
    }
    if !known.is_empty() {
        return;
    }
    if view.has_votes_to_give_up() {
        draft.blocked(reason::CHANGING, format!("{name} stays until its vote is another's"));
    } else if view.report(seat).is_none() && !view.is_told_by_leader() {
        let message = format!("{name} stays until the council's leader tells that it is no member");
        draft.blocked(reason::CHANGING, message);
    } else {
        let seen = view.sight(seat);
        draft.step(why, Step::Bar { name });
        draft.step(why, Step::DeleteMember { seat, seen, disk: true, force: false });
    }
}
