//! Patterns of Lua 5.1 (`string.find` and its like), matched so that it can be interrupted.
//!
//! The language's own matcher calls itself for each item of a pattern and comes back when it is done: a pattern that
//! backtracks for long holds its thread. This one keeps what it may have to come back to in a list of its own (`Back`),
//! and counts its steps: the caller hears of them (`Budget`), and may end it at any. What matches, what is captured and
//! which error is told at which text are the language's (see: patterns_match_as_the_languages_own).
//!
//! ```text
//! item                 pushed, to be come back to             goes on
//! x* x+                Greedy: one repetition less            behind all that match
//! x-                   Lazy: one repetition more              at once
//! x?                   Optional: without                      with it
//! (                    Open: there is no such capture         within
//! )                    Close: the capture is open again       behind
//! ```
//!
//! A pattern ends at its first zero byte, as in C; a wrong one is an error where the matcher comes to it, not before.

/// Captures of one pattern.
const CAPTURES_MAX: usize = 32;
/// What a match may have to come back to at one time; as many as items of a pattern.
const BACKS_MAX: usize = 100_000;
/// Bytes of a class that cost one step.
const CLASS_BYTES_PER_STEP: usize = 16;

/// Who is told of steps.
pub(super) trait Budget {
    /// So many steps were made; `false`: no more are to be.
    fn spend(&self, steps: usize) -> bool;
}

/// Why there is neither a match nor none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Text(&'static str),
    /// There is no budget for more.
    Ended,
}

type Outcome<T> = std::result::Result<T, Fault>;

const BAD_INDEX: Fault = Fault::Text("invalid capture index");
const TOO_COMPLEX: Fault = Fault::Text("pattern too complex");

#[derive(Clone, Copy, PartialEq, Eq)]
enum Len {
    Open,
    Position,
    Closed(usize),
}

#[derive(Clone, Copy)]
struct Capture {
    from: usize,
    len: Len,
}

/// Part of the text, or a place in it, counted from one.
#[derive(Clone, Copy)]
pub(super) enum Captured<'t> {
    Bytes(&'t [u8]),
    Position(usize),
}

/// A place in the text, and one in the pattern to go on with.
struct At {
    text: usize,
    pattern: usize,
}

enum Next {
    Go(At),
    Matched(usize),
    Failed,
}

fn go(text: usize, pattern: usize) -> Outcome<Next> {
    Ok(Next::Go(At { text, pattern }))
}

/// What is tried, or undone, when nothing behind it matched.
enum Back {
    Greedy { from: usize, left: usize, pattern: usize },
    Lazy { at: usize, item: usize, end: usize },
    Optional(At),
    Open,
    Close(usize),
}

pub(super) struct Matcher<'t> {
    text: &'t [u8],
    pattern: &'t [u8],
    level: usize,
    captures: [Capture; CAPTURES_MAX],
    backs: Vec<Back>,
    budget: &'t dyn Budget,
}

/// A pattern without the sign that holds it to where it begins; whether it had one.
pub(super) fn anchored(pattern: &[u8]) -> (&[u8], bool) {
    match pattern.strip_prefix(b"^") {
        Some(rest) => (rest, true),
        None => (pattern, false),
    }
}

impl<'t> Matcher<'t> {
    pub(super) fn new(text: &'t [u8], pattern: &'t [u8], budget: &'t dyn Budget) -> Matcher<'t> {
        let end = memchr::memchr(0, pattern).unwrap_or(pattern.len());
        Matcher {
            text,
            pattern: &pattern[..end],
            level: 0,
            captures: [Capture { from: 0, len: Len::Open }; CAPTURES_MAX],
            backs: Vec::new(),
            budget,
        }
    }

    /// The first match that begins at `from` or behind it, or at `from` only: where it begins and ends.
    pub(super) fn find(
        &mut self,
        from: usize,
        only_there: bool,
    ) -> Outcome<Option<(usize, usize)>> {
        let first = if only_there { None } else { self.first_byte() };
        let mut at = from;
        while at <= self.text.len() {
            if let Some(byte) = first {
                let Some(skipped) = memchr::memchr(byte, &self.text[at..]) else { return Ok(None) };
                at += skipped;
            }
            if let Some(end) = self.try_at(at)? {
                return Ok(Some((at, end)));
            }
            if only_there {
                break;
            }
            at += 1;
        }
        Ok(None)
    }

    /// A byte that each match begins with. Where it is not, nothing else of the pattern would be looked at.
    fn first_byte(&self) -> Option<u8> {
        let first = *self.pattern.first()?;
        let is_literal = !b"()%.[$".contains(&first) && !b"*?-".contains(&self.item(1));
        is_literal.then_some(first)
    }

    /// Captures of the last match; without any the whole of it counts as one, where that is asked for.
    pub(super) fn capture_count(&self, or_whole: bool) -> usize {
        if self.level == 0 { usize::from(or_whole) } else { self.level }
    }

    /// One capture of a match from `from` to `to`.
    pub(super) fn capture(&self, index: usize, from: usize, to: usize) -> Outcome<Captured<'t>> {
        if index >= self.level {
            return if index == 0 {
                Ok(Captured::Bytes(&self.text[from..to]))
            } else {
                Err(BAD_INDEX)
            };
        }
        let capture = self.captures[index];
        match capture.len {
            Len::Open => Err(Fault::Text("unfinished capture")),
            Len::Position => Ok(Captured::Position(capture.from + 1)),
            Len::Closed(len) => Ok(Captured::Bytes(&self.text[capture.from..capture.from + len])),
        }
    }

    /// The byte of the pattern at a place; zero behind its end.
    fn item(&self, at: usize) -> u8 {
        self.pattern.get(at).copied().unwrap_or(0)
    }

    fn spend(&self, steps: usize) -> Outcome<()> {
        if self.budget.spend(steps) { Ok(()) } else { Err(Fault::Ended) }
    }

    fn try_at(&mut self, from: usize) -> Outcome<Option<usize>> {
        self.level = 0;
        self.backs.clear();
        let mut at = At { text: from, pattern: 0 };
        loop {
            self.spend(1)?;
            at = match self.step(&at)? {
                Next::Go(next) => next,
                Next::Matched(end) => return Ok(Some(end)),
                Next::Failed => match self.come_back()? {
                    Some(next) => next,
                    None => return Ok(None),
                },
            };
        }
    }

    fn step(&mut self, at: &At) -> Outcome<Next> {
        let (s, p) = (at.text, at.pattern);
        match self.item(p) {
            0 => Ok(Next::Matched(s)),
            b'(' if self.item(p + 1) == b')' => self.open(s, p + 2, Len::Position),
            b'(' => self.open(s, p + 1, Len::Open),
            b')' => self.close(s, p + 1),
            b'%' => match self.item(p + 1) {
                b'b' => self.balance(s, p + 2),
                b'f' => self.frontier(s, p + 2),
                digit @ b'0'..=b'9' => self.again(s, p + 2, digit),
                _ => self.single(s, p),
            },
            b'$' if p + 1 == self.pattern.len() => {
                Ok(if s == self.text.len() { Next::Matched(s) } else { Next::Failed })
            }
            _ => self.single(s, p),
        }
    }

    fn push(&mut self, back: Back) -> Outcome<()> {
        if self.backs.len() >= BACKS_MAX {
            return Err(TOO_COMPLEX);
        }
        self.backs.push(back);
        Ok(())
    }

    /// Where to go on after what was tried last has failed.
    fn come_back(&mut self) -> Outcome<Option<At>> {
        while let Some(back) = self.backs.pop() {
            match back {
                Back::Open => self.level -= 1,
                Back::Close(index) => self.captures[index].len = Len::Open,
                Back::Optional(at) => return Ok(Some(at)),
                Back::Greedy { from, left, pattern } => {
                    let left = left - 1;
                    if left > 0 {
                        self.backs.push(Back::Greedy { from, left, pattern });
                    }
                    return Ok(Some(At { text: from + left, pattern }));
                }
                Back::Lazy { at, item, end } => {
                    if self.matches(at, item, end)? {
                        self.backs.push(Back::Lazy { at: at + 1, item, end });
                        return Ok(Some(At { text: at + 1, pattern: end + 1 }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// An item for one byte, and how often it may be there.
    fn single(&mut self, s: usize, p: usize) -> Outcome<Next> {
        let end = self.class_end(p)?;
        let fits = self.matches(s, p, end)?;
        match self.item(end) {
            b'?' if fits => {
                self.push(Back::Optional(At { text: s, pattern: end + 1 }))?;
                go(s + 1, end + 1)
            }
            b'?' => go(s, end + 1),
            b'*' => self.greedy(s, p, end),
            b'+' if fits => self.greedy(s + 1, p, end),
            b'-' => {
                self.push(Back::Lazy { at: s, item: p, end })?;
                go(s, end + 1)
            }
            b'+' => Ok(Next::Failed),
            _ if fits => go(s + 1, end),
            _ => Ok(Next::Failed),
        }
    }

    fn greedy(&mut self, from: usize, p: usize, end: usize) -> Outcome<Next> {
        let mut count = 0;
        while self.matches(from + count, p, end)? {
            count += 1;
        }
        if count > 0 {
            self.push(Back::Greedy { from, left: count, pattern: end + 1 })?;
        }
        go(from + count, end + 1)
    }

    fn open(&mut self, s: usize, p: usize, len: Len) -> Outcome<Next> {
        let Some(capture) = self.captures.get_mut(self.level) else {
            return Err(Fault::Text("too many captures"));
        };
        *capture = Capture { from: s, len };
        self.level += 1;
        self.push(Back::Open)?;
        go(s, p)
    }

    fn close(&mut self, s: usize, p: usize) -> Outcome<Next> {
        let open = self.captures[..self.level].iter().rposition(|c| c.len == Len::Open);
        let index = open.ok_or(Fault::Text("invalid pattern capture"))?;
        self.captures[index].len = Len::Closed(s - self.captures[index].from);
        self.push(Back::Close(index))?;
        go(s, p)
    }

    /// `%1`: what a capture holds, once more. One that holds a place is nowhere in the text.
    fn again(&mut self, s: usize, p: usize, digit: u8) -> Outcome<Next> {
        let index = usize::from(digit).checked_sub(usize::from(b'1')).filter(|i| *i < self.level);
        let capture = self.captures[index.ok_or(BAD_INDEX)?];
        let len = match capture.len {
            Len::Open => return Err(BAD_INDEX),
            Len::Position => return Ok(Next::Failed),
            Len::Closed(len) => len,
        };
        self.spend(len / CLASS_BYTES_PER_STEP)?;
        let wanted = &self.text[capture.from..capture.from + len];
        if self.text[s..].starts_with(wanted) { go(s + len, p) } else { Ok(Next::Failed) }
    }

    /// `%bxy`: from x to the y that closes it.
    fn balance(&mut self, s: usize, p: usize) -> Outcome<Next> {
        let (begin, end) = (self.item(p), self.item(p + 1));
        if begin == 0 || end == 0 {
            return Err(Fault::Text("unbalanced pattern"));
        }
        if self.text.get(s) != Some(&begin) {
            return Ok(Next::Failed);
        }
        let mut depth = 1usize;
        for (at, byte) in self.text.iter().enumerate().skip(s + 1) {
            self.spend(1)?;
            if *byte == end {
                depth -= 1;
                if depth == 0 {
                    return go(at + 1, p + 2);
                }
            } else if *byte == begin {
                depth += 1;
            }
        }
        Ok(Next::Failed)
    }

    /// `%f[set]`: between a byte that is not of the set and one that is; there is a zero byte at either end.
    fn frontier(&mut self, s: usize, p: usize) -> Outcome<Next> {
        if self.item(p) != b'[' {
            return Err(Fault::Text("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(p)?;
        self.spend((end - p) / CLASS_BYTES_PER_STEP)?;
        let before = s.checked_sub(1).map_or(0, |at| self.text[at]);
        let here = self.text.get(s).copied().unwrap_or(0);
        if self.in_set(before, p, end - 1) || !self.in_set(here, p, end - 1) {
            return Ok(Next::Failed);
        }
        go(s, end)
    }

    /// Where an item for one byte ends.
    fn class_end(&self, p: usize) -> Outcome<usize> {
        match self.item(p) {
            b'%' if self.item(p + 1) == 0 => Err(Fault::Text("malformed pattern (ends with '%')")),
            b'%' => Ok(p + 2),
            b'[' => {
                let mut at = p + 1 + usize::from(self.item(p + 1) == b'^');
                self.spend(1)?;
                // A bracket that comes first is one of the set.
                loop {
                    let byte = self.item(at);
                    if byte == 0 {
                        return Err(Fault::Text("malformed pattern (missing ']')"));
                    }
                    at += 1 + usize::from(byte == b'%' && self.item(at + 1) != 0);
                    if self.item(at) == b']' {
                        self.spend((at - p) / CLASS_BYTES_PER_STEP)?;
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(p + 1),
        }
    }

    /// Is there a byte, and one that the item from `p` to `end` is for?
    fn matches(&self, s: usize, p: usize, end: usize) -> Outcome<bool> {
        self.spend(1 + (end - p) / CLASS_BYTES_PER_STEP)?;
        let Some(byte) = self.text.get(s).copied() else { return Ok(false) };
        Ok(match self.item(p) {
            b'.' => true,
            b'%' => in_class(byte, self.item(p + 1)),
            b'[' => self.in_set(byte, p, end - 1),
            literal => literal == byte,
        })
    }

    /// Is a byte in the set from the bracket at `p` to that at `last`?
    fn in_set(&self, byte: u8, p: usize, last: usize) -> bool {
        let is_negated = self.item(p + 1) == b'^';
        let mut at = p + 1 + usize::from(is_negated);
        while at < last {
            if self.item(at) == b'%' {
                if in_class(byte, self.item(at + 1)) {
                    return !is_negated;
                }
                at += 2;
            } else if self.item(at + 1) == b'-' && at + 2 < last {
                if (self.item(at)..=self.item(at + 2)).contains(&byte) {
                    return !is_negated;
                }
                at += 3;
            } else {
                if self.item(at) == byte {
                    return !is_negated;
                }
                at += 1;
            }
        }
        is_negated
    }
}

/// Is a byte of a class, as `%a`? A capital stands for all others; what names no class stands for itself.
fn in_class(byte: u8, class: u8) -> bool {
    let is_in = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | b'\t'..=b'\r'),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_in == class.is_ascii_lowercase()
}

#[cfg(test)]
mod tests;
