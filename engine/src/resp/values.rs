//! Long values of a reply that are not copied into it.
//!
//! ```text
//! out      $20000\r\n \r\n $3\r\nabc\r\n $30000\r\n \r\n
//! values             ^ 20,000 bytes               ^ 30,000 bytes
//! ```
//!
//! Each stands ahead of the byte of `out` at its place. Places count from the beginning of `out`, and never fall.

use std::collections::VecDeque;
use std::io::IoSlice;

use smallvec::SmallVec;

use crate::keyspace::Held;

/// Pieces that one call hands to the kernel: a turn's worth of values and what stands between them.
const PIECES_MAX: usize = 64;

#[derive(Default)]
pub struct Values {
    list: VecDeque<(usize, Held)>,
    /// Bytes of all of them that have not gone out.
    bytes: usize,
    /// Bytes of the first one that have.
    sent: usize,
}

impl Values {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes that have not gone out.
    #[inline]
    pub fn unsent(&self) -> usize {
        self.bytes
    }

    /// What of them no key is charged with any more.
    pub fn left_memory(&self) -> usize {
        self.list.iter().map(|(_, value)| value.left_memory()).sum()
    }

    pub(super) fn push(&mut self, place: usize, value: Held) {
        self.bytes += value.bytes().len();
        self.list.push_back((place, value));
    }

    /// Those behind the first `len` bytes of `out` are taken back with them.
    pub(super) fn truncate(&mut self, len: usize) {
        while let Some((place, value)) = self.list.back() {
            if *place <= len {
                break;
            }
            self.bytes -= value.bytes().len();
            self.list.pop_back();
        }
    }

    /// The first bytes of `out` have gone out, and are taken away.
    pub fn move_down(&mut self, by: usize) {
        self.list.iter_mut().for_each(|(place, _)| *place -= by);
    }

    /// What is to go out next, of which `sent` bytes of `out` have.
    pub fn gather<'a>(&'a self, out: &'a [u8], sent: usize) -> SmallVec<[IoSlice<'a>; PIECES_MAX]> {
        let (mut pieces, mut at, mut skip) = (SmallVec::new(), sent, self.sent);
        for (place, value) in &self.list {
            if pieces.len() + 2 > PIECES_MAX {
                return pieces;
            }
            if at < *place {
                pieces.push(IoSlice::new(&out[at..*place]));
                at = *place;
            }
            pieces.push(IoSlice::new(&value.bytes()[std::mem::take(&mut skip)..]));
        }
        if at < out.len() && pieces.len() < PIECES_MAX {
            pieces.push(IoSlice::new(&out[at..]));
        }
        pieces
    }

    /// The next `n` bytes have gone out; gives how many of `out` have then.
    pub fn advance(&mut self, mut sent: usize, mut n: usize) -> usize {
        while let Some((place, value)) = self.list.front() {
            let between = place - sent;
            if n < between {
                break;
            }
            sent = *place;
            n -= between;
            let left = value.bytes().len() - self.sent;
            if n < left {
                self.bytes -= n;
                self.sent += n;
                return sent;
            }
            n -= left;
            self.bytes -= left;
            self.sent = 0;
            self.list.pop_front();
        }
        sent + n
    }

    /// All that is to go out in one piece, for who takes the connection over.
    pub fn flatten(mut self, out: &[u8], mut sent: usize) -> Vec<u8> {
        let mut flat = Vec::with_capacity(out.len() - sent + self.bytes);
        loop {
            let before = flat.len();
            self.gather(out, sent).iter().for_each(|piece| flat.extend_from_slice(piece));
            if flat.len() == before {
                return flat;
            }
            sent = self.advance(sent, flat.len() - before);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    /// What is written between two values, and the value.
    fn parts() -> impl Strategy<Value = Vec<(usize, usize)>> {
        prop::collection::vec((0usize..6, 1usize..9), 0..90)
    }

    proptest! {
        #[test]
        fn all_goes_out_in_its_order_however_little_the_socket_takes(
            parts in parts(),
            takes in prop::collection::vec(1usize..40, 1..20),
            down_at in 0usize..40,
        ) {
            let (mut out, mut values, mut expected) = (Vec::new(), Values::default(), Vec::new());
            for (n, (between, len)) in parts.iter().enumerate() {
                let (between, value) = (vec![n as u8; *between], vec![100 + n as u8; *len]);
                out.extend_from_slice(&between);
                values.push(out.len(), Held::of(&value));
                expected.extend(between.into_iter().chain(value));
            }
            out.extend_from_slice(b"end");
            expected.extend_from_slice(b"end");
            let (mut sent, mut got) = (0, Vec::new());
            for (turn, most) in takes.iter().cycle().enumerate() {
                prop_assert_eq!(out.len() - sent + values.unsent(), expected.len() - got.len());
                let pieces = values.gather(&out, sent);
                prop_assert!(pieces.len() <= PIECES_MAX && pieces.iter().all(|p| !p.is_empty()));
                let taken: Vec<u8> = pieces.iter().flat_map(|p| p.iter().copied()).take(*most).collect();
                drop(pieces);
                if taken.is_empty() {
                    break;
                }
                sent = values.advance(sent, taken.len());
                got.extend_from_slice(&taken);
                if turn == down_at {
                    out.drain(..sent);
                    values.move_down(sent);
                    sent = 0;
                }
            }
            prop_assert!(values.is_empty() && values.unsent() == 0 && sent == out.len());
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn what_is_taken_back_or_flattened_is_what_was_put_in(parts in parts(), keep in 0usize..90) {
            let (mut out, mut values, mut expected) = (Vec::new(), Values::default(), Vec::new());
            let mut kept = None;
            for (n, (between, len)) in parts.iter().enumerate() {
                if n == keep {
                    kept = Some((out.len(), expected.len()));
                }
                let (header, value) = (vec![n as u8; *between + 1], vec![100 + n as u8; *len]);
                out.extend_from_slice(&header);
                values.push(out.len(), Held::of(&value));
                expected.extend(header.into_iter().chain(value));
            }
            if let Some((begin, whole)) = kept {
                out.truncate(begin);
                values.truncate(begin);
                expected.truncate(whole);
            }
            prop_assert_eq!(out.len() + values.unsent(), expected.len());
            let first = expected.len().min(7);
            let sent = values.advance(0, first);
            prop_assert_eq!(values.flatten(&out, sent), &expected[first..]);
        }
    }
}
