//! LCS: the longest common subsequence of two values.

use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::WrongType;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("lcs", -3, flag::READONLY, Keys::TWO, Group::String, "7.0.0", "Finds the longest common subsequence of two values.", lcs),
];

/// Cells of the table of the method: its time and, at four bytes each, its memory.
const CELLS_MAX: usize = 64 << 20;

/// A run that both values share: where it is in each, and its length.
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

fn lcs(ctx: &mut Ctx<'_, '_>) {
    let (mut len, mut idx, mut with_len, mut min) = (false, false, false, 0);
    let mut i = 3;
    while i < ctx.args.len() {
        if ctx.is_word(i, "len") {
            len = true;
        } else if ctx.is_word(i, "idx") {
            idx = true;
        } else if ctx.is_word(i, "withmatchlen") {
            with_len = true;
        } else if ctx.is_word(i, "minmatchlen") && i + 1 < ctx.args.len() {
            i += 1;
            let Some(n) = ctx.int_arg(i) else { return };
            min = n.max(0) as usize;
        } else {
            return ctx.reply.syntax_error();
        }
        i += 1;
    }
    if len && idx {
        let text = "ERR If you want both the length and indexes, please just use IDX.";
        return ctx.reply.error(text);
    }
    let mut values = [Vec::new(), Vec::new()];
    for (i, value) in values.iter_mut().enumerate() {
        match ctx.db.string(ctx.args[i + 1]) {
            Ok(found) => *value = found.unwrap_or_default().to_vec(),
            Err(WrongType) => {
                return ctx.reply.error("ERR The specified keys must contain string values");
            }
        }
    }
    let [a, b] = values;
    if (a.len() + 1).saturating_mul(b.len() + 1) > CELLS_MAX {
        return ctx
            .reply
            .error("ERR the values are too long for LCS: the product of their lengths is limited");
    }
    let (text, matches) = longest(&a, &b);
    if len {
        return ctx.reply.int(text.len() as i64);
    }
    if !idx {
        return ctx.reply.bulk(&text);
    }
    let matches: Vec<Match> = matches.into_iter().filter(|m| m.len >= min.max(1)).collect();
    ctx.reply.map(2);
    ctx.reply.bulk(b"matches");
    ctx.reply.array(matches.len());
    for m in matches {
        ctx.reply.array(2 + usize::from(with_len));
        for from in [m.a, m.b] {
            ctx.reply.array(2);
            ctx.reply.int(from as i64);
            ctx.reply.int((from + m.len - 1) as i64);
        }
        if with_len {
            ctx.reply.int(m.len as i64);
        }
    }
    ctx.reply.bulk(b"len");
    ctx.reply.int(text.len() as i64);
}

/// The subsequence, and its runs from the last to the first.
fn longest(a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Match>) {
    let width = b.len() + 1;
    let mut table = vec![0u32; (a.len() + 1) * width];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            table[i * width + j] = if a[i - 1] == b[j - 1] {
                table[(i - 1) * width + j - 1] + 1
            } else {
                table[(i - 1) * width + j].max(table[i * width + j - 1])
            };
        }
    }
    let (mut i, mut j) = (a.len(), b.len());
    let (mut text, mut matches): (Vec<u8>, Vec<Match>) = (Vec::new(), Vec::new());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            text.push(a[i - 1]);
            match matches.last_mut() {
                Some(last) if last.a == i && last.b == j => {
                    *last = Match { a: i - 1, b: j - 1, len: last.len + 1 };
                }
                _ => matches.push(Match { a: i - 1, b: j - 1, len: 1 }),
            }
            (i, j) = (i - 1, j - 1);
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    text.reverse();
    (text, matches)
}

#[cfg(test)]
mod tests {
    use super::longest;

    #[test]
    fn the_known_example_is_found_with_its_runs() {
        let (text, matches) = longest(b"ohmytext", b"mynewtext");
        assert_eq!(text, b"mytext");
        let runs: Vec<_> = matches.iter().map(|m| (m.a, m.b, m.len)).collect();
        assert_eq!(runs, [(4, 5, 4), (2, 0, 2)]);
        assert_eq!(longest(b"", b"x").0, b"");
    }
}
