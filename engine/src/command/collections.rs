//! What the commands of all collections share: scan options, ranges, counts.

use super::Ctx;
use crate::glob;
use crate::number::{parse_cursor, parse_i64};

/// Options of HSCAN, SSCAN and ZSCAN.
pub(super) struct ScanOptions<'a> {
    pub(super) cursor: u64,
    pub(super) count: usize,
    pattern: Option<&'a [u8]>,
    /// One of the extra words was given.
    pub(super) flagged: bool,
}

impl<'a> ScanOptions<'a> {
    /// Parses from the cursor on; the error is already replied when there is none.
    pub(super) fn parse(ctx: &mut Ctx<'a, '_>, at: usize, words: &[&str]) -> Option<Self> {
        let Some(cursor) = parse_cursor(ctx.args[at]) else {
            ctx.reply.error("ERR invalid cursor");
            return None;
        };
        let mut options = ScanOptions { cursor, count: 10, pattern: None, flagged: false };
        let mut i = at + 1;
        while i < ctx.args.len() {
            let value = ctx.args.get(i + 1).copied();
            if words.iter().any(|word| ctx.is_word(i, word)) {
                options.flagged = true;
                i += 1;
                continue;
            }
            match value {
                Some(value) if ctx.is_word(i, "match") => options.pattern = Some(value),
                Some(value) if ctx.is_word(i, "count") => match parse_i64(value) {
                    None => {
                        ctx.reply.not_an_integer();
                        return None;
                    }
                    Some(n) if n < 1 => {
                        ctx.reply.syntax_error();
                        return None;
                    }
                    Some(n) => options.count = n as usize,
                },
                _ => {
                    ctx.reply.syntax_error();
                    return None;
                }
            }
            i += 2;
        }
        Some(options)
    }

    pub(super) fn fits(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

/// The reply of a scan: the next cursor and what was found.
pub(super) fn reply_scan(ctx: &mut Ctx<'_, '_>, next: u64, found: &[Vec<u8>]) {
    ctx.reply.array(2);
    ctx.reply.bulk(next.to_string().as_bytes());
    ctx.reply.array(found.len());
    found.iter().for_each(|element| ctx.reply.bulk(element));
}

/// Indexes `start..=stop`, negative ones from the end, of a sequence of `len`: a range, empty if void.
pub(super) fn index_range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let start = if start < 0 { (len.saturating_add(start)).max(0) } else { start };
    let stop = if stop < 0 { len.saturating_add(stop) } else { stop.min(len - 1) };
    if start > stop || start >= len || stop < 0 { 0..0 } else { start as usize..stop as usize + 1 }
}

/// `numkeys key...` at `at`: the keys, and where the arguments behind them begin.
/// The error is already replied when there is none.
pub(super) fn counted_keys<'a>(
    ctx: &mut Ctx<'a, '_>,
    at: usize,
    not_positive: &str,
) -> Option<(&'a [&'a [u8]], usize)> {
    match parse_i64(ctx.args[at]) {
        Some(n) if n > 0 => {
            let end = (at + 1).saturating_add(n as usize);
            if end > ctx.args.len() {
                ctx.reply.syntax_error();
                return None;
            }
            Some((&ctx.args[at + 1..end], end))
        }
        _ => {
            ctx.reply.error(not_positive);
            None
        }
    }
}

/// `[count [word]]` behind the key of the commands that pick at random: the count, and whether the word
/// was there. `Err`: an error has been replied.
pub(super) fn random_count(ctx: &mut Ctx<'_, '_>, word: &str) -> Result<(Option<i64>, bool), ()> {
    if ctx.args.len() < 3 {
        return Ok((None, false));
    }
    let count = ctx.int_arg(2).ok_or(())?;
    if count == i64::MIN {
        ctx.reply.not_in_random_range();
        return Err(());
    }
    let flagged = ctx.args.len() == 4 && ctx.is_word(3, word);
    if ctx.args.len() > 4 || (ctx.args.len() == 4 && !flagged) {
        ctx.reply.syntax_error();
        return Err(());
    }
    // Twice as many elements must be a number still.
    if flagged && !(-(i64::MAX / 2)..=i64::MAX / 2).contains(&count) {
        ctx.reply.error("ERR value is out of range");
        return Err(());
    }
    Ok((Some(count), flagged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_indexes_are_clamped_as_in_lrange() {
        assert_eq!(index_range(0, -1, 3), 0..3);
        assert_eq!(index_range(-100, 100, 3), 0..3);
        assert_eq!(index_range(1, 1, 3), 1..2);
        assert_eq!(index_range(3, 5, 3), 0..0);
        assert_eq!(index_range(2, 1, 3), 0..0);
        assert_eq!(index_range(0, -4, 3), 0..0);
        assert_eq!(index_range(i64::MIN, i64::MAX, 3), 0..3);
        assert_eq!(index_range(i64::MAX, i64::MIN, 3), 0..0);
        assert_eq!(index_range(0, -1, 0), 0..0);
    }
}
