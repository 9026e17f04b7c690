//! LZF compression, as RDB strings use it.
//!
//! ```text
//! 000lllll          l + 1 literal bytes follow
//! lllooooo o        copy l + 2 bytes from o + 1 bytes back       (l = 1..=6)
//! 111ooooo l o      copy l + 9 bytes from o + 1 bytes back
//! ```

const LITERALS_MAX: usize = 32;
const COPY_MIN: usize = 3;
const COPY_MAX: usize = 264;
const DISTANCE_MAX: usize = 1 << 13;
/// Three bytes of input make at most 264 of output.
const EXPANSION_MAX: usize = COPY_MAX / 3;

/// Whether so many bytes can expand to so many.
pub(super) fn is_plausible(compressed: usize, expanded: usize) -> bool {
    expanded <= compressed.saturating_mul(EXPANSION_MAX)
}

/// Compresses; nothing if that does not save at least a few bytes.
pub(super) fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let budget = input.len().checked_sub(4)?;
    // Where each hash of three bytes was last seen, plus one. Small inputs need only a small table.
    let bits = (usize::BITS - input.len().leading_zeros()).clamp(6, 14);
    let mut seen = vec![0u32; 1 << bits];
    let mut out = Vec::with_capacity(budget);
    let (mut at, mut literals) = (0, 0);
    while at + COPY_MIN <= input.len() {
        let key = u32::from_be_bytes([0, input[at], input[at + 1], input[at + 2]]);
        let slot = (key.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize;
        let candidate = seen[slot] as usize;
        seen[slot] = at as u32 + 1;
        let distance = (at + 1).wrapping_sub(candidate);
        let found = candidate > 0
            && distance <= DISTANCE_MAX
            && input[candidate - 1..candidate + 2] == input[at..at + 3];
        if !found {
            at += 1;
            continue;
        }
        let from = candidate - 1;
        let longest = (input.len() - at).min(COPY_MAX);
        let same = (COPY_MIN..longest).take_while(|&n| input[from + n] == input[at + n]).count();
        let length = COPY_MIN + same;
        put_literals(&mut out, &input[literals..at]);
        put_copy(&mut out, distance - 1, length);
        at += length;
        literals = at;
        if out.len() >= budget {
            return None;
        }
    }
    put_literals(&mut out, &input[literals..]);
    (out.len() < budget).then_some(out)
}

fn put_literals(out: &mut Vec<u8>, literals: &[u8]) {
    for run in literals.chunks(LITERALS_MAX) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

fn put_copy(out: &mut Vec<u8>, offset: usize, length: usize) {
    let (high, length) = ((offset >> 8) as u8, length - 2);
    if length < 7 {
        out.push((length as u8) << 5 | high);
    } else {
        out.extend_from_slice(&[7 << 5 | high, (length - 7) as u8]);
    }
    out.push(offset as u8);
}

/// Expands to exactly `len` bytes; nothing if the input says otherwise.
pub(super) fn expand(input: &[u8], len: usize) -> Option<Vec<u8>> {
    if !is_plausible(input.len(), len) {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    let mut rest = input;
    while let Some((&control, tail)) = rest.split_first() {
        rest = tail;
        let high = usize::from(control & 0x1f);
        if control < 32 {
            let (literals, tail) = rest.split_at_checked(high + 1)?;
            out.extend_from_slice(literals);
            rest = tail;
        } else {
            let mut length = usize::from(control >> 5);
            if length == 7 {
                let (&more, tail) = rest.split_first()?;
                length += usize::from(more);
                rest = tail;
            }
            let (&low, tail) = rest.split_first()?;
            rest = tail;
            let from = out.len().checked_sub((high << 8 | usize::from(low)) + 1)?;
            // The copy may overlap what it makes: byte by byte then.
            let length = length + 2;
            if from + length <= out.len() {
                out.extend_from_within(from..from + length);
            } else {
                for at in from..from + length {
                    out.push(out[at]);
                }
            }
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repetition_shrinks_to_almost_nothing() {
        let input = vec![b'a'; 100_000];
        let small = compress(&input).unwrap();
        assert!(small.len() < 1200, "{}", small.len());
        assert_eq!(expand(&small, input.len()), Some(input));
    }

    #[test]
    fn noise_and_short_input_are_left_alone() {
        let noise: Vec<u8> = (0..=255).collect();
        assert_eq!(compress(&noise), None);
        assert_eq!(compress(b"abc"), None);
        assert_eq!(compress(b""), None);
    }

    #[test]
    fn a_bomb_is_refused_before_memory_is_set_aside() {
        assert_eq!(expand(&[0; 10], 4 << 30), None);
        assert_eq!(expand(&[0xff; 10], 880), None);
    }

    proptest! {
        #[test]
        fn what_is_compressed_expands_to_the_same(
            pieces in prop::collection::vec(("[a-d]{1,12}", 1usize..40), 0..40),
        ) {
            let input: Vec<u8> = pieces.iter().flat_map(|(text, times)| text.repeat(*times).into_bytes()).collect();
            if let Some(small) = compress(&input) {
                prop_assert!(small.len() < input.len());
                prop_assert_eq!(expand(&small, input.len()), Some(input));
            }
        }

        #[test]
        fn any_bytes_expand_to_what_was_asked_for_or_nothing(input: Vec<u8>, len in 0usize..5000) {
            if let Some(output) = expand(&input, len) {
                prop_assert_eq!(output.len(), len);
            }
        }
    }
}
