//! The mark that a managed primary writes into its journal when its epoch begins.

use super::{Command, Ctx, Group, Keys, flag};
use crate::managed::MARK;
use crate::persist;
use crate::topology::Lineage;

pub const COMMANDS: &[Command] = &[Command::new(
    MARK,
    2,
    flag::WRITE | flag::ADMIN | flag::NOSCRIPT | flag::LOADING,
    Keys::None,
    Group::Cluster,
    "0.1.0",
    "Marks in the journal under which epoch it goes on; for members only.",
    mark,
)];

fn mark(ctx: &mut Ctx<'_, '_>) {
    if !ctx.session.from_primary {
        return ctx.reply.error("ERR LARDER.LINEAGE is written by members only");
    }
    match serde_json::from_slice::<Lineage>(ctx.args[1]) {
        Ok(lineage) => {
            let epoch = lineage.epoch;
            if let Err(error) = persist::set_lineage(ctx.shared, Some(lineage)) {
                tracing::error!(%error, "cannot write the lineage");
            }
            if let Some(engine) = ctx.shared.managed.get() {
                engine.marked(epoch);
            }
            ctx.reply.ok();
        }
        Err(_) => ctx.reply.error("ERR not a lineage"),
    }
}
