//! A request that another member forwards: run here, where its key is, as this member's own port would run it.

use super::client::Client;
use super::run::{Protocol, Step};
use crate::command::Command;
use crate::command::exec::Executor;
use crate::resp::Reply;
use crate::server::Shared;
use crate::session::Session;

/// `LARDER.MEMCACHED key user request`. The key stands apart, so that it is held, routed and checked as any key is.
pub const NAME: &str = "larder.memcached";

/// Runs one whole request of that key, and gives what its client is to be sent. It has the rights of the session, and is
/// refused where its user might not log in.
pub fn run(executor: &mut Executor<'_>, session: &mut Session, reply: &mut Reply, args: &[&[u8]]) {
    let [_, key, user, request] = args else { return };
    let shared = executor.shared;
    let user = String::from_utf8_lossy(user);
    if !may_log_in(shared, &user) {
        return reply.error(&format!(
            "NOPERM no Memcached client may be the user {user:?} at the slot's member"
        ));
    }
    let (item_size_max, reply_bytes_max) = {
        let hot = shared.config.hot();
        (hot.item_size_max, hot.reply_bytes_max)
    };
    let mut said = Reply::new(Vec::new(), false).within(reply_bytes_max);
    // One of another key has not been held and routed.
    let holds = |_: &'static Command, of: &[u8]| of != *key;
    let mut client = Client {
        executor,
        session,
        reply: &mut said,
        holds: &holds,
        item_size_max,
        large: (usize::MAX, usize::MAX),
        refused: None,
    };
    let (mut protocol, mut at) = (Protocol::default(), 0);
    while at < request.len() {
        match protocol.step(&mut client, request, at) {
            Step::Done(end) if end > at => at = end,
            Step::Done(_) | Step::Need | Step::Held(_) | Step::Close(_) => {
                return reply.error("ERR this is no whole Memcached request of this key");
            }
        }
    }
    if let Some(error) = client.refused {
        return reply.error(&error);
    }
    if said.over {
        return reply.error("ERR the reply is larger than a client's output buffer may be");
    }
    reply.bulk(&said.out);
}

fn may_log_in(shared: &Shared, user: &str) -> bool {
    let (acl, memcached) = (&shared.acl, &shared.memcached);
    memcached.users.has(user)
        || acl.user(user).is_some_and(|user| user.is_unrestricted())
        || memcached.is_open(acl)
}
