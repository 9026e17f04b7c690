//! What is told of commands and their subcommands, and what redis-cli makes of it.

use std::process::Command;

use crate::support::{Server, Value, value::text};

/// The values of a flat map, by their names.
fn field(fields: &Value, name: &str) -> Option<Value> {
    let fields = fields.clone().items();
    fields.chunks(2).find(|pair| text(&pair[0]) == name).map(|pair| pair[1].clone())
}

#[test]
fn a_subcommand_is_told_of_by_its_name_and_within_its_command() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let alone = client.words("COMMAND DOCS CONFIG|GET");
    let docs = field(&alone, "config|get").unwrap();
    for (name, value) in [
        ("summary", "Returns settings."),
        ("since", "2.0.0"),
        ("group", "server"),
        ("complexity", "O(N*M), N: settings, M: patterns given"),
    ] {
        assert_eq!(field(&docs, name).map(|value| text(&value)).as_deref(), Some(value), "{name}");
    }
    let arguments = field(&docs, "arguments").unwrap().items();
    assert_eq!(field(&arguments[0], "name").map(|name| text(&name)).as_deref(), Some("parameter"));
    assert!(field(&docs, "history").is_some() && field(&docs, "subcommands").is_none());

    let whole = field(&client.words("COMMAND DOCS config"), "config").unwrap();
    assert_eq!(field(&field(&whole, "subcommands").unwrap(), "config|get"), Some(docs));
    let unknown = client.words("COMMAND DOCS config|nothing");
    assert_eq!(unknown, Value::Array(vec![]));

    let info = client.words("COMMAND INFO CONFIG|GET config|nothing").items();
    let row = info[0].clone().items();
    assert_eq!((text(&row[0]).as_str(), &row[1]), ("config|get", &Value::Int(-3)));
    assert!(matches!(info[1], Value::NilBulk | Value::NilArray), "{:?}", info[1]);
}

#[test]
fn redis_cli_shows_the_arguments_of_subcommands() {
    let server = Server::larder(&[]);
    let port = server.addr.port().to_string();
    for (words, shown) in [
        ("CONFIG SET", "parameter value [parameter value ...]"),
        ("CONFIG GET", "parameter [parameter ...]"),
        ("XGROUP CREATE", "key groupname id|$ [MKSTREAM] [ENTRIESREAD entries-read]"),
        ("XINFO STREAM", "key [FULL [COUNT count]]"),
        ("CLIENT PAUSE", "timeout [WRITE|ALL]"),
        ("CLUSTER SETSLOT", "slot IMPORTING node-id|MIGRATING node-id|NODE node-id|STABLE"),
        ("GETRANGE", "key start end"),
    ] {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &port, "help"]).args(words.split(' '));
        let Ok(output) = cli.output() else {
            return println!("skipped: no redis-cli on the PATH");
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // Colours: \x1b[...m
        let parts = said.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |p| p.1));
        let plain: String = parts.collect();
        let line = format!("{words} {shown}");
        assert!(plain.lines().any(|told| told.trim() == line), "{words}: {plain}");
    }
}
