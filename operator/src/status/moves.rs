//! The account of slots on their way: which, where from and to, and how far, as their source tells.

use crds::MoveStatus;
use engine::topology::{Move, MoveProgress, slots_text};

use crate::plan::View;

/// Moves that the account names; the plan's sentence counts the others.
const MOVES_MAX: usize = 32;
/// Bytes are told in steps of so many.
const STEP: u64 = 1 << 20;

pub(super) fn moves(view: &View<'_>) -> Vec<MoveStatus> {
    let all = view.topology().map_or(&[][..], |t| &t.moves);
    let of = |under_way: &Move| {
        let source = view.acting_primary(under_way.from).and_then(|seat| view.report(seat));
        let told = source.and_then(|r| r.moves.iter().find(|m| m.id == under_way.id));
        account(under_way, told)
    };
    all.iter().take(MOVES_MAX).map(of).collect()
}

fn account(under_way: &Move, told: Option<&MoveProgress>) -> MoveStatus {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let percent = |told: &MoveProgress| {
        let hundredths = u128::from(told.keys) * 100;
        let percent = hundredths.checked_div(u128::from(told.keys_total)).unwrap_or(100);
        i32::try_from(percent.min(100)).unwrap_or(100)
    };
    MoveStatus {
        slots: slots_text(&under_way.slots),
        from: i32::from(under_way.from),
        to: i32::from(under_way.to),
        percent: told.map(percent),
        bytes: told.map(|t| number(t.bytes - t.bytes % STEP)),
        bytes_total: told
            .and_then(|t| t.bytes_total)
            .map(|n| number(n.div_ceil(STEP).saturating_mul(STEP))),
        eta_seconds: told.and_then(|t| t.eta_ms).map(|ms| number(ms.div_ceil(1000))),
        limit: told.and_then(|t| t.limit).map(number),
    }
}

#[cfg(test)]
mod tests {
    use engine::topology::SlotRange;

    use super::*;

    fn under_way() -> Move {
        Move { id: 7, slots: vec![SlotRange { first: 100, last: 611 }], from: 2, to: 5 }
    }

    #[test]
    fn a_move_of_which_the_source_tells_shows_how_far_it_is() {
        let told = MoveProgress {
            id: 7,
            keys: 999,
            keys_total: 3_000,
            bytes: (10 << 20) + 5,
            bytes_total: Some((31 << 20) + 5),
            eta_ms: Some(12_001),
            limit: Some(4 << 20),
        };
        let shown = account(&under_way(), Some(&told));
        assert_eq!((shown.slots.as_str(), shown.from, shown.to), ("100-611", 2, 5));
        assert_eq!((shown.percent, shown.eta_seconds), (Some(33), Some(13)));
        assert_eq!((shown.bytes, shown.bytes_total), (Some(10 << 20), Some(32 << 20)));
        assert_eq!(shown.limit, Some(4 << 20));
    }

    #[test]
    fn slots_without_keys_are_copied() {
        let told =
            MoveProgress { bytes_total: Some(0), eta_ms: Some(0), ..MoveProgress::default() };
        let shown = account(&under_way(), Some(&told));
        assert_eq!((shown.percent, shown.bytes_total), (Some(100), Some(0)));
    }

    #[test]
    fn a_move_of_which_nobody_tells_is_named_all_the_same() {
        let shown = account(&under_way(), None);
        assert_eq!((shown.slots.as_str(), shown.percent, shown.bytes), ("100-611", None, None));
    }
}
