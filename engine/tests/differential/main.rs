//! The engine beside a stock redis-server: the same commands, and every reply compared.
//!
//! Three sources of commands: `scripts/*.txt` (each reply matters), tables of numbers and arities
//! (`edges`), and seeded random sequences (`random`; `SEED=` replays one). All run over RESP2 and
//! RESP3. Replies are equal to the wire type; what is unordered is compared as a set, what is
//! random or reads the clock by its type and size. `TOLERATED` lists the accepted differences,
//! each with its reason. Without a redis-server the tests print that they were skipped.

#[path = "../support/mod.rs"]
mod support;

mod edges;
mod pair;
mod random;
mod script;

/// Lines (by their beginning) whose replies may differ, and why.
const TOLERATED: &[(&str, &str)] = &[
    ("OBJECT HELP", "lists the subcommands that exist here"),
    ("COMMAND INFO", "categories and key specifications differ between versions"),
    ("COMMAND GETKEYS PING", "as COMMAND GETKEYS GET"),
    ("COMMAND GETKEYS NOSUCH", "as COMMAND GETKEYS GET"),
    ("OBJECT REFCOUNT", "small integers are not shared here"),
    ("COMMAND GETKEYS GET", "the arity of a subcommand is checked by later versions first"),
    ("CLUSTER NODES", "an engine that may join a cluster at any time answers for itself"),
    ("CLUSTER INFO", "as CLUSTER NODES"),
    ("CLUSTER SLOTS", "as CLUSTER NODES"),
    ("CLUSTER KEYSLOT", "as CLUSTER NODES"),
    ("DEBUG SLEEP", "off by default"),
];

macro_rules! scripts {
    ($($name:ident: $file:literal;)*) => {$(
        #[test]
        fn $name() {
            script::run(include_str!(concat!("scripts/", $file, ".txt")));
        }
    )*};
}

scripts! {
    strings_reply_as_redis: "strings";
    keys_and_expiry_reply_as_redis: "keys";
    hashes_reply_as_redis: "hashes";
    lists_reply_as_redis: "lists";
    sets_reply_as_redis: "sets";
    sorted_sets_reply_as_redis: "zsets";
    transactions_reply_as_redis: "transactions";
    blocked_clients_are_served_as_by_redis: "blocking";
    subscribers_hear_as_from_redis: "pubsub";
    server_commands_reply_as_redis: "server";
    encodings_are_named_as_by_redis: "encodings";
}

#[test]
fn numbers_at_their_ends_reply_as_redis() {
    edges::numbers();
}

#[test]
fn wrong_arities_reply_as_redis() {
    edges::arities();
}

#[test]
fn random_strings_reply_as_redis() {
    random::run("strings", random::strings);
}

#[test]
fn random_hashes_reply_as_redis() {
    random::run("hashes", random::hashes);
}

#[test]
fn random_lists_reply_as_redis() {
    random::run("lists", random::lists);
}

#[test]
fn random_sets_reply_as_redis() {
    random::run("sets", random::sets);
}

#[test]
fn random_sorted_sets_reply_as_redis() {
    random::run("sorted sets", random::zsets);
}

#[test]
fn random_mixtures_reply_as_redis() {
    random::run("mixtures", random::mixture);
}
