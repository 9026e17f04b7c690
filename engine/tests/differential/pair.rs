//! Two servers that get the same commands, and the comparison of what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::{Client, Server, Value, encode};
use crate::{SAME, TOLERATED};

pub(crate) type Command = Vec<Vec<u8>>;

/// How a pair of replies is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Exactly, or as the command asks for (unordered, times).
    Default,
    Set,
    Shape,
}

/// A connection to each server by number, made when first used.
pub(crate) struct Pair {
    larder: Server,
    redis: Server,
    protocol: u8,
    connections: BTreeMap<usize, (Client, Client)>,
    /// Connections whose command was sent and whose reply was not read.
    blocked: BTreeSet<usize>,
    pub(crate) compared: usize,
    differences: Vec<String>,
}

/// Of both servers. Nothing is slow enough for the slow log, so that it is empty in both; and values are
/// small, so that the numbers at their ends are refused and not tried.
const SETTINGS: &[&str] = &[
    "--databases",
    "16",
    "--slowlog-log-slower-than",
    "-1",
    "--proto-max-bulk-len",
    "1mb",
    "--enable-debug-command",
    "yes",
];

/// Differences kept in full; more than these are only counted.
const SHOWN_MAX: usize = 150;

impl Pair {
    /// None, after saying so, where no redis-server is installed.
    pub(crate) fn start(protocol: u8) -> Option<Self> {
        match Server::oracle(SETTINGS) {
            Ok(redis) => Some(Self {
                larder: Server::larder(SETTINGS),
                redis,
                protocol,
                connections: BTreeMap::new(),
                blocked: BTreeSet::new(),
                compared: 0,
                differences: Vec::new(),
            }),
            Err(why) => {
                println!("skipped: nothing to compare with: {why}");
                None
            }
        }
    }

    fn on(&mut self, number: usize) -> &mut (Client, Client) {
        let Self { larder, redis, protocol, connections, .. } = self;
        connections.entry(number).or_insert_with(|| {
            let mut both = (larder.connect(), redis.connect());
            if *protocol == 3 {
                both.0.words("HELLO 3");
                both.1.words("HELLO 3");
            }
            both
        })
    }

    pub(crate) fn send(&mut self, number: usize, command: &[Vec<u8>]) {
        let (larder, redis) = self.on(number);
        larder.send(command);
        redis.send(command);
    }

    /// Waits until a command just sent has blocked its client in both servers, beside those that wait already.
    pub(crate) fn await_blocked(&mut self, number: usize) {
        self.blocked.insert(number);
        let expected = format!("blocked_clients:{}\r", self.blocked.len());
        let (larder, redis) = self.on(0);
        for client in [larder, redis] {
            for _ in 0..100 {
                let info = client.words("INFO clients");
                let text = match &info {
                    Value::Bulk(bytes) | Value::Verbatim(bytes) => {
                        String::from_utf8_lossy(bytes).into_owned()
                    }
                    _ => String::new(),
                };
                if text.contains(&expected) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn replies(&mut self, number: usize) -> (Value, Value) {
        self.blocked.remove(&number);
        let (larder, redis) = self.on(number);
        let or_error = |reply: Result<Value, String>| {
            reply.unwrap_or_else(|why| Value::Error(format!("[{why}]").into_bytes()))
        };
        let both = (or_error(larder.reply()), or_error(redis.reply()));
        assert!(
            !matches!(&both, (Value::Error(a), Value::Error(b)) if a.starts_with(b"[no reply") && b.starts_with(b"[no reply")),
            "connection {number}: neither server replies, so that nothing is compared"
        );
        let gone = |value: &Value| matches!(value, Value::Error(text) if text.starts_with(b"["));
        if gone(&both.0) || gone(&both.1) {
            self.connections.remove(&number);
        }
        both
    }

    /// Compares the replies that are due; true if they are the same to the byte, so that what they leave
    /// behind is the same too.
    pub(crate) fn compare(&mut self, number: usize, line: &str, name: &[u8], by: By) -> bool {
        let (larder, redis) = self.replies(number);
        self.compared += 1;
        let (ours, theirs) = (prepare(larder, name, by), prepare(redis, name, by));
        let same = agree(&ours, &theirs, name, by) || stand_for_each_other(&ours, &theirs);
        if !same && !TOLERATED.iter().any(|(part, _)| line.contains(part)) {
            let protocol = self.protocol;
            self.differences.push(format!(
                "RESP{protocol} {:.200}\n    redis  {:.400}\n    larder {:.400}",
                line,
                theirs.to_string(),
                ours.to_string()
            ));
        }
        ours == theirs
    }

    pub(crate) fn run(&mut self, number: usize, line: &str, command: &[Vec<u8>], by: By) -> bool {
        self.send(number, command);
        self.compare(number, line, &command[0].to_ascii_uppercase(), by)
    }

    /// Runs commands whose replies do not matter, such as a preparation, in one go.
    pub(crate) fn prepare(&mut self, lines: &[&str]) {
        let (larder, redis) = self.on(1);
        for client in [larder, redis] {
            let requests = lines.iter().map(|line| line.split(' ').collect::<Vec<_>>());
            client.send_raw(&requests.flat_map(|words| encode(&words)).collect::<Vec<_>>());
            lines.iter().for_each(|line| {
                client.reply().unwrap_or_else(|why| panic!("{line}: {why}"));
            });
        }
    }

    /// A full iteration by cursor: what it returns in all, whatever the order and the chunks.
    pub(crate) fn scan(&mut self, line: &str, command: &[Vec<u8>]) -> bool {
        let (larder, redis) = self.on(1);
        let (ours, theirs) = (iterate(larder, command), iterate(redis, command));
        self.compared += 1;
        let same = equal(&Value::Array(ours.clone()), &Value::Array(theirs.clone()));
        if !same && !TOLERATED.iter().any(|(part, _)| line.contains(part)) {
            let show = |items: &[Value]| Value::Array(items.to_vec()).to_string();
            self.differences.push(format!(
                "RESP{} {line}\n    redis  {:.400}\n    larder {:.400}",
                self.protocol,
                show(&theirs),
                show(&ours)
            ));
        }
        same
    }

    /// Fails the test if anything differed.
    pub(crate) fn finish(self) {
        let found = self.differences.len();
        println!("RESP{}: {} replies compared, {found} differ", self.protocol, self.compared);
        let shown = self.differences[..found.min(SHOWN_MAX)].join("\n");
        assert!(found == 0, "{found} of {} replies differ:\n{shown}", self.compared);
    }
}

fn iterate(client: &mut Client, command: &[Vec<u8>]) -> Vec<Value> {
    // SCAN has its cursor first, HSCAN and the like after the key.
    let at = if command[0].eq_ignore_ascii_case(b"SCAN") { 1 } else { 2 };
    let pairs = [b"HSCAN".as_slice(), b"ZSCAN"].iter().any(|n| command[0].eq_ignore_ascii_case(n));
    let mut command = command.to_vec();
    let mut found = Vec::new();
    for _ in 0..10_000 {
        let reply = client.command(&command);
        let Value::Array(mut parts) = reply else { return vec![reply] };
        let items = parts.pop().map_or_else(Vec::new, Value::items);
        found.extend(
            items.chunks(if pairs { 2 } else { 1 }).map(|chunk| Value::Array(chunk.to_vec())),
        );
        match parts.pop() {
            Some(Value::Bulk(cursor)) if cursor != b"0" => command[at] = cursor,
            _ => break,
        }
    }
    found.sort();
    // An element may come twice.
    found.dedup();
    found
}

fn prepare(value: Value, name: &[u8], by: By) -> Value {
    const SETS: &[&[u8]] =
        &[b"SMEMBERS", b"SUNION", b"SINTER", b"SDIFF", b"SPOP", b"KEYS", b"HKEYS", b"HVALS"];
    match by {
        By::Shape => Value::Bulk(value.shape().into_bytes()),
        _ if value.is_error() => value,
        By::Set => value.sorted(false),
        By::Default if name == b"EXEC" => inner_sorted(value),
        By::Default if [b"XINFO".as_slice(), b"XPENDING"].contains(&name) => timeless(value),
        By::Default if SETS.contains(&name) => value.sorted(false),
        By::Default if [b"HGETALL".as_slice(), b"CONFIG"].contains(&name) => value.sorted(true),
        By::Default => value,
    }
}

/// Fields of XINFO that tell the time, the inside of an index, or what later versions tell otherwise: what is missing
/// behind an XDEL, and that whoever asks in vain is a consumer too.
const BESIDE_THE_POINT: &[&[u8]] =
    &[b"seen-time", b"active-time", b"idle", b"inactive", b"radix-tree-nodes", b"lag"];
/// No other number of a test is as large as the time since 1970.
const TIME_MIN: i64 = 1_000_000_000_000;

fn flat(pairs: &[(Value, Value)]) -> Vec<Value> {
    pairs.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect()
}

/// A consumer of XINFO STREAM FULL that has nothing, or the count of consumers.
fn is_idle(fields: &[Value]) -> bool {
    matches!(fields, [_, _, Value::Bulk(name), Value::Int(0), ..] if name == b"pel-count")
}

/// What streams tell, without times and idle times.
fn timeless(value: Value) -> Value {
    let is_name = |value: &Value| matches!(value, Value::Bulk(name) if BESIDE_THE_POINT.contains(&name.as_slice()));
    match value {
        Value::Int(n) if n >= TIME_MIN => Value::Int(0),
        Value::Map(pairs) => {
            let kept = pairs.into_iter().filter(|(name, _)| !is_name(name));
            Value::Map(kept.map(|(name, value)| (name, timeless(value))).collect())
        }
        Value::Array(items) => {
            let mut kept = Vec::new();
            let mut items = items.into_iter();
            while let Some(item) = items.next() {
                if is_name(&item) {
                    items.next();
                    continue;
                }
                match timeless(item) {
                    Value::Array(fields) if is_idle(&fields) => {}
                    Value::Map(pairs) if is_idle(&flat(&pairs)) => {}
                    item => kept.push(item),
                }
            }
            // ID, consumer, idle time and count of XPENDING.
            if let [Value::Bulk(_), Value::Bulk(_), Value::Int(idle), Value::Int(_)] = &mut kept[..]
            {
                *idle = 0;
            }
            Value::Array(kept)
        }
        other => other,
    }
}

/// A transaction's replies in order, each of them as a set: it may be of a command whose order
/// means nothing, and the others are compared in order outside of transactions.
fn inner_sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| item.sorted(false)).collect())
        }
        other => other,
    }
}

fn agree(ours: &Value, theirs: &Value, name: &[u8], by: By) -> bool {
    let near = match name {
        b"TTL" => 2,
        b"PTTL" => 2000,
        _ => 0,
    };
    match (ours, theirs) {
        // The two servers read their clocks at different moments.
        (Value::Int(ours), Value::Int(theirs)) if by == By::Default && *theirs > 0 => {
            ours.abs_diff(*theirs) <= near
        }
        _ => equal(ours, theirs),
    }
}

/// Equal, or the same double: the stock server adds in 80-bit floats and prints all 17 digits
/// where the shortest text that reads back as the same double is printed here.
fn equal(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Bulk(ours), Value::Bulk(theirs)) | (Value::Double(ours), Value::Double(theirs)) => {
            ours == theirs || near(ours, theirs)
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| equal(a, b))
        }
        (Value::Map(ours), Value::Map(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(a, b)| equal(&a.0, &b.0) && equal(&a.1, &b.1))
        }
        _ => ours == theirs,
    }
}

/// Refusals as 7.0 words them and as later versions do, who name the user.
const REFUSALS: &[(&str, &str)] = &[
    ("NOPERM this user has no permissions to run ", "NOPERM User al has no permissions to run "),
    (
        "NOPERM this user has no permissions to access one of the keys used as arguments",
        "NOPERM No permissions to access a key",
    ),
    (
        "NOPERM this user has no permissions to access one of the channels used as arguments",
        "NOPERM No permissions to access a channel",
    ),
    ("This user has no permissions to ", "User al has no permissions to "),
    (
        "ERR This Redis instance is not configured to use an ACL file. ",
        "ERR This instance is not configured to use an ACL file. ",
    ),
    ("have a Redis configuration file", "have a configuration file"),
    ("users in the Redis configuration", "users in the configuration"),
];

fn is_same_refusal(ours: &Value, theirs: &Value) -> bool {
    let (Value::Error(ours) | Value::Bulk(ours), Value::Error(theirs) | Value::Bulk(theirs)) =
        (ours, theirs)
    else {
        return false;
    };
    let theirs = String::from_utf8_lossy(theirs).into_owned();
    let reworded = REFUSALS.iter().fold(theirs, |text, (old, new)| text.replace(old, new));
    reworded.as_bytes() == ours.as_slice()
}

fn stand_for_each_other(ours: &Value, theirs: &Value) -> bool {
    if is_same_refusal(ours, theirs) {
        return true;
    }
    let (Value::Error(ours), Value::Error(theirs)) = (ours, theirs) else { return false };
    SAME.iter().any(|(t, o, _)| theirs == t.as_bytes() && ours == o.as_bytes())
}

fn near(ours: &[u8], theirs: &[u8]) -> bool {
    let double = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<f64>().ok();
    match (double(ours), double(theirs)) {
        (Some(a), Some(b)) if ours.len().max(theirs.len()) >= 10 => {
            (a - b).abs() <= a.abs().max(b.abs()) * 1e-14
        }
        (Some(a), Some(b)) => a == 0.0 && b == 0.0,
        _ => false,
    }
}
