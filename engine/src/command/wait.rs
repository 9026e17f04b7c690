//! WAIT and WAITAOF: a client is told when its writes are on replicas, or on disks.

use std::sync::atomic::Ordering;

use super::{Command, Ctx, Group, Keys, flag};
use crate::resp::Reply;
use crate::server::Shared;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("wait", 3, flag::NOSCRIPT, Keys::None, Group::Generic, "3.0.0", "Waits until replicas have acknowledged the client's writes.", wait),
    Command::new("waitaof", 4, flag::NOSCRIPT, Keys::None, Group::Generic, "7.2.0", "Waits until the client's writes are synced to this server's disk and to replicas' disks.", waitaof),
];

const NO_LOG: &str = "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";

/// What a blocked client waits for.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    what: What,
    replicas: u32,
    /// Journal offset behind the client's last write.
    offset: u64,
    /// Unix milliseconds; 0: for ever.
    pub deadline_ms: i64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Memory,
    /// `local`: on the disk of this server, too.
    Disks {
        local: bool,
    },
}

impl Wait {
    /// Writes the reply if what is waited for has come about, or the time is over.
    pub fn reply(&self, shared: &Shared, now_ms: i64, reply: &mut Reply) -> bool {
        let is_over = self.deadline_ms > 0 && now_ms >= self.deadline_ms;
        self.reply_if(shared, is_over, reply)
    }

    /// Writes the reply with what has come about so far.
    pub fn cut(&self, shared: &Shared, reply: &mut Reply) {
        self.reply_if(shared, true, reply);
    }

    fn reply_if(&self, shared: &Shared, is_over: bool, reply: &mut Reply) -> bool {
        match self.what {
            What::Memory => {
                let replicas = shared.replicas_at(self.offset);
                let is_done = is_over || replicas >= self.replicas;
                if is_done {
                    reply.int(i64::from(replicas));
                }
                is_done
            }
            // The log was switched off meanwhile: this will never come about.
            What::Disks { local: true } if shared.persist.aof().is_none() => {
                reply.error(NO_LOG);
                true
            }
            What::Disks { local } => {
                let here = is_synced(shared, self.offset);
                let replicas = shared.replicas_synced_at(self.offset);
                let is_done = is_over || (here || !local) && replicas >= self.replicas;
                if is_done {
                    reply.array(2);
                    reply.int(i64::from(here));
                    reply.int(i64::from(replicas));
                }
                is_done
            }
        }
    }
}

/// The log is on disk up to an offset.
fn is_synced(shared: &Shared, offset: u64) -> bool {
    shared.persist.aof().is_some() && shared.state.durable_offset.load(Ordering::Acquire) >= offset
}

fn wait(ctx: &mut Ctx<'_, '_>) {
    // One after the other: two bad numbers are still one error reply.
    let Some(replicas) = ctx.int_arg(1) else { return };
    let Some(timeout) = timeout(ctx, 2) else { return };
    if ctx.shared.state.is_replica.load(Ordering::Acquire) {
        ctx.reply.error(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a \
             replica is configured to be writable (which is not the default) writes to replicas are just \
             local and are not propagated.",
        );
        return;
    }
    begin(ctx, What::Memory, replicas, timeout);
}

fn waitaof(ctx: &mut Ctx<'_, '_>) {
    let Some(local) = ctx.int_arg(1) else { return };
    if !(0..=1).contains(&local) {
        ctx.reply.error("ERR value is out of range, value must between 0 and 1");
        return;
    }
    let replicas = match crate::number::parse_i64(ctx.args[2]) {
        Some(replicas) if replicas >= 0 => replicas,
        _ => {
            ctx.reply.error("ERR value is out of range, must be positive");
            return;
        }
    };
    let Some(timeout) = timeout(ctx, 3) else { return };
    if ctx.shared.state.is_replica.load(Ordering::Acquire) {
        ctx.reply.error(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas \
             are just local and are not propagated.",
        );
        return;
    }
    begin(ctx, What::Disks { local: local == 1 }, replicas, timeout);
}

/// Milliseconds that the client is ready to wait; 0: for ever.
fn timeout(ctx: &mut Ctx<'_, '_>, at: usize) -> Option<i64> {
    match crate::number::parse_i64(ctx.args[at]) {
        None => ctx.reply.error("ERR timeout is not an integer or out of range"),
        Some(timeout) if timeout < 0 => ctx.reply.error("ERR timeout is negative"),
        Some(timeout) => return Some(timeout),
    }
    None
}

/// Replies at once if there is nothing to wait for, or this client may not wait; else it is blocked.
fn begin(ctx: &mut Ctx<'_, '_>, what: What, replicas: i64, timeout: i64) {
    let deadline_ms = if timeout == 0 { 0 } else { ctx.db.now_ms().saturating_add(timeout) };
    let replicas = replicas.clamp(0, i64::from(u32::MAX)) as u32;
    let wait = Wait { what, replicas, offset: ctx.session.last_write, deadline_ms };
    let may_not_wait = ctx.in_exec || ctx.session.from_primary;
    if wait.reply_if(ctx.shared, may_not_wait, ctx.reply) {
        return;
    }
    ctx.session.wait = Some(wait);
    ctx.shared.ask_for_acks();
}
