//! What the arguments of stream commands say: IDs, intervals, how to trim.

use super::super::Ctx;
use crate::number::parse_i64;
use crate::types::StreamId;
use crate::types::stream::{ParseId, Refs, Trim, TrimTo};

pub(super) const INVALID_ID: &str = "ERR Invalid stream ID specified as stream command argument";
const NEEDS_TILDE: &str = "ERR syntax error, LIMIT cannot be used without the special ~ option";
/// Entries that `~` may cut off at once, at most, whatever the size of nodes is.
const LIMIT_MAX: i64 = 1_000_000;
/// The same where nodes have no limit of entries.
const LIMIT_OF_UNLIMITED: i64 = 10_000;

/// An ID; the error is already replied when it is none.
pub(super) fn id(ctx: &mut Ctx<'_, '_>, i: usize, seq: u64) -> Option<StreamId> {
    let id = StreamId::parse(ctx.args[i], seq);
    if id.is_none() {
        ctx.reply.error(INVALID_ID);
    }
    id
}

/// IDs from an argument on, to the last one.
pub(super) fn ids(ctx: &mut Ctx<'_, '_>, from: usize) -> Option<Vec<StreamId>> {
    (from..ctx.args.len()).map(|i| id(ctx, i, 0)).collect()
}

/// The first ID of an interval.
pub(super) fn start(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<StreamId> {
    let (id, excluded) = bound(ctx, i, 0)?;
    let start = if excluded { id.next() } else { Some(id) };
    if start.is_none() {
        ctx.reply.error("ERR invalid start ID for the interval");
    }
    start
}

/// The last ID of an interval.
pub(super) fn end(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<StreamId> {
    let (id, excluded) = bound(ctx, i, u64::MAX)?;
    let end = if excluded { id.prev() } else { Some(id) };
    if end.is_none() {
        ctx.reply.error("ERR invalid end ID for the interval");
    }
    end
}

/// An end of an interval, and whether it is itself left out.
fn bound(ctx: &mut Ctx<'_, '_>, i: usize, seq: u64) -> Option<(StreamId, bool)> {
    let found = match ctx.args[i] {
        [b'(', text @ ..] if !text.is_empty() => StreamId::parse(text, seq).map(|id| (id, true)),
        text => StreamId::parse_bound(text, seq).map(|id| (id, false)),
    };
    if found.is_none() {
        ctx.reply.error(INVALID_ID);
    }
    found
}

/// A count, 0 where it is negative.
pub(super) fn count(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<u64> {
    ctx.int_arg(i).map(|n| n.max(0) as u64)
}

/// Options of XADD and XTRIM.
pub(super) struct Options {
    pub(super) trim: Option<Trim>,
    /// What becomes of references to what is cut off.
    pub(super) refs: Refs,
    pub(super) make: bool,
    /// What the new entry's ID is to be; nothing for `*`.
    pub(super) id: Option<ParseId>,
    /// Where the ID is, or the end of the arguments.
    pub(super) id_at: usize,
}

impl Options {
    /// The error is already replied when there is none.
    pub(super) fn parse(ctx: &mut Ctx<'_, '_>, adds: bool) -> Option<Options> {
        let id_at = ctx.args.len();
        let mut options = Options { trim: None, refs: Refs::Keep, make: true, id: None, id_at };
        let (mut limit, mut chosen) = (None, false);
        let mut i = 2;
        while i < ctx.args.len() {
            let more = ctx.args.len() - 1 - i;
            if adds && ctx.args[i] == b"*" {
                options.id_at = i;
                break;
            } else if more > 0 && (ctx.is_word(i, "maxlen") || ctx.is_word(i, "minid")) {
                i = options.trim_at(ctx, i)?;
            } else if more > 0 && ctx.is_word(i, "limit") {
                let n = ctx.int_arg(i + 1)?;
                if n < 0 {
                    ctx.reply.error("ERR The LIMIT argument must be >= 0.");
                    return None;
                }
                limit = Some(n);
                i += 1;
            } else if let Some(refs) = super::delete::refs(ctx, i).filter(|_| !chosen) {
                (options.refs, chosen) = (refs, true);
            } else if adds && ctx.is_word(i, "nomkstream") {
                options.make = false;
            } else if adds {
                options.id = StreamId::parse_partial(ctx.args[i], 0);
                if options.id.is_none() {
                    ctx.reply.error(INVALID_ID);
                    return None;
                }
                options.id_at = i;
                break;
            } else {
                ctx.reply.syntax_error();
                return None;
            }
            i += 1;
        }
        options.set_limit(ctx, adds, limit).then_some(options)
    }

    /// `MAXLEN|MINID [=|~] threshold` at `i`; gives the last position of it.
    fn trim_at(&mut self, ctx: &mut Ctx<'_, '_>, mut i: usize) -> Option<usize> {
        if self.trim.is_some() {
            ctx.reply.error(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            );
            return None;
        }
        let by_len = ctx.is_word(i, "maxlen");
        let sign = if i + 2 < ctx.args.len() { ctx.args[i + 1] } else { b"" };
        if sign == b"~" || sign == b"=" {
            i += 1;
        }
        i += 1;
        let to = if by_len {
            match ctx.int_arg(i)? {
                n if n < 0 => {
                    ctx.reply.error("ERR The MAXLEN argument must be >= 0.");
                    return None;
                }
                n => TrimTo::Len(n as u64),
            }
        } else {
            TrimTo::Id(id(ctx, i, 0)?)
        };
        self.trim = Some(Trim { to, approximate: sign == b"~", limit: 0 });
        Some(i)
    }

    fn set_limit(&mut self, ctx: &mut Ctx<'_, '_>, adds: bool, limit: Option<i64>) -> bool {
        let Some(trim) = &mut self.trim else {
            let refused = match limit {
                None if adds => return true,
                Some(0) if adds => NEEDS_TILDE,
                None | Some(0) => "ERR syntax error, XTRIM must be called with a trimming strategy",
                _ => {
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy"
                }
            };
            ctx.reply.error(refused);
            return false;
        };
        // What a primary has cut off is cut off here, however much it is.
        if ctx.session.from_primary {
            return true;
        }
        if !trim.approximate {
            if limit.is_some() {
                ctx.reply.error(NEEDS_TILDE);
            }
            return limit.is_none();
        }
        trim.limit = limit.unwrap_or_else(|| {
            let nodes = ctx.db.env.limits.stream_node_max_entries as i64;
            match nodes.saturating_mul(100) {
                0 => LIMIT_OF_UNLIMITED,
                n => n.min(LIMIT_MAX),
            }
        }) as u64;
        true
    }
}

/// A number that an option takes; `otherwise` is what is replied when it is none.
pub(super) fn number(ctx: &mut Ctx<'_, '_>, i: usize, otherwise: &str) -> Option<i64> {
    let n = parse_i64(ctx.args[i]);
    if n.is_none() {
        ctx.reply.error(otherwise);
    }
    n
}
