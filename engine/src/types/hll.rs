//! HyperLogLog: how many different elements were added, from 16384 registers in a string of the ecosystem's format.
//!
//! ```text
//! "HYLL"  encoding (0 dense, 1 sparse)  3 zeros  cached count u64le (top bit: not valid)  registers
//! dense   6 bits each, lowest bits first
//! sparse  00llllll           l+1 registers of zero
//!         01llllll llllllll  the same, up to 16384
//!         1vvvvvll           l+1 registers of value v+1
//! ```
//!
//! The estimator is Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017), the hash is
//! MurmurHash64A. Sparse opcodes are split and merged in the order in which Redis does it, so that the bytes are the same.

/// Registers of a HyperLogLog.
pub const REGISTERS: usize = 1 << BITS;
const BITS: u32 = 14;
/// Bits of the hash beyond the register's index.
const RUN_BITS: usize = 50;
const HEADER: usize = 16;
const DENSE_LEN: usize = HEADER + REGISTERS * 6 / 8;
const SPARSE: u8 = 1;
const SEED: u64 = 0xadc8_3b19;

const ZERO_MAX: usize = 64;
const VALUE_MAX: u8 = 32;
const VALUE_LEN_MAX: usize = 4;

/// The registers contradict the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// An opcode of the sparse form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Registers of zero, in one byte or two.
    Zero(usize),
    /// The same in two bytes.
    LongZero(usize),
    /// Registers of one value.
    Value(u8, usize),
}

impl Run {
    fn width(self) -> usize {
        if matches!(self, Run::LongZero(_)) { 2 } else { 1 }
    }

    fn len(self) -> usize {
        match self {
            Run::Zero(len) | Run::LongZero(len) | Run::Value(_, len) => len,
        }
    }

    /// The opcode at the start of some bytes.
    fn read(bytes: &[u8]) -> Option<Run> {
        let first = *bytes.first()?;
        let low = usize::from(first & 0x3f);
        Some(match first >> 6 {
            0 => Run::Zero(low + 1),
            1 => Run::LongZero((low << 8 | usize::from(*bytes.get(1)?)) + 1),
            _ => Run::Value((first >> 2 & 0x1f) + 1, usize::from(first & 3) + 1),
        })
    }

    fn write(self, out: &mut Vec<u8>) {
        match self {
            Run::Zero(0) | Run::LongZero(0) | Run::Value(_, 0) => {}
            Run::Zero(len) if len <= ZERO_MAX => out.push((len - 1) as u8),
            Run::Zero(len) | Run::LongZero(len) => {
                out.extend_from_slice(&[0x40 | ((len - 1) >> 8) as u8, (len - 1) as u8]);
            }
            Run::Value(value, len) => out.push(0x80 | (value - 1) << 2 | (len - 1) as u8),
        }
    }
}

/// The string is a HyperLogLog, as far as its header and length tell.
pub fn is_hll(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER
        && bytes.starts_with(b"HYLL")
        && bytes[4] <= SPARSE
        && (bytes[4] == SPARSE || bytes.len() == DENSE_LEN)
}

/// An empty one.
pub fn empty() -> Vec<u8> {
    let mut bytes = b"HYLL\x01".to_vec();
    bytes.resize(HEADER, 0);
    Run::LongZero(REGISTERS).write(&mut bytes);
    bytes
}

/// The registers are spelled out.
pub fn is_dense(bytes: &[u8]) -> bool {
    bytes[4] != SPARSE
}

/// The cached count does not hold any more.
pub fn invalidate(bytes: &mut [u8]) {
    bytes[15] |= 0x80;
}

/// The count that was cached, while it holds.
pub fn cached(bytes: &[u8]) -> Option<u64> {
    let card = u64::from_le_bytes([
        bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15],
    ]);
    (card >> 63 == 0).then_some(card)
}

/// Caches a count.
pub fn cache(bytes: &mut [u8], count: u64) {
    bytes[8..16].copy_from_slice(&count.to_le_bytes());
}

/// Register and value of an element.
pub fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element);
    let rest = hash >> BITS | 1 << RUN_BITS;
    ((hash as usize) & (REGISTERS - 1), rest.trailing_zeros() as u8 + 1)
}

fn murmur64a(bytes: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 47;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 47).wrapping_mul(M);
    hash ^ hash >> 47
}

fn dense_get(bytes: &[u8], register: usize) -> u8 {
    let (at, shift) = (HEADER + register * 6 / 8, register * 6 % 8);
    let high = bytes.get(at + 1).copied().unwrap_or(0);
    ((u16::from(bytes[at]) | u16::from(high) << 8) >> shift) as u8 & 0x3f
}

/// Raises a register of the dense form; `false` when it is as high already.
pub fn dense_raise(bytes: &mut [u8], register: usize, value: u8) -> bool {
    if dense_get(bytes, register) >= value {
        return false;
    }
    let (at, shift) = (HEADER + register * 6 / 8, register * 6 % 8);
    let (mask, bits) = (0x3f_u16 << shift, u16::from(value) << shift);
    bytes[at] = bytes[at] & !(mask as u8) | bits as u8;
    if let Some(next) = bytes.get_mut(at + 1) {
        *next = *next & !((mask >> 8) as u8) | (bits >> 8) as u8;
    }
    true
}

/// The opcodes of a sparse one.
pub fn runs(bytes: &[u8]) -> impl Iterator<Item = Run> {
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let run = Run::read(bytes.get(at..)?)?;
        at += run.width();
        Some(run)
    })
}

/// Visits register and value of all that are not zero.
fn visit(bytes: &[u8], mut each: impl FnMut(usize, u8)) -> Result<(), Corrupt> {
    if is_dense(bytes) {
        (0..REGISTERS)
            .map(|i| (i, dense_get(bytes, i)))
            .filter(|(_, v)| *v > 0)
            .for_each(|(i, v)| each(i, v));
        return Ok(());
    }
    let (mut register, mut width) = (0, HEADER);
    for run in runs(bytes) {
        let end = register + run.len();
        if end > REGISTERS {
            return Err(Corrupt);
        }
        if let Run::Value(value, _) = run {
            (register..end).for_each(|register| each(register, value));
        }
        (register, width) = (end, width + run.width());
    }
    if register == REGISTERS && width == bytes.len() { Ok(()) } else { Err(Corrupt) }
}

/// Raises registers to those of another one.
pub fn merge(into: &mut [u8; REGISTERS], bytes: &[u8]) -> Result<(), Corrupt> {
    visit(bytes, |register, value| into[register] = into[register].max(value))
}

/// Spells the registers of a sparse one out.
pub fn to_dense(bytes: &mut Vec<u8>) -> Result<(), Corrupt> {
    if is_dense(bytes) {
        return Ok(());
    }
    let mut dense = vec![0; DENSE_LEN];
    dense[..HEADER].copy_from_slice(&bytes[..HEADER]);
    dense[4] = 0;
    visit(bytes, |register, value| {
        dense_raise(&mut dense, register, value);
    })?;
    *bytes = dense;
    Ok(())
}

/// Raises a register in either form; `false` when it is as high already. A sparse one becomes dense when a value or
/// the length (`sparse_max`, bytes) goes beyond what that form may hold.
pub fn raise(
    bytes: &mut Vec<u8>,
    register: usize,
    value: u8,
    sparse_max: usize,
) -> Result<bool, Corrupt> {
    if is_dense(bytes) {
        return Ok(dense_raise(bytes, register, value));
    }
    let promoted = |bytes: &mut Vec<u8>| {
        to_dense(bytes)?;
        Ok(dense_raise(bytes, register, value))
    };
    if value > VALUE_MAX {
        return promoted(bytes);
    }
    // The opcode that holds the register, and where the one before it stands.
    let (mut at, mut before, mut first) = (HEADER, HEADER, 0);
    let run = loop {
        let run = Run::read(bytes.get(at..).ok_or(Corrupt)?).ok_or(Corrupt)?;
        if register < first + run.len() {
            break run;
        }
        first += run.len();
        (before, at) = (at, at + run.width());
    };
    let (head, tail) = (register - first, first + run.len() - 1 - register);
    let mut split = Vec::with_capacity(5);
    match run {
        Run::Value(old, _) if old >= value => return Ok(false),
        Run::Value(old, _) => {
            Run::Value(old, head).write(&mut split);
            Run::Value(value, 1).write(&mut split);
            Run::Value(old, tail).write(&mut split);
        }
        Run::Zero(_) | Run::LongZero(_) => {
            Run::Zero(head).write(&mut split);
            Run::Value(value, 1).write(&mut split);
            Run::Zero(tail).write(&mut split);
        }
    }
    if split.len() > run.width() && bytes.len() + split.len() - run.width() > sparse_max {
        return promoted(bytes);
    }
    bytes.splice(at..at + run.width(), split);
    join(bytes, before);
    invalidate(bytes);
    Ok(true)
}

/// Joins equal values that stand beside each other, among five opcodes from a position on.
fn join(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        let Some(run) = bytes.get(at..).and_then(Run::read) else { return };
        let next = bytes.get(at + run.width()..).and_then(Run::read);
        match (run, next) {
            (Run::Value(a, len), Some(Run::Value(b, more)))
                if a == b && len + more <= VALUE_LEN_MAX =>
            {
                let mut joined = Vec::with_capacity(1);
                Run::Value(a, len + more).write(&mut joined);
                bytes.splice(at..at + 2, joined);
            }
            _ => at += run.width(),
        }
    }
}

/// About how many different elements were added.
pub fn count(bytes: &[u8]) -> Result<u64, Corrupt> {
    let mut histogram = [0u32; 64];
    let mut zeros = REGISTERS as u32;
    visit(bytes, |_, value| {
        histogram[usize::from(value & 0x3f)] += 1;
        zeros -= 1;
    })?;
    histogram[0] = zeros;
    Ok(estimate(&histogram))
}

/// The same of registers that were merged.
pub fn count_registers(registers: &[u8; REGISTERS]) -> u64 {
    let mut histogram = [0u32; 64];
    registers.iter().for_each(|value| histogram[usize::from(value & 0x3f)] += 1);
    estimate(&histogram)
}

fn estimate(histogram: &[u32; 64]) -> u64 {
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    let m = REGISTERS as f64;
    let mut z = m * tau((m - f64::from(histogram[RUN_BITS + 1])) / m);
    for value in (1..=RUN_BITS).rev() {
        z = (z + f64::from(histogram[value])) * 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (ALPHA * m * m / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_the_same_registers_and_counts_are_near() {
        let (mut sparse, mut dense) = (empty(), empty());
        to_dense(&mut dense).unwrap();
        let mut registers = [0; REGISTERS];
        for n in 0..3000u32 {
            let (register, value) = place(format!("element {n}").as_bytes());
            let rose = registers[register] < value;
            registers[register] = registers[register].max(value);
            assert_eq!(raise(&mut sparse, register, value, 100_000), Ok(rose));
            assert_eq!(raise(&mut dense, register, value, 0), Ok(rose));
        }
        assert!(!is_dense(&sparse) && is_dense(&dense));
        for bytes in [&sparse, &dense] {
            let mut found = [0; REGISTERS];
            merge(&mut found, bytes).unwrap();
            assert!(found == registers);
            assert!(count(bytes).unwrap().abs_diff(3000) < 60);
        }
        to_dense(&mut sparse).unwrap();
        assert_eq!(sparse[HEADER..], dense[HEADER..]);
    }

    #[test]
    fn runs_past_the_end_and_short_ones_are_corrupt() {
        let with = |runs: &[u8]| [&empty()[..HEADER], runs].concat();
        for runs in [&b""[..], b"\x7f", b"\x7f\xff\x00", b"\x7f\xfe", b"\x7f\xff\x7f\xff", b"\xff"]
        {
            let mut bytes = with(runs);
            assert!(is_hll(&bytes));
            assert_eq!(count(&bytes), Err(Corrupt), "{runs:?}");
            assert_eq!(merge(&mut [0; REGISTERS], &bytes), Err(Corrupt));
            assert_eq!(to_dense(&mut bytes), Err(Corrupt));
            let _ = raise(&mut bytes, REGISTERS - 1, 3, 3000);
            let _ = raise(&mut bytes, 0, 60, 3000);
        }
        assert!(!is_hll(b"HYLL\x00") && !is_hll(b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\0\x7f\xff"));
    }
}
