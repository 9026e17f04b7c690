//! How old a replica's data may be: a bound that holds whatever the network does, by the replica's own clock.
//!
//! ```text
//! replica, at C of its clock: REPLCONF larder-clock C T -->  primary: does it act? whose slots? then its journal's end E
//! has the stream up to E, and with it all that was     <--  REPLCONF larder-current C E age slots, between two requests of
//! acknowledged before C in those slots                      the stream, but no part of it: offsets do not count it
//! ```
//!
//! E is read after C, while the primary's lease holds: whatever anybody acknowledged before C stands in front of E. So
//! a replica that has applied everything up to E was current at C. No two clocks are compared; `age` is what a replica
//! with replicas of its own lacks itself (0 of a primary), a duration. A primary whose lease has ended, one that is
//! stopped, or a link that hangs vouches for nothing, and the bound grows with the time.
//!
//! That holds for the slots that the primary owned at C. A replica may know of a change of owner later than its primary, or
//! sooner: so a note counts only where both know the same slots for their shard (`slots`, a hash of them; 0 outside of
//! clusters), nothing that was noted before counts once they change, and a primary that is giving slots away vouches for
//! nothing while their new owner may have them already. Keys of slots that have gone are deleted once each replica knows
//! that they have (`T`, the epoch of the topology that it knows) or has lost its link; what was noted on an earlier link
//! counts no more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use crate::clock;
use crate::config::Config;
use crate::server::Shared;
use crate::session::Session;
use crate::topology::{Epoch, SlotRange};

/// Nobody wants a bound: the replica asks so often, milliseconds.
const PERIOD_MS: u64 = 100;
/// A bound is asked for so many times in its length, and never more often than this, milliseconds.
const ASKS_PER_BOUND: u64 = 4;
const PERIOD_MS_MIN: u64 = 5;

/// What a replica knows of how old its data may be.
#[derive(Default)]
pub struct Fresh {
    /// Milliseconds of our monotonic clock at which we had everything; 0: not known.
    as_of_ms: AtomicU64,
    /// The slots that this is about; locked while either changes.
    slots: Mutex<Owned>,
    /// Counts the beginnings and the ends of changes of the slots.
    changes: AtomicU64,
    /// The shortest bound that a client of this link has asked for; 0: none.
    wanted_ms: AtomicU64,
}

/// The slots of the shard, as far as this member knows.
#[derive(Default)]
struct Owned {
    /// See `hash_of`.
    hash: u64,
    /// When they were others, milliseconds of our clock: a slot may have gone and come back since.
    since_ms: u64,
}

/// How long a replica may take to learn which slots have gone, milliseconds, before its link is cut: on its next one it has to
/// be told anew how current it is.
const AWARE_MS: u64 = 2_000;

/// Since when some replica of a primary answers for slots that have gone.
#[derive(Default)]
pub struct Unaware {
    /// The topology that it does not know, and when that was seen first, milliseconds of the monotonic clock.
    since: Option<(Epoch, u64)>,
}

/// What a primary does about keys that its replicas may still be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awareness {
    /// Nobody answers for them: they may be deleted.
    Complete,
    /// They stay.
    Awaited,
    /// They stay, and who does not know by now loses its link.
    Overdue,
}

impl Unaware {
    /// `is_somebody`: some replica was vouched for, and does not know that topology.
    pub fn look(&mut self, topology: Epoch, is_somebody: bool, now_ms: u64) -> Awareness {
        let since = self.since.filter(|(of, _)| *of == topology).map_or(now_ms, |(_, since)| since);
        self.since = is_somebody.then_some((topology, since));
        match is_somebody {
            false => Awareness::Complete,
            true if now_ms < since + AWARE_MS => Awareness::Awaited,
            true => Awareness::Overdue,
        }
    }
}

/// What a primary vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The replica's clock, as it was told.
    pub clock_ms: u64,
    /// End of the journal after that.
    pub end: u64,
    /// What it was itself behind then, milliseconds.
    pub age_ms: u64,
    /// The slots that its shard owned then.
    pub slots: u64,
}

impl Note {
    pub(super) fn parse(args: &[&[u8]]) -> Option<Note> {
        let number = |i: usize| std::str::from_utf8(args.get(i)?).ok()?.parse().ok();
        Some(Note { clock_ms: number(0)?, end: number(1)?, age_ms: number(2)?, slots: number(3)? })
    }

    pub(super) fn request(self) -> Vec<u8> {
        let numbers = [self.clock_ms, self.end, self.age_ms, self.slots].map(|n| n.to_string());
        let mut out = Vec::new();
        let [clock, end, age, slots] = &numbers;
        let words = ["REPLCONF", "larder-current", clock, end, age, slots];
        crate::resp::encode_request(&mut out, &words);
        out
    }
}

/// A number for a shard's slots, by which two members tell whether they know the same ones.
pub fn hash_of(slots: &[SlotRange]) -> u64 {
    let mut hash = Xxh3::new();
    for range in slots {
        hash.update(&range.first.to_le_bytes());
        hash.update(&range.last.to_le_bytes());
    }
    hash.digest()
}

impl Fresh {
    /// Takes in what the primary vouches for; `have`: up to where everything is applied here.
    pub fn take(&self, note: Note, have: u64, now_ms: u64) {
        let slots = self.lock_slots();
        let is_of_these = note.slots == slots.hash && note.clock_ms > slots.since_ms;
        // A time that has not come was not told by us.
        if is_of_these && note.end <= have && note.clock_ms <= now_ms {
            let as_of = note.clock_ms.saturating_sub(note.age_ms);
            self.as_of_ms.fetch_max(as_of, Ordering::AcqRel);
        }
    }

    /// The data set is another one from now on.
    pub fn forget(&self) {
        self.as_of_ms.store(0, Ordering::Release);
    }

    /// The shard owns these slots from now on, as far as we know; `tell`: what lets those know who answer for them.
    pub fn own(&self, slots: u64, now_ms: u64, tell: impl FnOnce()) {
        let mut owned = self.lock_slots();
        if owned.hash == slots {
            return tell();
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
        *owned = Owned { hash: slots, since_ms: now_ms };
        self.forget();
        tell();
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn lock_slots(&self) -> std::sync::MutexGuard<'_, Owned> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most that the data may be behind the primary, milliseconds; `None`: that is not known.
    pub fn staleness_ms(&self, now_ms: u64) -> Option<u64> {
        let as_of = self.as_of_ms.load(Ordering::Acquire);
        // Both are rounded down: the difference may be one too few.
        (as_of != 0).then(|| now_ms.saturating_sub(as_of) + 1)
    }

    /// The data is behind by no more than a bound.
    pub fn is_within(&self, bound_ms: u64, now_ms: u64) -> bool {
        self.staleness_ms(now_ms).is_some_and(|ms| ms <= bound_ms)
    }

    /// The same for a slot: `owns` says whether the shard owns it.
    fn is_within_for(&self, bound_ms: u64, now_ms: u64, owns: impl Fn() -> bool) -> bool {
        let before = self.changes.load(Ordering::Acquire);
        let is_so = before.is_multiple_of(2) && owns() && self.is_within(bound_ms, now_ms);
        // Neither of the two is of another time than the other.
        std::sync::atomic::fence(Ordering::Acquire);
        is_so && self.changes.load(Ordering::Relaxed) == before
    }

    /// A client wants a bound.
    pub fn want(&self, bound_ms: u64) {
        let shorter = |now: u64| (now == 0 || bound_ms < now).then_some(bound_ms);
        // Who lost the race has set a shorter one.
        let _ = self.wanted_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, shorter);
    }

    /// A link begins: clients of the one before may have gone, and what comes may be about other slots.
    pub(super) fn begin(&self) {
        self.wanted_ms.store(0, Ordering::Release);
        self.forget();
    }

    /// How often the primary is asked, milliseconds, where the settings have a bound (0: none).
    pub(super) fn period_ms(&self, default_ms: u64) -> u64 {
        let wanted = [self.wanted_ms.load(Ordering::Acquire), default_ms];
        let bound = wanted.into_iter().filter(|ms| *ms != 0).min();
        bound.map_or(PERIOD_MS, |ms| (ms / ASKS_PER_BOUND).clamp(PERIOD_MS_MIN, PERIOD_MS))
    }
}

/// What this member vouches for to a replica that told its clock: nothing, unless it acts as primary or knows itself how
/// far it is behind.
pub(super) fn vouch(shared: &Shared, clock_ms: u64) -> Option<Note> {
    let state = &shared.state;
    // Before the slots: who holds no more of them knows their new owner by then. Who is held for a handover may have a
    // successor that acknowledges already.
    if shared.moves.held.any() || shared.cluster.any_open() || shared.hold.is_on() {
        return None;
    }
    let slots = shared.replication.fresh.lock_slots();
    let now_ms = clock::monotonic_ms();
    let age_ms = if state.is_replica.load(Ordering::Acquire) {
        // Who follows a replica is not asked which slots it knows before keys are deleted.
        if shared.cluster.is_enabled() {
            return None;
        }
        shared.replication.fresh.staleness_ms(now_ms)?
    } else if now_ms < state.lease_until_ms.load(Ordering::Acquire) {
        0
    } else {
        return None;
    };
    // The end comes last: a replica's is no less than what it had as of then.
    Some(Note { clock_ms, end: shared.journal.end(), age_ms, slots: slots.hash })
}

/// The bound of a client's reads on a replica, milliseconds; 0: none.
fn bound(session: &Session, config: &Config) -> u64 {
    match session.max_stale_ms {
        0 => config.max_staleness_ms(),
        wanted => wanted,
    }
}

impl Shared {
    /// This replica is within what the client of a READONLY connection allows, for a slot of its shard.
    #[inline]
    pub fn is_fresh(&self, session: &Session, slot: u16) -> bool {
        let bound = bound(session, &self.config);
        let (fresh, owns) = (&self.replication.fresh, || self.cluster.owns(slot));
        bound == 0 || fresh.is_within_for(bound, clock::monotonic_ms(), owns)
    }

    /// The error for a client whose read of this replica cannot be sent on: outside of a cluster, and where there is no key.
    #[inline]
    pub fn too_stale(&self, session: &Session) -> Option<String> {
        if !self.state.is_replica.load(Ordering::Acquire) {
            return None;
        }
        self.replica_too_stale(session)
    }

    fn replica_too_stale(&self, session: &Session) -> Option<String> {
        let bound = bound(session, &self.config);
        let asks = session.readonly || !self.cluster.is_enabled();
        if bound == 0 || !asks {
            return None;
        }
        let staleness = self.replication.fresh.staleness_ms(clock::monotonic_ms());
        match staleness {
            Some(ms) if ms <= bound => None,
            Some(ms) => {
                Some(format!("STALE The replica may be {ms} ms behind, and {bound} ms are allowed"))
            }
            None => Some(format!(
                "STALE How far the replica is behind is not known, and {bound} ms are allowed"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(clock_ms: u64, end: u64, age_ms: u64) -> Note {
        Note { clock_ms, end, age_ms, slots: 0 }
    }

    #[test]
    fn staleness_counts_from_when_the_replica_told_its_clock() {
        let fresh = Fresh::default();
        assert_eq!(fresh.staleness_ms(5_000), None);
        assert!(!fresh.is_within(u64::MAX, 5_000));
        // Told at 1000, answered at some time, heard at 1040: current as of 1000.
        fresh.take(note(1_000, 70, 0), 70, 1_040);
        assert_eq!(fresh.staleness_ms(1_040), Some(41));
        assert!(fresh.is_within(41, 1_040) && !fresh.is_within(40, 1_040));
        assert_eq!(fresh.staleness_ms(9_000), Some(8_001));
    }

    #[test]
    fn what_is_not_applied_yet_says_nothing() {
        let fresh = Fresh::default();
        fresh.take(note(1_000, 71, 0), 70, 1_040);
        assert_eq!(fresh.staleness_ms(1_040), None);
    }

    #[test]
    fn an_older_note_or_one_from_the_future_takes_nothing_away() {
        let fresh = Fresh::default();
        fresh.take(note(1_000, 70, 0), 70, 1_040);
        fresh.take(note(900, 60, 0), 70, 1_041);
        fresh.take(note(2_000, 60, 0), 70, 1_041);
        assert_eq!(fresh.staleness_ms(1_041), Some(42));
        fresh.forget();
        assert_eq!(fresh.staleness_ms(1_041), None);
    }

    #[test]
    fn what_a_replica_vouches_for_is_as_old_as_itself() {
        let fresh = Fresh::default();
        fresh.take(note(1_000, 70, 300), 70, 1_040);
        assert_eq!(fresh.staleness_ms(1_040), Some(341));
    }

    /// A slot comes to the shard with a copy on its way: as of the last note, the replica has nothing of it. One goes, and the
    /// replica does not know yet: its primary is current, but not for that slot.
    #[test]
    fn a_note_counts_for_the_slots_that_both_know_and_for_no_others() {
        let fresh = Fresh::default();
        let (few, more) = ([SlotRange { first: 0, last: 9 }], [SlotRange { first: 0, last: 10 }]);
        let of =
            |slots: &[SlotRange], clock_ms| Note { slots: hash_of(slots), ..note(clock_ms, 70, 0) };
        fresh.own(hash_of(&few), 900, || {});
        fresh.take(of(&few, 1_000), 70, 1_040);
        fresh.own(hash_of(&few), 1_040, || {});
        assert_eq!(fresh.staleness_ms(1_040), Some(41));
        let is_within = |owns: bool| fresh.is_within_for(41, 1_040, || owns);
        assert!(is_within(true) && !is_within(false));
        // While it changes, neither the former slots nor the next ones are answered for.
        fresh.own(hash_of(&more), 1_020, || assert!(!is_within(true)));
        assert_eq!(fresh.staleness_ms(1_040), None);
        fresh.take(of(&few, 1_030), 70, 1_040);
        assert_eq!(fresh.staleness_ms(1_040), None);
        fresh.take(of(&more, 1_035), 70, 1_040);
        assert_eq!(fresh.staleness_ms(1_040), Some(6));
        fresh.take(of(&few, 1_039), 70, 1_040);
        assert_eq!(fresh.staleness_ms(1_040), Some(6));
        // It has gone and come back: what was noted before that, and is heard only now, is about a copy that was deleted since.
        fresh.own(hash_of(&few), 1_050, || {});
        fresh.own(hash_of(&more), 1_060, || {});
        fresh.take(of(&more, 1_045), 70, 1_070);
        assert_eq!(fresh.staleness_ms(1_070), None);
        fresh.take(of(&more, 1_065), 70, 1_070);
        assert_eq!(fresh.staleness_ms(1_070), Some(6));
    }

    #[test]
    fn a_short_bound_is_asked_for_more_often() {
        let fresh = Fresh::default();
        assert_eq!(fresh.period_ms(0), 100);
        assert_eq!(fresh.period_ms(200), 50);
        fresh.want(80);
        fresh.want(4_000);
        assert_eq!(fresh.period_ms(200), 20);
        fresh.want(1);
        assert_eq!(fresh.period_ms(0), 5);
        fresh.begin();
        assert_eq!(fresh.period_ms(60_000), 100);
    }

    #[test]
    fn who_does_not_know_in_time_which_slots_have_gone_is_cut_and_no_sooner() {
        let mut unaware = Unaware::default();
        assert_eq!(unaware.look(7, true, 1_000), Awareness::Awaited);
        assert_eq!(unaware.look(7, true, 2_999), Awareness::Awaited);
        assert_eq!(unaware.look(7, true, 3_000), Awareness::Overdue);
        // Others have gone since: that is told anew.
        assert_eq!(unaware.look(8, true, 3_001), Awareness::Awaited);
        assert_eq!(unaware.look(8, false, 9_000), Awareness::Complete);
        assert_eq!(unaware.look(8, true, 9_001), Awareness::Awaited);
    }

    #[test]
    fn what_was_noted_on_an_earlier_link_counts_no_more() {
        let fresh = Fresh::default();
        fresh.take(note(1_000, 70, 0), 70, 1_040);
        fresh.begin();
        assert_eq!(fresh.staleness_ms(1_040), None);
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let written = Note { slots: u64::MAX, ..note(12, 34, 56) };
        let request = written.request();
        let mut decoder = crate::resp::Decoder::default();
        let limits = crate::resp::Limits { authenticated: true, bulk_bytes_max: 1024 };
        assert_eq!(decoder.next(&request, 0, limits), Ok(Some(request.len())));
        let args: Vec<&[u8]> = decoder.args.iter().map(|(a, b)| &request[*a..*b]).collect();
        assert_eq!(Note::parse(&args[2..]), Some(written));
        assert_eq!(Note::parse(&[b"1", b"x", b"2"]), None);
        assert_eq!(Note::parse(&[b"1"]), None);
    }
}
