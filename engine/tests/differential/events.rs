//! Keyspace events: the same commands on both servers, and everything compared that a subscriber to all events hears.

use crate::script::parse;
use crate::support::{Client, Server, Value};

/// Lines whose events may differ, and why.
const TOLERATED: &[(&str, &str)] = &[
    ("strings: SET a 1 EXAT 1", "over before it begins, it is deleted at once"),
    ("strings: GET a", "there it has to expire first"),
    ("XSETID t 49", "later versions know what was deleted"),
    ("XREADGROUP GROUP g c3", "in later versions whoever asks in vain is a consumer too"),
    ("groups: EXEC", "the same"),
];

/// Every command family, as the other tests run them; and what is of events alone.
const SCRIPTS: &[(&str, &str)] = &[
    ("events", include_str!("scripts/events.txt")),
    ("strings", include_str!("scripts/strings.txt")),
    ("keys", include_str!("scripts/keys.txt")),
    ("hashes", include_str!("scripts/hashes.txt")),
    ("lists", include_str!("scripts/lists.txt")),
    ("sets", include_str!("scripts/sets.txt")),
    ("zsets", include_str!("scripts/zsets.txt")),
    ("streams", include_str!("scripts/streams.txt")),
    ("groups", include_str!("scripts/groups.txt")),
    ("hll", include_str!("scripts/hll.txt")),
    ("geo", include_str!("scripts/geo.txt")),
    ("bitfield", include_str!("scripts/bitfield.txt")),
    ("transactions", include_str!("scripts/transactions.txt")),
];

/// A server, its client and a listener.
struct Side {
    _server: Server,
    client: Client,
    other: Client,
    listener: Client,
}

impl Side {
    fn new(server: Server) -> Side {
        let (mut client, mut listener) = (server.connect(), server.connect());
        client.words("CONFIG SET notify-keyspace-events AKEnm");
        listener.words("PSUBSCRIBE __key*__:*");
        let other = server.connect();
        Side { _server: server, client, other, listener }
    }

    /// Runs a command; gives what is heard until it is over.
    fn run(&mut self, command: &[Vec<u8>]) -> Vec<String> {
        self.client.command(command);
        self.other.words("PUBLISH __keymark__:end x");
        let mut heard = Vec::new();
        loop {
            let Ok(Value::Array(parts)) = self.listener.reply() else { panic!("no message") };
            let text: Vec<String> =
                parts[2..].iter().map(|p| String::from_utf8_lossy(p.bytes()).into()).collect();
            if text[0] == "__keymark__:end" {
                return heard;
            }
            heard.push(text.join(" "));
        }
    }
}

/// Lines that begin otherwise are of several connections, or of the server.
fn is_plain(line: &str) -> bool {
    const LEFT_OUT: &[&str] =
        &["CONFIG", "DEBUG", "RESET", "HELLO", "SUBSCRIBE", "PSUBSCRIBE", "QUIT"];
    let first = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
    !line.is_empty() && !line.starts_with(['#', '@', '*']) && !LEFT_OUT.contains(&first.as_str())
}

pub(crate) fn run() {
    let mut differences = Vec::new();
    let mut heard = 0;
    for (name, text) in SCRIPTS {
        let redis = match Server::oracle(&[]) {
            Ok(redis) => redis,
            Err(why) => return println!("skipped: nothing to compare with: {why}"),
        };
        let (mut ours, mut theirs) = (Side::new(Server::larder(&[])), Side::new(redis));
        for line in text.lines().map(str::trim) {
            let line = line.strip_prefix("~ ").or(line.strip_prefix("? ")).unwrap_or(line);
            if !is_plain(line) {
                continue;
            }
            let command = parse(line);
            let (ours, theirs) = (ours.run(&command), theirs.run(&command));
            heard += theirs.len();
            let line = format!("{name}: {line}");
            let tolerated = TOLERATED.iter().any(|(part, _)| line.contains(part));
            if ours != theirs && !tolerated {
                differences
                    .push(format!("{line:.200}\n    redis  {theirs:?}\n    larder {ours:?}"));
            }
        }
    }
    println!("{heard} messages compared, {} commands differ", differences.len());
    let found = differences.len();
    assert!(found == 0, "{found} differ:\n{}", differences[..found.min(150)].join("\n"));
}
