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
mod events;
mod pair;
mod random;
mod script;
mod table;

/// Texts within a line whose replies may differ, and why.
const TOLERATED: &[(&str, &str)] = &[
    ("OBJECT HELP", "lists the subcommands that exist here"),
    ("OBJECT REFCOUNT", "no integer is shared here"),
    ("INCRBYFLOAT n 1e309", "beyond a double, which is what every other processor computes with"),
    (
        "HINCRBYFLOAT h a 1e309",
        "beyond a double, which is what every other processor computes with",
    ),
    ("RANK -9223372036854775808", "later versions refuse the number without an opposite"),
    ("XSETID k", "later versions know what was deleted"),
    ("XSETID t 49", "later versions know what was deleted"),
    ("XREAD BLOCK 9223372036854775807", "later versions refuse a time that overflows"),
    ("ZRANK a a a", "later versions take WITHSCORE"),
    ("ZREVRANK a a a", "later versions take WITHSCORE"),
    ("PEXPIRE s 1", "over before the next command, or not"),
    ("PEXPIRE s 2", "over before the next command, or not"),
    ("PX 1", "over before the next command, or not"),
    ("PX 2", "over before the next command, or not"),
    ("PSETEX s 1", "over before the next command, or not"),
    ("PSETEX s 2", "over before the next command, or not"),
];

/// Replies that may stand for each other whatever the command: redis's, ours, and why.
const SAME: &[(&str, &str, &str)] = &[
    (
        "ERR timeout is negative",
        "ERR timeout is out of range",
        "a sum that overflows; later versions say so too",
    ),
    (
        "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
        "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified.",
        "the text of later versions",
    ),
    (
        "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
        "ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' must be specified.",
        "the text of later versions",
    ),
    (
        "UNBLOCKED the stream key no longer exists",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "later versions ask again what the client had asked",
    ),
    (
        "UNBLOCKED the stream key no longer exists",
        "NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option",
        "later versions ask again what the client had asked",
    ),
    (
        "NOGROUP the consumer group this client was blocked on no longer exists",
        "NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option",
        "later versions ask again what the client had asked",
    ),
    (
        "ERR wrong number of arguments for 'command|getkeys' command",
        "ERR The command has no key arguments",
        "later versions take a command of one word",
    ),
    (
        "ERR wrong number of arguments for 'command|getkeys' command",
        "ERR Invalid command specified",
        "later versions take a command of one word",
    ),
    (
        "ERR wrong number of arguments for 'command|getkeys' command",
        "ERR Invalid number of arguments specified for command",
        "later versions take a command of one word",
    ),
    (
        "ERR wrong number of arguments for 'command|getkeysandflags' command",
        "ERR The command has no key arguments",
        "later versions take a command of one word",
    ),
    (
        "ERR wrong number of arguments for 'command|getkeysandflags' command",
        "ERR Invalid command specified",
        "later versions take a command of one word",
    ),
    (
        "ERR wrong number of arguments for 'command|getkeysandflags' command",
        "ERR Invalid number of arguments specified for command",
        "later versions take a command of one word",
    ),
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
    subscribers_of_shard_channels_hear_as_from_redis: "shardpubsub";
    server_commands_reply_as_redis: "server";
    options_of_tracking_reply_as_redis: "tracking";
    streams_reply_as_redis: "streams";
    groups_of_consumers_reply_as_redis: "groups";
    hyperloglogs_reply_as_redis: "hll";
    places_reply_as_redis: "geo";
    bit_fields_reply_as_redis: "bitfield";
    encodings_are_named_as_by_redis: "encodings";
    users_are_refused_as_by_redis: "acl";
    scripts_reply_as_redis: "lua";
    libraries_of_scripts_reply_as_redis: "lua_libraries";
    functions_reply_as_redis: "functions";
    sums_of_data_are_those_of_redis: "digest";
}

#[test]
fn keyspace_events_are_those_of_redis() {
    events::run();
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
fn random_streams_reply_as_redis() {
    random::run("streams", random::streams);
}

#[test]
fn random_hyperloglogs_reply_as_redis() {
    random::run("hyperloglogs", random::hyperloglogs);
}

#[test]
fn random_places_reply_as_redis() {
    random::run("places", random::places);
}

#[test]
fn random_mixtures_reply_as_redis() {
    random::run("mixtures", random::mixture);
}

#[test]
fn the_table_of_commands_is_that_of_redis() {
    table::compare();
}

#[test]
fn categories_of_commands_are_those_of_redis() {
    table::compare_categories();
}

#[test]
fn commands_need_the_same_rights_on_their_keys_as_in_redis() {
    table::compare_needs();
}

#[test]
fn arguments_are_told_as_in_redis() {
    table::compare_arguments();
}
