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

/// Rows that differ, and why.
const TOLERATED: &[(&str, &str)] = &[
    ("acl", "its flags are those of its subcommands there"),
    ("client", "its flags are those of its subcommands there"),
    ("cluster", "its flags are those of its subcommands there"),
    ("config", "its flags are those of its subcommands there"),
    ("latency", "its flags are those of its subcommands there"),
    ("memory", "its flags and its key are those of its subcommands there"),
    ("module", "its flags are those of its subcommands there"),
    ("object", "its flags and its key are those of its subcommands there"),
    ("pubsub", "its flags are those of its subcommands there"),
    ("slowlog", "its flags are those of its subcommands there"),
    ("xgroup", "its flags and its key are those of its subcommands there"),
    ("xinfo", "its flags and its key are those of its subcommands there"),
    ("debug", "its subcommands with a key say so here"),
    ("dbsize", "not fast here: the counts of all slots are summed up"),
    ("zrank", "later versions take WITHSCORE"),
    ("zrevrank", "later versions take WITHSCORE"),
];

#[derive(Debug, PartialEq, Eq)]
struct Row {
    arity: Value,
    keys: Vec<Value>,
    flags: BTreeSet<String>,
}

fn text(value: &Value) -> String {
    match value {
        Value::Bulk(bytes) | Value::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("no text: {other}"),
    }
}

fn rows(server: &Server) -> BTreeMap<String, Row> {
    let row = |value: Value| {
        let parts = value.items();
        let flags = parts[2].clone().items().into_iter().map(|flag| text(&flag));
        let row = Row {
            arity: parts[1].clone(),
            keys: parts[3..6].to_vec(),
            flags: flags.filter(|f| FLAGS.contains(&f.as_str())).collect(),
        };
        (text(&parts[0]), row)
    };
    server.connect().words("COMMAND").items().into_iter().map(row).collect()
}

pub(crate) fn compare() {
    let redis = match Server::oracle(&[]) {
        Ok(redis) => redis,
        Err(why) => return println!("skipped: nothing to compare with: {why}"),
    };
    let (ours, theirs) = (rows(&Server::larder(&[])), rows(&redis));
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, row) in &ours {
        let Some(expected) = theirs.get(name) else { continue };
        compared += 1;
        if row != expected && !TOLERATED.iter().any(|(tolerated, _)| tolerated == name) {
            wrong.push(format!("{name}\n    redis  {expected:?}\n    larder {row:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 150, "{compared}");
}
