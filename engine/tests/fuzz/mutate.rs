//! New inputs out of old ones: bits, bytes, lengths, words and pieces are changed, doubled, cut out and exchanged.

use super::dice::Dice;

/// Numbers at which code breaks.
const NUMBERS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"1",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"2147483647",
    b"2147483648",
    b"4294967295",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"00",
    b"1e400",
    b"nan",
    b"0x10",
    b"-0",
];
const BYTES: &[u8] = &[
    0, 1, 0x7f, 0x80, 0xc0, 0xfe, 0xff, b'\r', b'\n', b' ', b'*', b'$', b'"', b'\'', b'\\', b'%',
    b'(',
];

pub(crate) struct Mutator {
    dice: Dice,
    words: &'static [&'static [u8]],
}

impl Mutator {
    pub(crate) fn new(seed: u64, words: &'static [&'static [u8]]) -> Mutator {
        Mutator { dice: Dice(seed | 1), words }
    }

    /// One of the pool, changed a few times.
    pub(crate) fn mutate(&mut self, pool: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
        let mut input = pool[self.dice.below(pool.len())].clone();
        self.change(&mut input, pool, bytes_max);
        input
    }

    /// A few changes, some of them by pieces of the pool.
    pub(crate) fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>], bytes_max: usize) {
        for _ in 0..=self.dice.below(4) {
            self.change_once(input, pool);
        }
        input.truncate(bytes_max);
    }

    fn change_once(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.dice.below(input.len() + 1);
        let end = (at + 1 + self.dice.below(16)).min(input.len());
        match self.dice.below(9) {
            0 if at < input.len() => input[at] ^= 1 << self.dice.below(8),
            1 if at < input.len() => input[at] = BYTES[self.dice.below(BYTES.len())],
            2 => drop(input.drain(at.min(end)..end)),
            3 => {
                let piece = input[at.min(end)..end].to_vec();
                let most = if self.dice.below(20) == 0 { 200 } else { 3 };
                let times = 1 + self.dice.below(most);
                input.splice(at..at, piece.repeat(times));
            }
            4 => {
                let other = &pool[self.dice.below(pool.len())];
                let from = self.dice.below(other.len() + 1);
                let to = (from + self.dice.below(64)).min(other.len());
                input.splice(at.min(end)..end, other[from..to].iter().copied());
            }
            5 if !self.words.is_empty() => {
                let word = self.words[self.dice.below(self.words.len())];
                input.splice(at..at, word.iter().copied());
            }
            6 => self.change_number(input, at),
            7 => drop(input.splice(at..at, [BYTES[self.dice.below(BYTES.len())]])),
            _ => input.truncate(at),
        }
    }

    /// The number at or behind a place becomes another one.
    fn change_number(&mut self, input: &mut Vec<u8>, at: usize) {
        let Some(from) = (at..input.len()).find(|i| input[*i].is_ascii_digit()) else { return };
        let to = (from..input.len()).find(|i| !input[*i].is_ascii_digit()).unwrap_or(input.len());
        let number = NUMBERS[self.dice.below(NUMBERS.len())];
        input.splice(from..to, number.iter().copied());
    }
}
