//! The ends of a range, as ZRANGEBYSCORE and ZRANGEBYLEX take them.

use crate::number;

/// One end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreBound {
    /// The score.
    pub value: f64,
    /// Whether the score itself is left out.
    pub exclusive: bool,
}

impl ScoreBound {
    /// A bound that includes its score.
    pub fn inclusive(value: f64) -> Self {
        Self { value, exclusive: false }
    }

    /// `5`, `(5`, `-inf`, `+inf`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (exclusive, number) = match text {
            [b'(', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        Some(Self { value: number::parse_bound(number)?, exclusive })
    }

    /// As a lower end: whether it leaves out this score.
    pub(super) fn is_above(self, score: f64) -> bool {
        if self.exclusive { score <= self.value } else { score < self.value }
    }

    /// As an upper end: whether it leaves out this score.
    pub(super) fn is_below(self, score: f64) -> bool {
        if self.exclusive { score >= self.value } else { score > self.value }
    }
}

/// One end of a range of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`: before everything.
    Min,
    /// `+`: behind everything.
    Max,
    /// `[text`.
    Included(&'a [u8]),
    /// `(text`.
    Excluded(&'a [u8]),
}

impl<'a> LexBound<'a> {
    /// `-`, `+`, `[text`, `(text`.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        match text {
            b"-" => Some(LexBound::Min),
            b"+" => Some(LexBound::Max),
            [b'[', rest @ ..] => Some(LexBound::Included(rest)),
            [b'(', rest @ ..] => Some(LexBound::Excluded(rest)),
            _ => None,
        }
    }

    pub(super) fn is_above(self, member: &[u8]) -> bool {
        match self {
            LexBound::Min => false,
            LexBound::Max => true,
            LexBound::Included(text) => member < text,
            LexBound::Excluded(text) => member <= text,
        }
    }

    pub(super) fn is_below(self, member: &[u8]) -> bool {
        match self {
            LexBound::Min => true,
            LexBound::Max => false,
            LexBound::Included(text) => member > text,
            LexBound::Excluded(text) => member >= text,
        }
    }
}
