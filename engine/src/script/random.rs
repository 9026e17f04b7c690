//! `math.random`: the 48-bit generator that scripts have always had, the same numbers on every platform.
//!
//! x' = (x * 0x5DEECE66D + 0xB) mod 2^48, as drand48 of POSIX; the upper 31 bits are taken.

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const MASK: u64 = (1 << 48) - 1;
/// What the 31 bits are divided by.
const RANGE: i32 = i32::MAX;

pub(super) struct Generator(u64);

impl Generator {
    pub(super) fn new(seed: i32) -> Generator {
        Generator(u64::from(seed as u32) << 16 | 0x330e)
    }

    fn next(&mut self) -> i32 {
        self.0 = self.0.wrapping_mul(MULTIPLIER).wrapping_add(0xb) & MASK;
        (self.0 >> 17) as i32
    }

    /// A number in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        f64::from(self.next() % RANGE) / f64::from(RANGE)
    }
}
