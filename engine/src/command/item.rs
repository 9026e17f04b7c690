//! LARDER.ITEM: how the journal says what Memcached clients keep beside a value.
//!
//! ```text
//! LARDER.ITEM key flags state cas                      the value stays
//! LARDER.ITEM key flags state cas value unix-ms        a new value; 0: it does not expire
//! ```

use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::{Item, Ttl};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command::new("larder.item", -5, flag::WRITE | flag::DENYOOM, Keys::FIRST, Group::String, "0.1.0", "Sets a value with a Memcached client's flags, or its flags alone.", item),
];

fn item(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    if !matches!(ctx.args.len(), 5 | 7) {
        return ctx.wrong_arity();
    }
    let number =
        |i: usize| std::str::from_utf8(ctx.args[i]).ok().and_then(|text| text.parse::<u64>().ok());
    let narrow = |i: usize| number(i).and_then(|n| u32::try_from(n).ok());
    let (Some(flags), Some(state), Some(cas)) = (narrow(2), narrow(3), number(4)) else {
        return ctx.reply.not_an_integer();
    };
    let new = Item { flags, state: state & (Item::STALE | Item::TOKEN_SENT), cas };
    if ctx.args.len() == 5 {
        let found = ctx.db.mark_item(key, |item| *item = new);
        if found {
            ctx.modified(key);
        }
        return ctx.reply.int(i64::from(found));
    }
    let Some(at) = ctx.int_arg(6) else { return };
    match at {
        0 => ctx.db.set_item(key, ctx.args[5], Ttl::Clear, new),
        at if at <= ctx.db.now_ms() && !ctx.db.env.sees_expired => {
            ctx.db.remove(key);
            ctx.propagate(&[b"DEL", key]);
        }
        at => ctx.db.set_item(key, ctx.args[5], Ttl::At(at), new),
    }
    ctx.modified(key);
    ctx.reply.int(1);
}
