//! Glob patterns, as KEYS, SCAN MATCH, PSUBSCRIBE, ACL and CONFIG GET match them.
//!
//! `*` any run of bytes, `?` one byte, `[abc]`, `[a-z]` and `[^x]` one byte of a set, `\` takes the next byte literally.
//! Only the last `*` passed is ever gone back to: a later star can do whatever an earlier one could by then. So the
//! work is at most pattern times text, whatever a client sends.

/// Whether the whole of `text` matches.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    walk(pattern, text, |byte| byte)
}

/// The same with ASCII letters of either case taken as equal.
pub fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    walk(pattern, text, |byte| byte.to_ascii_lowercase())
}

/// The one key that a pattern without wildcards can match, if it is such a pattern.
pub fn literal(pattern: &[u8]) -> Option<&[u8]> {
    let special = pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
    (!special).then_some(pattern)
}

fn walk(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8 + Copy) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to resume after the last star: the pattern behind it, and the text it has not yet swallowed.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        let Some(&byte) = text.get(t) else {
            return p == pattern.len();
        };
        match one(pattern, p, byte, fold) {
            Some(next) => (p, t) = (next, t + 1),
            None => match star {
                Some((after, from)) => {
                    if after == pattern.len() {
                        return true;
                    }
                    (p, t) = (after, from + 1);
                    star = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
}

/// Matches one byte against the pattern item at `p`; gives where the next item starts.
fn one(pattern: &[u8], p: usize, byte: u8, fold: impl Fn(u8) -> u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let (hit, next) = class(pattern, p + 1, byte, fold);
            hit.then_some(next)
        }
        b'\\' if p + 1 < pattern.len() => (fold(pattern[p + 1]) == fold(byte)).then_some(p + 2),
        literal => (fold(literal) == fold(byte)).then_some(p + 1),
    }
}

/// A class that is never closed ends with the pattern.
fn class(pattern: &[u8], start: usize, byte: u8, fold: impl Fn(u8) -> u8) -> (bool, usize) {
    let mut p = start;
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let byte = fold(byte);
    let mut hit = false;
    loop {
        match pattern.get(p..) {
            None | Some([]) => break,
            Some([b']', ..]) => {
                p += 1;
                break;
            }
            Some([b'\\', literal, ..]) => {
                hit |= fold(*literal) == byte;
                p += 2;
            }
            Some([from, b'-', to, ..]) => {
                let (from, to) = (fold(*from), fold(*to));
                hit |= (from.min(to)..=from.max(to)).contains(&byte);
                p += 3;
            }
            Some([literal, ..]) => {
                hit |= fold(*literal) == byte;
                p += 1;
            }
        }
    }
    (hit != negated, p)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious exponential matcher.
    fn model(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|skip| model(rest, &text[skip..])),
            _ => text.split_first().is_some_and(|(&byte, rest)| {
                one(pattern, 0, byte, |b| b).is_some_and(|next| model(&pattern[next..], rest))
            }),
        }
    }

    #[test]
    fn known_patterns_match_as_documented() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[\\]]", "]", true),
            ("[\\a-z]", "-", true),
            ("a\\", "a\\", true),
            ("[abc", "b", true),
            ("[", "x", false),
            ("[^", "x", true),
            ("a**b", "ab", true),
            ("*a", "bab", false),
            ("foo*", "fo", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(matches_nocase(b"HeL[A-M]o", b"hello"));
        assert!(!matches(b"HELLO", b"hello"));
    }

    #[test]
    fn a_hundred_thousand_stars_are_matched_in_bounded_steps() {
        let pattern = b"*a".repeat(50_000);
        let text = vec![b'a'; 4000];
        assert!(!matches(&pattern, &text));
        let mut deep = b"a*".repeat(50);
        deep.push(b'b');
        assert!(!matches(&deep, &text));
    }

    proptest! {
        #[test]
        fn agrees_with_the_simple_model(pattern in r"[ab*?\[\]\-^\\]{0,9}", text in "[ab\\]\\-]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), model(pattern, text));
        }
    }
}
