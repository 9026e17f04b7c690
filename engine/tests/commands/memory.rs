//! What keys cost: as it is told of one, and of all together.

use crate::figure;
use crate::support::{Client, Server, Value, encode, value::text};

fn cost(client: &mut Client, key: &str) -> i64 {
    match client.command(&["MEMORY", "USAGE", key]) {
        Value::Int(bytes) => bytes,
        other => panic!("{key}: {other}"),
    }
}

/// Sends requests in pipelines and gives the sum of the numbers that they are replied; OK is none.
fn sum(client: &mut Client, requests: impl Iterator<Item = Vec<u8>>) -> i64 {
    let requests: Vec<Vec<u8>> = requests.collect();
    let mut sum = 0;
    for some in requests.chunks(100) {
        client.send_raw(&some.concat());
        for _ in some {
            match client.reply().unwrap() {
                Value::Int(number) => sum += number,
                reply => assert_eq!(text(&reply), "OK"),
            }
        }
    }
    sum
}

#[test]
fn a_profile_as_a_hash_takes_no_more_than_as_json() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let profile = [
        ("id", "123"),
        ("name", "John Doe"),
        ("email", "john.doe@example.com"),
        ("age", "30"),
        ("created", "1712345678"),
        ("last_login", "1719999999"),
        ("logins", "421"),
        ("verified", "1"),
    ];
    let json = |fields: &[(&str, &str)]| {
        let is_number = |value: &str| value.bytes().all(|b| b.is_ascii_digit());
        let shown = fields.iter().map(|(name, value)| match is_number(value) {
            true => format!("\"{name}\": {value}"),
            false => format!("\"{name}\": \"{value}\""),
        });
        format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
    };
    let mut both = |fields: &[(&str, &str)]| {
        client.words("DEL user:123 json:123");
        let pairs = fields.iter().flat_map(|(name, value)| [*name, *value]);
        let hset: Vec<&str> = ["HSET", "user:123"].into_iter().chain(pairs).collect();
        assert_eq!(client.command(&hset), Value::Int(fields.len() as i64));
        assert_eq!(text(&client.command(&["SET", "json:123", &json(fields)])), "OK");
        (cost(&mut client, "user:123"), cost(&mut client, "json:123"))
    };
    let (hash, string) = both(&profile);
    assert!(hash <= string, "{hash} as a hash, {string} as JSON");
    // The pointer to it and its box are paid by whatever is no string.
    let (hash, string) = both(&profile[1..4]);
    assert!(hash <= string + 40, "{hash} as a hash, {string} as JSON");
}

#[test]
fn a_million_members_added_twice_are_a_million() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let added = |client: &mut Client| {
        sum(
            client,
            (0..1000).map(|thousand| {
                let members = (0..1000).map(|n| format!("member:{}", thousand * 1000 + n));
                encode(
                    &["SADD".into(), "set".into()].into_iter().chain(members).collect::<Vec<_>>(),
                )
            }),
        )
    };
    assert_eq!(added(&mut client), 1_000_000);
    let before = cost(&mut client, "set");
    assert_eq!(added(&mut client), 0);
    assert_eq!(client.words("SCARD set"), Value::Int(1_000_000));
    assert_eq!(cost(&mut client, "set"), before);
}

#[test]
fn a_million_small_keys_cost_little_more_than_their_bytes() {
    const KEYS: u64 = 1_000_000;
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let empty = figure(&mut client, "used_memory_dataset");
    let key = |n: u64| format!("key:{n:012}");
    let value = "v".repeat(16);
    sum(
        &mut client,
        (0..KEYS / 1000).map(|thousand| {
            let pairs = (0..1000).flat_map(|n| [key(thousand * 1000 + n), value.clone()]);
            encode(&["MSET".to_string()].into_iter().chain(pairs).collect::<Vec<_>>())
        }),
    );
    let each = (figure(&mut client, "used_memory_dataset") - empty) as f64 / KEYS as f64;
    // Sixteen bytes of key, sixteen of value, eight before them, and their place in a table.
    assert!((32.0..54.0).contains(&each), "{each} bytes a key");
}

#[test]
fn the_peak_is_never_below_what_is_used() {
    let server = Server::larder(&["--io-threads", "2"]);
    let mut client = server.connect();
    let both = |client: &mut Client| {
        let info = text(&client.words("INFO memory"));
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.parse::<u64>().unwrap()
        };
        let (used, peak) = (field("used_memory:"), field("used_memory_peak:"));
        assert!(peak >= used, "{peak} at most, {used} now");
        (used, peak)
    };
    let value = "v".repeat(100_000);
    let mut highest = 0;
    for n in 0..100 {
        assert_eq!(text(&client.command(&["SET", &format!("key:{n}"), &value])), "OK");
        let (used, peak) = both(&mut client);
        highest = highest.max(used);
        assert!(peak >= highest);
    }
    assert!(highest > 10_000_000, "{highest}");
    for n in 0..100 {
        client.words(&format!("DEL key:{n}"));
        assert!(both(&mut client).1 >= highest);
    }
    let (used, peak) = both(&mut client);
    assert!(used < highest / 2 && peak >= highest, "{used} of {peak}");
    // What is asked for anew begins where it is.
    assert_eq!(text(&client.words("CONFIG RESETSTAT")), "OK");
    assert!(both(&mut client).1 < highest);
}
