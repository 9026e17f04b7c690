//! COMMAND beside COMMAND: what clients route and retry by.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Server, Value};

/// Flags that both servers print; the others belong to features of one of them.
const FLAGS: &[&str] = &[
    "write",
    "readonly",
    "denyoom",
    "admin",
    "pubsub",
    "noscript",
    "blocking",
    "loading",
    "stale",
    "fast",
    "no_auth",
    "no_multi",
    "movablekeys",
];

/// Commands of other categories here, and why.
const OTHER_CATEGORIES: &[(&str, &str)] =
    &[("wait", "later versions say that it blocks"), ("waitaof", "later versions only")];

/// Commands of which no key is looked at there when their arguments make no sense; here those that are known are.
const UNCHECKED_THERE: &[&str] = &["pfmerge", "zdiffstore", "zinterstore", "zunionstore"];

/// Rows that differ, and why.
const TOLERATED: &[(&str, &str)] = &[
    ("acl", "its flags are those of its subcommands there"),
    ("client", "its flags are those of its subcommands there"),
    ("cluster", "its flags are those of its subcommands there"),
    ("config", "its flags are those of its subcommands there"),
    ("function", "its flags are those of its subcommands there"),
    ("latency", "its flags are those of its subcommands there"),
    ("memory", "its flags and its key are those of its subcommands there"),
    ("module", "its flags are those of its subcommands there"),
    ("object", "its flags and its key are those of its subcommands there"),
    ("pubsub", "its flags are those of its subcommands there"),
    ("script", "its flags are those of its subcommands there"),
    ("slowlog", "its flags are those of its subcommands there"),
    ("xgroup", "its flags and its key are those of its subcommands there"),
    ("xinfo", "its flags and its key are those of its subcommands there"),
    ("debug", "its subcommands with a key say so here"),
    ("dbsize", "not fast here: the counts of all slots are summed up"),
    ("readonly", "takes a bound of how stale a replica may be here"),
    ("zrank", "later versions take WITHSCORE"),
    ("zrevrank", "later versions take WITHSCORE"),
];

/// Subcommands that differ, and why.
const TOLERATED_SUBS: &[(&str, &str)] = &[
    ("cluster|info", "later versions: while loading too"),
    ("cluster|myid", "later versions: while loading too"),
    ("cluster|nodes", "later versions: while loading too"),
    ("cluster|shards", "later versions: while loading too"),
    ("cluster|slots", "later versions: while loading too"),
    ("command|getkeys", "later versions take a command of one word"),
    ("command|getkeysandflags", "later versions take a command of one word"),
    ("memory|malloc-stats", "later versions: while loading too"),
    ("memory|purge", "later versions: while loading too"),
    ("script|exists", "later versions: on a replica without its primary too"),
    ("script|flush", "later versions: on a replica without its primary too"),
];

/// Key specifications that differ, and why.
const OTHER_KEYS: &[(&str, &str)] = &[
    ("georadius", "later versions know that STORE has two forms"),
    ("georadiusbymember", "later versions know that STORE has two forms"),
    ("sinterstore", "later versions know that it only writes"),
];

#[derive(Debug, PartialEq, Eq)]
struct Row {
    arity: Value,
    keys: Vec<Value>,
    flags: BTreeSet<String>,
    /// Flags, and how the keys are found: without the notes on them.
    specs: Vec<String>,
}

fn text(value: &Value) -> String {
    match value {
        Value::Bulk(bytes) | Value::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("no text: {other}"),
    }
}

/// A flat map without its notes.
fn spec(value: Value) -> String {
    let fields = value.items();
    let pairs = fields.chunks(2).filter(|pair| text(&pair[0]) != "notes");
    pairs.map(|pair| pair[1].clone().sorted(false).to_string()).collect::<Vec<_>>().join(" ")
}

fn row(parts: &[Value]) -> Row {
    let flags = parts[2].clone().items().into_iter().map(|flag| text(&flag));
    Row {
        arity: parts[1].clone(),
        keys: parts[3..6].to_vec(),
        flags: flags.filter(|f| FLAGS.contains(&f.as_str())).collect(),
        specs: parts[8].clone().items().into_iter().map(spec).collect(),
    }
}

/// The rows of commands, and of subcommands by names such as `config|get`.
fn rows(server: &Server) -> (BTreeMap<String, Row>, BTreeMap<String, Row>) {
    let (mut commands, mut subs) = (BTreeMap::new(), BTreeMap::new());
    for command in server.connect().words("COMMAND").items() {
        let parts = command.items();
        for sub in parts[9].clone().items() {
            let parts = sub.items();
            subs.insert(text(&parts[0]), row(&parts));
        }
        commands.insert(text(&parts[0]), row(&parts));
    }
    (commands, subs)
}

type Tolerated = &'static [(&'static str, &'static str)];

/// What differs of the rows that both know, and how many those are.
fn differences(
    ours: &BTreeMap<String, Row>,
    theirs: &BTreeMap<String, Row>,
    tolerated: Tolerated,
) -> (Vec<String>, usize) {
    let mut wrong = Vec::new();
    let mut compared = 0;
    let is_in = |list: Tolerated, name: &str| list.iter().any(|(known, _)| *known == name);
    for (name, row) in ours {
        let Some(expected) = theirs.get(name) else { continue };
        compared += 1;
        let same = (&row.arity, &row.keys, &row.flags)
            == (&expected.arity, &expected.keys, &expected.flags)
            || is_in(tolerated, name);
        let same_keys = row.specs == expected.specs || is_in(OTHER_KEYS, name);
        if !same || !same_keys {
            wrong.push(format!("{name}\n    redis  {expected:?}\n    larder {row:?}"));
        }
    }
    (wrong, compared)
}

pub(crate) fn compare() {
    let redis = match Server::oracle(&[]) {
        Ok(redis) => redis,
        Err(why) => return println!("skipped: nothing to compare with: {why}"),
    };
    let (ours, theirs) = (rows(&Server::larder(&[])), rows(&redis));
    let (mut wrong, compared) = differences(&ours.0, &theirs.0, TOLERATED);
    let (of_subs, compared_subs) = differences(&ours.1, &theirs.1, TOLERATED_SUBS);
    wrong.extend(of_subs);
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 150 && compared_subs > 100, "{compared}, {compared_subs}");
}

/// The members of each category as far as both servers know them, by `ACL CAT`.
pub(crate) fn compare_categories() {
    let redis = match Server::oracle(&[]) {
        Ok(redis) => redis,
        Err(why) => return println!("skipped: nothing to compare with: {why}"),
    };
    let larder = Server::larder(&[]);
    let (mut ours, mut theirs) = (larder.connect(), redis.connect());
    let members = |client: &mut crate::support::Client, category: &str| -> BTreeSet<String> {
        client.command(&["ACL", "CAT", category]).items().iter().map(text).collect()
    };
    let names: Vec<String> = theirs.words("ACL CAT").items().iter().map(text).collect();
    let everything = |client: &mut crate::support::Client| -> BTreeSet<String> {
        names.iter().flat_map(|name| members(client, name)).collect()
    };
    let (all_ours, all_theirs) = (everything(&mut ours), everything(&mut theirs));
    let both: BTreeSet<&String> = all_ours.intersection(&all_theirs).collect();
    assert!(both.len() > 250, "{} commands and subcommands in both", both.len());
    let mut wrong = Vec::new();
    for name in &names {
        let (ours, theirs) = (members(&mut ours, name), members(&mut theirs, name));
        for command in ours.symmetric_difference(&theirs) {
            let tolerated = OTHER_CATEGORIES.iter().any(|(tolerated, _)| tolerated == command);
            if both.contains(command) && !tolerated {
                let whose = if ours.contains(command) { "here" } else { "there" };
                wrong.push(format!("{command} is in {name} only {whose}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A user who may read `r`, write `w` and both `b`: which commands it may run on which of them.
pub(crate) fn compare_needs() {
    let redis = match Server::oracle(&[]) {
        Ok(redis) => redis,
        Err(why) => return println!("skipped: nothing to compare with: {why}"),
    };
    let larder = Server::larder(&[]);
    let (known, _) = rows(&redis);
    let rows: Vec<_> =
        rows(&larder).0.into_iter().filter(|(name, _)| known.contains_key(name)).collect();
    let (mut ours, mut theirs) = (larder.connect(), redis.connect());
    for client in [&mut ours, &mut theirs] {
        client.words("ACL SETUSER u +@all %R~r %W~w ~b");
    }
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, row) in &rows {
        let Value::Int(arity) = row.arity else { panic!("no arity: {}", row.arity) };
        for key in ["r", "w", "b", "x"] {
            for others in ["r", "w", "b", "x", "1", "2"] {
                // The first key and all else; numbers stand for counts of keys.
                let mut words = vec!["ACL", "DRYRUN", "u", name, key];
                words.resize(4 + arity.unsigned_abs().max(2) as usize - 1, others);
                words.truncate(if arity == 1 { 4 } else { words.len() });
                let is_refusal = |value: &Value| value.to_string().contains("no permissions");
                let (a, b) = (ours.command(&words), theirs.command(&words));
                compared += 1;
                let tolerated = !is_refusal(&b) && UNCHECKED_THERE.contains(&name.as_str());
                if is_refusal(&a) != is_refusal(&b) && !tolerated {
                    wrong.push(format!("{}: redis {b}, larder {a}", words[3..].join(" ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 4000, "{compared}");
}

/// The words and values of a command's arguments, however they are put together.
fn leaves(arguments: &Value, found: &mut BTreeSet<String>) {
    for argument in arguments.clone().items() {
        let fields = argument.items();
        let field = |name: &str| {
            let mut pairs = fields.chunks(2).filter(|pair| text(&pair[0]) == name);
            pairs.next().map(|pair| pair[1].clone())
        };
        let word = field("token").map_or_else(String::new, |token| text(&token));
        if !word.is_empty() {
            found.insert(word);
        }
        match field("arguments") {
            Some(parts) => leaves(&parts, found),
            None => {
                let kind = field("type").map_or_else(String::new, |kind| text(&kind));
                let name = field("name").map_or_else(String::new, |name| text(&name));
                if kind != "pure-token" {
                    // Later versions write names as words of manuals.
                    found.insert(format!("{}: {kind}", name.replace('_', "-")));
                }
            }
        }
    }
}

/// Whether it says what a command costs, and the words and values of its arguments.
type Docs = (bool, BTreeSet<String>);

/// What is told of each command, and of subcommands under names such as `config|get`.
fn docs_of(told: &[Value], all: &mut BTreeMap<String, Docs>) {
    for pair in told.chunks(2) {
        let fields = pair[1].clone().items();
        let mut docs = Docs::default();
        for field in fields.chunks(2) {
            match text(&field[0]).as_str() {
                "arguments" => leaves(&field[1], &mut docs.1),
                "complexity" => docs.0 = true,
                "subcommands" => docs_of(&field[1].clone().items(), all),
                _ => {}
            }
        }
        all.insert(text(&pair[0]), docs);
    }
}

fn docs(server: &Server) -> BTreeMap<String, Docs> {
    let mut all = BTreeMap::new();
    docs_of(&server.connect().words("COMMAND DOCS").items(), &mut all);
    all
}

/// COMMAND DOCS: whatever arguments are told there are told here, too, where any are.
pub(crate) fn compare_arguments() {
    let redis = match Server::oracle(&[]) {
        Ok(redis) => redis,
        Err(why) => return println!("skipped: nothing to compare with: {why}"),
    };
    let larder = Server::larder(&[]);
    let (ours, theirs) = (docs(&larder), docs(&redis));
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (name, (has_cost, arguments)) in &ours {
        let Some((_, expected)) = theirs.get(name).filter(|_| *has_cost) else { continue };
        compared += 1;
        let missing: Vec<_> = expected.difference(arguments).collect();
        if !missing.is_empty() {
            wrong.push(format!("{name}: {missing:?} of {arguments:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 270, "{compared}");
}
