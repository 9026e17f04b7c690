//! Connection commands: PING, ECHO, HELLO, AUTH, SELECT, RESET, QUIT, CLIENT.

use super::{Command, Ctx, Group, Keys, flag};

pub const COMMANDS: &[Command] = &[Command::new(
    "ping",
    -1,
    flag::FAST | flag::LOADING | flag::STALE | flag::IN_SUBSCRIBE,
    Keys::None,
    Group::Connection,
    "1.0.0",
    "Answers PONG, or the message.",
    ping,
)];

fn ping(ctx: &mut Ctx<'_, '_>) {
    if ctx.args.len() > 2 {
        ctx.wrong_arity();
        return;
    }
    let message = ctx.args.get(1).copied();
    if ctx.session.in_subscribe_mode() {
        ctx.reply.array(2);
        ctx.reply.bulk(b"pong");
        ctx.reply.bulk(message.unwrap_or_default());
        return;
    }
    match message {
        Some(message) => ctx.reply.bulk(message),
        None => ctx.reply.simple("PONG"),
    }
}
