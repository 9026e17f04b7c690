//! XDELEX and XACKDEL, and trimming with a say in what becomes of references: `KEEPREF`, `DELREF` or `ACKED`.
//!
//! The journal gets what was done in the words of XDEL, XTRIM and XACK, which every replica knows.

use super::super::Ctx;
use super::{args, exact_trim};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::number::parse_i64;
use crate::types::stream::{Dropped, Refs, Trim};
use crate::types::{Stream, StreamId};

/// IDs in one request of the journal.
const IDS_PER_REQUEST: usize = 256;

/// What a client is replied of each ID.
const MISSING: i64 = -1;
const GONE: i64 = 1;
const STAYS: i64 = 2;

/// The choice that a word names.
pub(super) fn refs(ctx: &Ctx<'_, '_>, i: usize) -> Option<Refs> {
    let words = [("keepref", Refs::Keep), ("delref", Refs::Drop), ("acked", Refs::Respect)];
    words.into_iter().find(|(word, _)| ctx.is_word(i, word)).map(|(_, refs)| refs)
}

/// `[KEEPREF|DELREF|ACKED] IDS count id ...`, in any order: the choice, and where the IDs are. The error is already replied
/// when there is none.
fn options(ctx: &mut Ctx<'_, '_>, from: usize) -> Option<(Refs, std::ops::Range<usize>)> {
    let (mut chosen, mut ids) = (None, None);
    let mut i = from;
    while i < ctx.args.len() {
        if let Some(refs) = refs(ctx, i).filter(|_| chosen.is_none()) {
            chosen = Some(refs);
            i += 1;
        } else if ids.is_none() && ctx.is_word(i, "ids") && i + 1 < ctx.args.len() {
            let count = parse_i64(ctx.args[i + 1]).and_then(|n| usize::try_from(n).ok());
            let Some(count) = count.filter(|n| *n > 0) else {
                ctx.reply.error("ERR Number of IDs must be a positive integer");
                return None;
            };
            let begin = i + 2;
            if count > ctx.args.len() - begin {
                let why = "ERR The `numids` parameter must match the number of arguments";
                ctx.reply.error(why);
                return None;
            }
            ids = Some(begin..begin + count);
            i = begin + count;
        } else {
            ctx.reply.syntax_error();
            return None;
        }
    }
    if ids.is_none() {
        ctx.reply.syntax_error();
    }
    ids.map(|ids| (chosen.unwrap_or_default(), ids))
}

/// What was done, for the journal.
#[derive(Default)]
struct Done {
    replies: Vec<i64>,
    deleted: Vec<StreamId>,
    dropped: Dropped,
    acknowledged: Vec<StreamId>,
}

/// Deletes an entry as chosen; gives what is replied where it was there, and whether it was.
fn delete(stream: &mut Stream, id: StreamId, refs: Refs, done: &mut Done) -> (i64, bool) {
    match refs {
        Refs::Respect if stream.is_referenced(id) => return (STAYS, true),
        Refs::Drop => {
            for (name, mut ids) in stream.drop_refs(&[id]) {
                match done.dropped.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => known.append(&mut ids),
                    None => done.dropped.push((name, ids)),
                }
            }
        }
        Refs::Keep | Refs::Respect => {}
    }
    let was_there = stream.log_mut().delete(id);
    if was_there {
        done.deleted.push(id);
    }
    (GONE, was_there)
}

/// The IDs of a stream that is there; the reply is made already when there are none.
fn ids(ctx: &mut Ctx<'_, '_>, at: std::ops::Range<usize>) -> Option<Vec<StreamId>> {
    match ctx.db.read::<Stream>(ctx.args[1]) {
        Err(WrongType) => {
            ctx.reply.wrong_type();
            None
        }
        Ok(None) => {
            ctx.reply.array(at.len());
            at.for_each(|_| ctx.reply.int(MISSING));
            None
        }
        Ok(Some(_)) => at.map(|i| args::id(ctx, i, 0)).collect(),
    }
}

/// `XDELEX key [KEEPREF|DELREF|ACKED] IDS count id ...`
pub(super) fn xdelex(ctx: &mut Ctx<'_, '_>) {
    let Some((refs, at)) = options(ctx, 2) else { return };
    let Some(ids) = ids(ctx, at) else { return };
    let done = ctx.db.update::<Stream, _>(ctx.args[1], |stream, _| {
        let mut done = Done::default();
        for id in ids {
            let (reply, was_there) = delete(stream, id, refs, &mut done);
            done.replies.push(if was_there { reply } else { MISSING });
        }
        done
    });
    tell(ctx, done.ok().flatten().unwrap_or_default(), b"");
}

/// `XACKDEL key group [KEEPREF|DELREF|ACKED] IDS count id ...`: acknowledges, and deletes what was pending.
pub(super) fn xackdel(ctx: &mut Ctx<'_, '_>) {
    let Some((refs, at)) = options(ctx, 3) else { return };
    let Some(ids) = ids(ctx, at) else { return };
    let name = ctx.args[2];
    let done = ctx.db.update::<Stream, _>(ctx.args[1], |stream, _| {
        let mut done = Done::default();
        for id in ids {
            let was_pending = stream.change_group(name, |_, group| group.acknowledge(id));
            if was_pending != Some(true) {
                done.replies.push(MISSING);
                continue;
            }
            done.acknowledged.push(id);
            let (reply, _) = delete(stream, id, refs, &mut done);
            done.replies.push(reply);
        }
        done
    });
    tell(ctx, done.ok().flatten().unwrap_or_default(), name);
}

fn tell(ctx: &mut Ctx<'_, '_>, done: Done, group: &[u8]) {
    let key = ctx.args[1];
    ctx.reply.array(done.replies.len());
    done.replies.iter().for_each(|reply| ctx.reply.int(*reply));
    if !done.deleted.is_empty() {
        ctx.modified_to(key, class::STREAM, "xdel");
    }
    journal_ids(ctx, &[b"XACK", key, group], &done.acknowledged);
    journal_dropped(ctx, &done.dropped);
    journal_ids(ctx, &[b"XDEL", key], &done.deleted);
}

/// A request for so many of the IDs each; nothing waits for what is only acknowledged.
fn journal_ids(ctx: &mut Ctx<'_, '_>, head: &[&[u8]], ids: &[StreamId]) {
    for some in ids.chunks(IDS_PER_REQUEST) {
        let texts: Vec<_> = some.iter().map(|id| id.text()).collect();
        let mut request = head.to_vec();
        request.extend(texts.iter().map(|text| &text[..]));
        ctx.dirty += 1;
        ctx.propagate(&request);
    }
}

fn journal_dropped(ctx: &mut Ctx<'_, '_>, dropped: &Dropped) {
    for (group, ids) in dropped {
        journal_ids(ctx, &[b"XACK", ctx.args[1], group], ids);
    }
}

/// What a trim has done: how many entries went, and how it is done again.
pub(super) struct Cut {
    pub(super) gone: u64,
    /// The word, the sign and what is left; none where single entries went.
    pub(super) left: Option<[Vec<u8>; 3]>,
    deleted: Vec<StreamId>,
    dropped: Dropped,
}

impl Cut {
    pub(super) fn make(stream: &mut Stream, trim: &Trim, refs: Refs) -> Cut {
        let (mut deleted, mut dropped) = (Vec::new(), Dropped::new());
        let gone = match refs {
            Refs::Keep => stream.log_mut().trim(*trim),
            Refs::Drop => {
                let (gone, refs) = stream.trim_with_refs(*trim);
                dropped = refs;
                gone
            }
            Refs::Respect => {
                deleted = stream.trim_unreferenced(*trim);
                deleted.len() as u64
            }
        };
        let left = (refs != Refs::Respect).then(|| exact_trim(stream, trim));
        Cut { gone, left, deleted, dropped }
    }

    /// What stands behind the trim, or in its place.
    pub(super) fn journal_rest(&self, ctx: &mut Ctx<'_, '_>) {
        journal_ids(ctx, &[b"XDEL", ctx.args[1]], &self.deleted);
        journal_dropped(ctx, &self.dropped);
    }
}
