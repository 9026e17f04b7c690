//! The mark that a managed primary writes into its journal when its epoch begins.

use super::{Command, Ctx, Group, Keys, flag};
use crate::managed::MARK;
use crate::memcached::forwarded;
use crate::moves::{functions, source};
use crate::persist;
use crate::session::After;
use crate::topology::Lineage;

pub const COMMANDS: &[Command] = &[
    Command::new(
        MARK,
        2,
        flag::WRITE | flag::ADMIN | flag::NOSCRIPT | flag::LOADING,
        Keys::None,
        Group::Cluster,
        "0.1.0",
        "Marks in the journal under which epoch it goes on; for members only.",
        mark,
    ),
    Command::new(
        "larder.move",
        3,
        flag::ADMIN | flag::NOSCRIPT | flag::NO_MULTI,
        Keys::None,
        Group::Cluster,
        "0.1.0",
        "Gives the slots of a move to the primary that they move to; for members only.",
        give,
    ),
    Command::new(
        "larder.as",
        2,
        flag::ADMIN | flag::NOSCRIPT | flag::NO_MULTI | flag::LOADING | flag::STALE,
        Keys::None,
        Group::Cluster,
        "0.1.0",
        "Makes the connection that of a user, for whom a member forwards requests; for members only.",
        become_user,
    ),
    Command::new(
        forwarded::NAME,
        4,
        flag::ADMIN | flag::NOSCRIPT | flag::NO_MULTI,
        Keys::FIRST,
        Group::Cluster,
        "0.1.0",
        "Runs a Memcached client's request that another member forwards; for members only.",
        run_by_the_executor,
    ),
];

/// `LARDER.MEMCACHED` takes the locks of its request by itself, so that it is run before any are taken.
fn run_by_the_executor(ctx: &mut Ctx<'_, '_>) {
    ctx.reply.error("ERR LARDER.MEMCACHED is for members only");
}

/// `LARDER.AS user`: who may do everything may be anybody.
fn become_user(ctx: &mut Ctx<'_, '_>) {
    let name = String::from_utf8_lossy(ctx.args[1]);
    match ctx.shared.acl.user(&name) {
        Some(user) => {
            ctx.shared.acl.become_user(ctx.session, user);
            ctx.reply.ok();
        }
        None => ctx.reply.error(&format!("ERR no user {name:?} at the slot's member")),
    }
}

/// `LARDER.MOVE id epoch`: the connection becomes the move's stream. `LARDER.MOVE FUNCTIONS bytes`: what comes before it.
fn give(ctx: &mut Ctx<'_, '_>) {
    if ctx.args[1].eq_ignore_ascii_case(functions::WORD) {
        let Some(bytes_max) = ctx.int_arg(2) else { return };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(0);
        return functions::give(ctx.shared, bytes_max, ctx.reply);
    }
    let (Some(id), Some(to_epoch)) = (ctx.int_arg(1), ctx.int_arg(2)) else { return };
    match source::begin(ctx.shared, id.max(0) as u64, to_epoch.max(0) as u64) {
        Ok(wanted) => {
            ctx.session.move_wanted = Some(wanted);
            ctx.session.after = After::Replica;
            ctx.reply.ok();
        }
        Err(why) => ctx.reply.error(&why),
    }
}

fn mark(ctx: &mut Ctx<'_, '_>) {
    if !ctx.session.from_primary {
        return ctx.reply.error("ERR LARDER.LINEAGE is written by members only");
    }
    match serde_json::from_slice::<Lineage>(ctx.args[1]) {
        Ok(lineage) => {
            let epoch = lineage.epoch;
            let is_new = persist::note_lineage(ctx.shared, Some(lineage));
            if let Some(engine) = ctx.shared.managed.get() {
                engine.marked(epoch);
            }
            if is_new && let Err(error) = persist::store_lineage(ctx.shared) {
                tracing::error!(%error, "cannot write the lineage beside the log");
            }
            ctx.reply.ok();
        }
        Err(_) => ctx.reply.error("ERR not a lineage"),
    }
}
