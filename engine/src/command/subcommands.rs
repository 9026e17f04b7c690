//! Subcommands as COMMAND shows them: arity, flags, since when, and what they do.
//!
//! What they may be run by and on which keys stands elsewhere: `categories` and `specs`.

use super::Command;

/// A subcommand; its arity counts the command's name too.
pub struct Row {
    pub name: &'static str,
    pub arity: i64,
    /// By their names, with blanks between them.
    pub flags: &'static str,
    pub since: &'static str,
    pub summary: &'static str,
}

const fn row(
    name: &'static str,
    arity: i64,
    flags: &'static str,
    since: &'static str,
    summary: &'static str,
) -> Row {
    Row { name, arity, flags, since, summary }
}

#[rustfmt::skip]
const ROWS: &[(&str, &[Row])] = &[
    ("acl", &[
        row("cat", -2, "noscript loading stale", "6.0.0", "Lists the categories, or the commands of one."),
        row("deluser", -3, "admin noscript loading stale", "6.0.0", "Deletes users and closes their connections."),
        row("dryrun", -4, "admin noscript loading stale", "7.0.0", "Tells whether a user may run a command, without running it."),
        row("genpass", -2, "noscript loading stale", "6.0.0", "Makes a random password."),
        row("getuser", 3, "admin noscript loading stale", "6.0.0", "Shows a user's passwords and rules."),
        row("help", 2, "loading stale", "6.0.0", "Shows the subcommands."),
        row("list", 2, "admin noscript loading stale", "6.0.0", "Shows all users as lines of rules."),
        row("load", 2, "admin noscript loading stale", "6.0.0", "Reads the users from the ACL file."),
        row("log", -2, "admin noscript loading stale", "6.0.0", "Shows who was refused what."),
        row("save", 2, "admin noscript loading stale", "6.0.0", "Writes the users to the ACL file."),
        row("setuser", -3, "admin noscript loading stale", "6.0.0", "Makes a user or changes its rules."),
        row("users", 2, "admin noscript loading stale", "6.0.0", "Lists the names of all users."),
        row("whoami", 2, "noscript loading stale", "6.0.0", "Names the user of the connection."),
    ]),
    ("client", &[
        row("caching", 3, "noscript loading stale", "6.0.0", "Says whether the keys of the next request are tracked."),
        row("capa", -3, "noscript loading stale", "8.0.0", "Says what the client understands beyond the protocol."),
        row("getname", 2, "noscript loading stale", "2.6.9", "Returns the name of the connection."),
        row("getredir", 2, "noscript loading stale", "6.0.0", "Returns the connection that invalidations are sent to."),
        row("help", 2, "loading stale", "5.0.0", "Shows the subcommands."),
        row("id", 2, "noscript loading stale", "5.0.0", "Returns the number of the connection."),
        row("import-source", 3, "noscript loading stale", "8.1.0", "Marks a connection that imports data."),
        row("info", 2, "noscript loading stale", "6.2.0", "Shows the connection in a readable line."),
        row("kill", -3, "admin noscript loading stale", "2.4.0", "Closes connections."),
        row("list", -2, "admin noscript loading stale", "2.4.0", "Shows connections in readable lines."),
        row("maint_notifications", -3, "noscript loading stale", "8.4.0", "Asks to be told of changes that are about to come."),
        row("no-evict", 3, "admin noscript loading stale", "7.0.0", "Keeps the connection when clients use too much memory."),
        row("no-touch", 3, "noscript loading stale", "7.2.0", "Lets reads leave the access times of keys alone."),
        row("pause", -3, "admin noscript loading stale", "3.0.0", "Holds clients back for a while."),
        row("reply", 3, "noscript loading stale", "3.2.0", "Says whether replies are sent."),
        row("setinfo", 4, "noscript loading stale", "7.2.0", "Says which library made the connection."),
        row("setname", 3, "noscript loading stale", "2.6.9", "Names the connection."),
        row("tracking", -3, "noscript loading stale", "6.0.0", "Begins or ends that the client is told when keys change."),
        row("trackinginfo", 2, "noscript loading stale", "6.2.0", "Shows how the connection tracks keys."),
        row("unblock", -3, "admin noscript loading stale", "5.0.0", "Ends the wait of a blocked client."),
        row("unpause", 2, "admin noscript loading stale", "6.2.0", "Lets paused clients go on."),
    ]),
    ("cluster", &[
        row("addslots", -3, "admin stale", "3.0.0", "Gives slots to this primary."),
        row("addslotsrange", -4, "admin stale", "7.0.0", "Gives ranges of slots to this primary."),
        row("bumpepoch", 2, "admin stale", "3.0.0", "Raises the epoch of this primary."),
        row("cancelslotmigrations", 2, "admin stale", "9.0.0", "Ends the moves of slots that are under way."),
        row("count-failure-reports", 3, "admin stale", "3.0.0", "Counts who reports that a member has failed."),
        row("countkeysinslot", 3, "stale", "3.0.0", "Counts the keys of a slot."),
        row("delslots", -3, "admin stale", "3.0.0", "Takes slots from their owners."),
        row("delslotsrange", -4, "admin stale", "7.0.0", "Takes ranges of slots from their owners."),
        row("failover", -2, "admin stale", "3.0.0", "Makes this replica the primary of its shard."),
        row("flushslot", -3, "write admin", "9.0.0", "Deletes all keys of a slot."),
        row("flushslots", 2, "admin stale", "3.0.0", "Takes all slots from this primary."),
        row("forget", 3, "admin stale", "3.0.0", "Removes a member from the cluster."),
        row("getkeysinslot", 4, "stale", "3.0.0", "Returns keys of a slot."),
        row("getslotmigrations", 2, "admin stale", "9.0.0", "Shows moves of slots."),
        row("help", 2, "loading stale", "5.0.0", "Shows the subcommands."),
        row("info", 2, "loading stale", "3.0.0", "Shows the state of the cluster."),
        row("keyslot", 3, "stale", "3.0.0", "Returns the slot of a key."),
        row("links", 2, "stale", "7.0.0", "Shows the connections between this member and others."),
        row("meet", -4, "admin stale", "3.0.0", "Joins this member and another to one cluster."),
        row("migrateslots", -4, "admin stale", "9.0.0", "Moves slots to another primary."),
        row("myid", 2, "loading stale", "3.0.0", "Returns the ID of this member."),
        row("myshardid", 2, "loading stale", "7.2.0", "Returns the ID of this member's shard."),
        row("nodes", 2, "loading stale", "3.0.0", "Shows all members in readable lines."),
        row("replicas", 3, "admin stale", "5.0.0", "Shows the replicas of a primary."),
        row("replicate", 3, "admin stale", "3.0.0", "Makes this member a replica of a primary."),
        row("reset", -2, "admin noscript stale", "3.0.0", "Takes this member out of its cluster."),
        row("saveconfig", 2, "admin stale", "3.0.0", "Saves what this member knows of the cluster."),
        row("set-config-epoch", 3, "admin stale", "3.0.0", "Sets the epoch of a new member."),
        row("setslot", -4, "admin stale", "3.0.0", "Says who owns a slot, or who it moves to."),
        row("shards", 2, "loading stale", "7.0.0", "Shows shards with their slots and members."),
        row("slaves", 3, "admin stale", "3.0.0", "Shows the replicas of a primary (old name)."),
        row("slot-stats", -4, "loading stale", "8.0.0", "Shows figures of the slots of this member."),
        row("slots", 2, "loading stale", "3.0.0", "Shows which members serve which slots."),
    ]),
    ("command", &[
        row("count", 2, "loading stale", "2.8.13", "Counts the commands."),
        row("docs", -2, "loading stale", "7.0.0", "Tells what commands do."),
        row("getkeys", -3, "loading stale", "2.8.13", "Returns the keys of a command line."),
        row("getkeysandflags", -3, "loading stale", "7.0.0", "Returns the keys of a command line and what is done to them."),
        row("help", 2, "loading stale", "5.0.0", "Shows the subcommands."),
        row("info", -2, "loading stale", "2.8.13", "Shows rows of the table of commands."),
        row("list", -2, "loading stale", "7.0.0", "Lists the names of commands."),
    ]),
    ("commandlog", &[
        row("get", 4, "admin loading stale", "8.1.0", "Returns entries of a log of commands."),
        row("help", 2, "loading stale", "8.1.0", "Shows the subcommands."),
        row("len", 3, "admin loading stale", "8.1.0", "Counts the entries of a log of commands."),
        row("reset", 3, "admin loading stale", "8.1.0", "Empties a log of commands."),
    ]),
    ("config", &[
        row("get", -3, "admin noscript loading stale", "2.0.0", "Returns settings."),
        row("help", 2, "loading stale", "5.0.0", "Shows the subcommands."),
        row("resetstat", 2, "admin noscript loading stale", "2.0.0", "Sets counters to zero."),
        row("rewrite", 2, "admin noscript loading stale", "2.8.0", "Writes the settings to the configuration file."),
        row("set", -4, "admin noscript loading stale", "2.0.0", "Changes settings."),
    ]),
    ("function", &[
        row("delete", 3, "write noscript", "7.0.0", "Deletes a library."),
        row("dump", 2, "noscript", "7.0.0", "Returns all libraries as bytes."),
        row("flush", -2, "write noscript", "7.0.0", "Deletes all libraries."),
        row("help", 2, "loading stale", "7.0.0", "Shows the subcommands."),
        row("kill", 2, "noscript", "7.0.0", "Ends a function that only reads."),
        row("list", -2, "noscript", "7.0.0", "Lists libraries and their functions."),
        row("load", -3, "write denyoom noscript", "7.0.0", "Makes a library."),
        row("restore", -3, "write denyoom noscript", "7.0.0", "Makes libraries from the bytes of FUNCTION DUMP."),
        row("stats", 2, "noscript", "7.0.0", "Shows the function that runs."),
    ]),
    ("latency", &[
        row("doctor", 2, "admin noscript loading stale", "2.8.13", "Shows spikes in readable words."),
        row("graph", 3, "admin noscript loading stale", "2.8.13", "Draws the spikes of an event."),
        row("help", 2, "loading stale", "2.8.13", "Shows the subcommands."),
        row("histogram", -2, "admin noscript loading stale", "7.0.0", "Shows how many calls took how long."),
        row("history", 3, "admin noscript loading stale", "2.8.13", "Returns the spikes of an event."),
        row("latest", 2, "admin noscript loading stale", "2.8.13", "Returns the last spike of each event."),
        row("reset", -2, "admin noscript loading stale", "2.8.13", "Forgets spikes."),
    ]),
    ("memory", &[
        row("doctor", 2, "", "4.0.0", "Tells what is unusual about the memory in use."),
        row("help", 2, "loading stale", "4.0.0", "Shows the subcommands."),
        row("malloc-stats", 2, "loading", "4.0.0", "Shows figures of the allocator."),
        row("purge", 2, "loading", "4.0.0", "Asks the allocator to give memory back."),
        row("stats", 2, "", "4.0.0", "Shows what memory is used for."),
        row("usage", -3, "readonly", "4.0.0", "Returns the bytes of a key and its value."),
    ]),
    ("module", &[
        row("help", 2, "loading stale", "5.0.0", "Shows the subcommands."),
        row("list", 2, "admin noscript", "4.0.0", "Lists loaded modules."),
        row("load", -3, "admin noscript", "4.0.0", "Refused: there are no modules."),
        row("loadex", -3, "admin noscript", "7.0.0", "Refused: there are no modules."),
        row("unload", 3, "admin noscript", "4.0.0", "Refused: there are no modules."),
    ]),
    ("object", &[
        row("encoding", 3, "readonly", "2.2.3", "Names how a value is held."),
        row("freq", 3, "readonly", "4.0.0", "Returns how often a key was used."),
        row("help", 2, "loading stale", "6.2.0", "Shows the subcommands."),
        row("idletime", 3, "readonly", "2.2.3", "Returns how long a key was not used."),
        row("refcount", 3, "readonly", "2.2.3", "Returns how often a value is shared."),
    ]),
    ("pubsub", &[
        row("channels", -2, "pubsub loading stale", "2.8.0", "Lists channels that somebody listens to."),
        row("help", 2, "loading stale", "6.2.0", "Shows the subcommands."),
        row("numpat", 2, "pubsub loading stale", "2.8.0", "Counts patterns."),
        row("numsub", -2, "pubsub loading stale", "2.8.0", "Counts the listeners of channels."),
        row("shardchannels", -2, "pubsub loading stale", "7.0.0", "Lists shard channels that somebody listens to."),
        row("shardnumsub", -2, "pubsub loading stale", "7.0.0", "Counts the listeners of shard channels."),
    ]),
    ("script", &[
        row("debug", 3, "noscript", "3.2.0", "Refused: scripts have no debugger here."),
        row("exists", -3, "noscript stale", "2.6.0", "Tells which scripts are cached."),
        row("flush", -2, "noscript stale", "2.6.0", "Forgets all cached scripts."),
        row("help", 2, "loading stale", "5.0.0", "Shows the subcommands."),
        row("kill", 2, "noscript", "2.6.0", "Ends a script that only reads."),
        row("load", 3, "noscript stale", "2.6.0", "Caches a script."),
        row("show", 3, "noscript stale", "8.0.0", "Returns a cached script."),
    ]),
    ("slowlog", &[
        row("get", -2, "admin loading stale", "2.2.12", "Returns entries of the slow log."),
        row("help", 2, "loading stale", "6.2.0", "Shows the subcommands."),
        row("len", 2, "admin loading stale", "2.2.12", "Counts the entries of the slow log."),
        row("reset", 2, "admin loading stale", "2.2.12", "Empties the slow log."),
    ]),
    ("xgroup", &[
        row("create", -5, "write denyoom", "5.0.0", "Makes a group of consumers."),
        row("createconsumer", 5, "write denyoom", "6.2.0", "Makes a consumer."),
        row("delconsumer", 5, "write", "5.0.0", "Deletes a consumer."),
        row("destroy", 4, "write", "5.0.0", "Deletes a group."),
        row("help", 2, "loading stale", "5.0.0", "Shows the subcommands."),
        row("setid", -5, "write", "5.0.0", "Sets the last ID that a group was given."),
    ]),
    ("xinfo", &[
        row("consumers", 4, "readonly", "5.0.0", "Lists the consumers of a group."),
        row("groups", 3, "readonly", "5.0.0", "Lists the groups of a stream."),
        row("help", 2, "loading stale", "5.0.0", "Shows the subcommands."),
        row("stream", -3, "readonly", "5.0.0", "Shows a stream."),
    ]),
];

/// The subcommands of a command; none of most.
pub fn of(command: &Command) -> &'static [Row] {
    let found = ROWS.iter().find(|(name, _)| *name == command.name);
    found.map_or(&[], |(_, rows)| rows)
}

#[cfg(test)]
mod tests {
    use super::super::{categories, find};
    use super::*;

    #[test]
    fn every_subcommand_has_rights_of_its_own() {
        for (container, rows) in ROWS {
            let command = find(container.as_bytes()).unwrap();
            let known: Vec<_> = categories::subs(command).iter().map(|sub| sub.name).collect();
            for row in *rows {
                assert!(known.contains(&row.name), "{container}|{}", row.name);
                assert!(row.arity.unsigned_abs() >= 2, "{container}|{}", row.name);
            }
        }
    }
}
