//! Whom CLIENT PAUSE holds back, and a change of the shard's primary.

use crate::command::{Command, Keys, flag};
use crate::memcached::forwarded;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    Nobody,
    Writers,
    Everybody,
    /// The shard's primary changes: see `crate::hold`.
    Keyed,
    /// A script runs, and this loop stands still: see `busy_turn`.
    Script,
}

/// What says how the server is, or makes a connection ready for that, and needs nothing that a script may have.
fn answers_beside_a_script(command: &Command, args: &[&[u8]]) -> bool {
    let says = |words: &[&str]| {
        args.get(1).is_some_and(|a| words.iter().any(|w| a.eq_ignore_ascii_case(w.as_bytes())))
    };
    match command.name {
        "ping" | "echo" | "time" | "info" | "hello" | "auth" | "select" | "quit" => true,
        "client" => says(&["id", "getname", "setname", "setinfo"]),
        _ => false,
    }
}

impl Pause {
    pub(super) fn holds(self, command: Option<&'static Command>, args: &[&[u8]]) -> bool {
        // EXEC and scripts may write, and so may whoever publishes to replicas.
        let may_write = || {
            command.is_some_and(|c| {
                c.writes(args)
                    || c.is(flag::SCRIPT)
                    || matches!(c.name, "exec" | "publish" | "spublish" | forwarded::NAME)
            })
        };
        match self {
            Pause::Nobody => false,
            Pause::Writers => may_write(),
            Pause::Everybody => command.is_none_or(|c| c.name != "client"),
            Pause::Script => command.is_none_or(|c| !answers_beside_a_script(c, args)),
            // WAIT writes into the journal, to ask the replicas, and PUBLISH, to reach their listeners.
            Pause::Keyed => command.is_some_and(|c| {
                !matches!(c.keys, Keys::None)
                    || c.writes(args)
                    || matches!(c.name, "exec" | "wait" | "publish")
            }),
        }
    }
}
