//! Whom CLIENT PAUSE holds back.

use crate::command::{Command, flag};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    Nobody,
    Writers,
    Everybody,
}

impl Pause {
    pub(super) fn holds(self, command: Option<&'static Command>) -> bool {
        // EXEC may write, and so may whoever publishes to replicas.
        let may_write = || {
            command.is_some_and(|c| c.is(flag::WRITE) || c.name == "exec" || c.name == "publish")
        };
        match self {
            Pause::Nobody => false,
            Pause::Writers => may_write(),
            Pause::Everybody => command.is_none_or(|c| c.name != "client"),
        }
    }
}
