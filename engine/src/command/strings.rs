//! String commands.

use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::Ttl;

pub const COMMANDS: &[Command] = &[
    Command::new(
        "get",
        2,
        flag::READONLY | flag::FAST,
        Keys::FIRST,
        Group::String,
        "1.0.0",
        "Returns the value of a key.",
        get,
    ),
    Command::new(
        "set",
        -3,
        flag::WRITE | flag::DENYOOM,
        Keys::FIRST,
        Group::String,
        "1.0.0",
        "Sets the value of a key.",
        set,
    ),
];

fn get(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.string(ctx.args[1]) {
        Ok(Some(value)) => ctx.reply.bulk(value),
        Ok(None) => ctx.reply.null(),
        Err(_) => ctx.reply.wrong_type(),
    }
}

fn set(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    ctx.db.set(key, ctx.args[2], Ttl::Clear);
    ctx.modified(key);
    ctx.reply.ok();
}
