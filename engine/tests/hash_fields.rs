//! Fields of hashes that expire by themselves: replies as those of Valkey 9.1, what is hidden, and what members tell each other.

mod processes;

use processes::{Client, Server};

/// A time that no test lives to see, milliseconds.
const LATER: &str = "4102444800123";

fn call(client: &mut Client, line: &str) -> String {
    client.call(&line.split(' ').collect::<Vec<_>>())
}

fn replies(client: &mut Client, table: &[(&str, &str)]) {
    for (line, expected) in table {
        assert_eq!(call(client, line), *expected, "{line}");
    }
}

const NUMFIELDS: &str =
    "-ERR numfields should be greater than 0 and match the provided number of fields";
const SYNTAX: &str = "-ERR syntax error";

const OPEN: [&str; 2] = ["--enable-debug-command", "yes"];

fn start(args: &[&str]) -> (tempfile::TempDir, Server, Client) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[&OPEN[..], args].concat());
    let client = server.client();
    (dir, server, client)
}

#[test]
fn expiry_commands_reply_as_valkey() {
    let (_dir, _server, mut client) = start(&[]);
    let at = format!("HPEXPIREAT h {LATER} FIELDS 1 c");
    replies(
        &mut client,
        &[
            ("HSET h a 1 b 2 c 3", "3"),
            ("HEXPIRE h 1000 FIELDS 2 a x", "1 -2"),
            ("HTTL h FIELDS 3 a b x", "1000 -1 -2"),
            ("HEXPIRE none 100 FIELDS 2 a x", "-2 -2"),
            ("HTTL none FIELDS 2 a b", "-2 -2"),
            ("HEXPIRE h -1 FIELDS 1 a", "-ERR invalid expire time in 'hexpire' command"),
            ("HEXPIRE h 0 FIELDS 1 a", "2"),
            ("HPEXPIREAT h 1 FIELDS 2 b b", "2 -2"),
            ("HGETALL h", "c 3"),
            ("OBJECT ENCODING h", "listpack"),
            (&at, "1"),
            ("OBJECT ENCODING h", "listpackex"),
            ("HPEXPIRETIME h FIELDS 1 c", LATER),
            ("HEXPIRETIME h FIELDS 1 c", "4102444800"),
            ("HEXPIRE h abc FIELDS 1 c", "-ERR value is not an integer or out of range"),
            ("HEXPIRE h 100 FIELDS 0 c", NUMFIELDS),
            ("HEXPIRE h 100 FIELDS 2 c", NUMFIELDS),
            ("HEXPIRE h 100 FIELDS 1 c d", NUMFIELDS),
            ("HEXPIRE h 100 FIELD 1 c", NUMFIELDS),
            ("HEXPIRE h 100 FIELDS x c", "-ERR value is not an integer or out of range"),
            ("HEXPIRE h 100 FIELDS 1 c NX", NUMFIELDS),
            ("HEXPIRE h 100 ZZ FIELDS 1 c", "-ERR Unsupported option ZZ"),
            (
                "HEXPIRE h 100 NX XX FIELDS 1 c",
                "-ERR NX and XX, GT or LT options at the same time are not compatible",
            ),
            (
                "HEXPIRE h 100 GT LT FIELDS 1 c",
                "-ERR GT and LT options at the same time are not compatible",
            ),
            ("HEXPIRE h 100 XX GT FIELDS 1 c", "0"),
            ("HEXPIRE h 100 NX FIELDS 1 c", "0"),
            ("HPERSIST h FIELDS 2 c z", "1 -2"),
            ("HPERSIST h FIELDS 2 c z", "-1 -2"),
            ("HPERSIST none FIELDS 2 c z", "-2 -2"),
            ("HPERSIST h FIELDS 0 c", NUMFIELDS),
            ("HPERSIST h FIELD 1 c", "-ERR syntax error"),
            ("HEXPIRE h 100 GT FIELDS 1 c", "0"),
            ("HEXPIRE h 100 XX FIELDS 1 c", "0"),
            ("HEXPIRE h 100 LT FIELDS 1 c", "1"),
            ("HEXPIRE h 1000 LT FIELDS 1 c", "0"),
            ("HEXPIRE h 50 LT FIELDS 1 c", "1"),
            ("HEXPIRE h 500 GT FIELDS 1 c", "1"),
            ("HTTL h FIELDS 2 c", "-ERR syntax error"),
            ("HTTL h FIELDS 0 a", "-ERR syntax error"),
            ("HTTL h FIELD 1 a", "-ERR syntax error"),
            ("HTTL h FIELDS 1", "-ERR wrong number of arguments for 'httl' command"),
            ("SET s 1", "OK"),
            ("TYPE h", "hash"),
        ],
    );
    for line in [
        "HEXPIRE s 100 FIELDS 1 a",
        "HTTL s FIELDS 1 a",
        "HPERSIST s FIELDS 1 a",
        "HGETEX s FIELDS 1 a",
        "HGETEX s EX 5 FIELDS 1 a",
        "HSETEX s FIELDS 1 a b",
    ] {
        assert!(call(&mut client, line).starts_with("-WRONGTYPE"), "{line}");
    }
}

#[test]
fn hgetex_and_hsetex_reply_as_valkey() {
    let (_dir, _server, mut client) = start(&[]);
    replies(
        &mut client,
        &[
            ("HSET h a 1 b 2 c 3", "3"),
            ("HSETEX h FIELDS 1 a 5", "1"),
            ("HSETEX h EX 1000 FIELDS 2 a 5 d 6", "1"),
            ("HTTL h FIELDS 2 a d", "1000 1000"),
            ("HSETEX h FNX EX 100 FIELDS 2 a 5 z 6", "0"),
            ("HSETEX h FXX EX 1000 FIELDS 2 a 5 b 6", "1"),
            ("HSETEX h FXX EX 1000 FIELDS 2 a 5 z 6", "0"),
            ("HSETEX h FXX FNX EX 100 FIELDS 2 a 5 b 6", SYNTAX),
            ("HSETEX h NX EX 100 FIELDS 1 a 5", "0"),
            ("HSETEX h XX EX 1000 FIELDS 1 a 5", "1"),
            ("HSETEX h KEEPTTL FIELDS 1 a 7", "1"),
            ("HTTL h FIELDS 1 a", "1000"),
            ("HSETEX h FIELDS 1 a 7", "1"),
            ("HTTL h FIELDS 1 a", "-1"),
            ("HSETEX h PERSIST FIELDS 1 a 7", SYNTAX),
            ("HSETEX h EX -1 FIELDS 1 a 7", "-ERR invalid expire time in 'hsetex' command"),
            ("HSETEX h EX 0 FIELDS 1 a 7", "1"),
            ("HSETEX h PXAT 1 FIELDS 3 b 7 c 7 d 7", "1"),
            ("EXISTS h", "0"),
            ("HSETEX h PXAT 1 FIELDS 1 a 7", "1"),
            ("EXISTS h", "0"),
            ("HSETEX h XX FIELDS 1 a 7", "0"),
            ("HSETEX h NX FIELDS 1 a 7", "1"),
            ("HSETEX h EX 10 PX 10 FIELDS 1 a 7", SYNTAX),
            ("HSETEX h EX 10 EX 20 FIELDS 1 a 7", "1"),
            ("HSETEX h EX 10 KEEPTTL FIELDS 1 a 7", SYNTAX),
            ("HSETEX h EX FIELDS 1 a 7", SYNTAX),
            ("HSETEX h FIELDS 2 a 7", NUMFIELDS),
            ("HSETEX h FIELDS 1 a 7 b", NUMFIELDS),
            ("HSETEX h FIELDS 0 a 7 b", NUMFIELDS),
            ("HSETEX h FIELDS x a 7", "-ERR value is not an integer or out of range"),
            ("HSETEX h FIELDS 1 a 7 EX 10", NUMFIELDS),
            ("HSETEX h EX abc FIELDS 1 a 7", "-ERR value is not an integer or out of range"),
            ("HSETEX h FIELDS 2 a b a c", "1"),
            ("HGETALL h", "a c"),
            ("HSETEX h FIELDS 1 a", "-ERR wrong number of arguments for 'hsetex' command"),
            ("HSET h a 7 b 2", "1"),
            ("HGETEX h FIELDS 2 a zz", "7 (nil)"),
            ("HGETEX h EX 100 FIELDS 2 a zz", "7 (nil)"),
            ("HTTL h FIELDS 2 a b", "100 -1"),
            ("HGETEX h PERSIST FIELDS 2 a b", "7 2"),
            ("HTTL h FIELDS 2 a b", "-1 -1"),
            ("HGETEX h KEEPTTL FIELDS 2 a b", SYNTAX),
            ("HGETEX h EX 10 PERSIST FIELDS 2 a b", SYNTAX),
            ("HGETEX h NX FIELDS 1 a", SYNTAX),
            ("HGETEX h EX -1 FIELDS 1 a", "-ERR invalid expire time in 'hgetex' command"),
            ("HGETEX h FIELDS 0 a", NUMFIELDS),
            ("HGETEX h FIELDS 2 a", NUMFIELDS),
            ("HGETEX h EX 10 FIELDS 1", NUMFIELDS),
            ("HGETEX h a", "-ERR wrong number of arguments for 'hgetex' command"),
            ("HGETEX none EX 10 FIELDS 2 a b", "(nil) (nil)"),
            ("HGETEX h PXAT 1 FIELDS 2 a b", "7 2"),
            ("EXISTS h", "0"),
        ],
    );
}

#[test]
fn times_and_counts_beyond_all_bounds_are_refused_or_kept() {
    let (_dir, _server, mut client) = start(&[]);
    call(&mut client, "HSET h a 1");
    for (name, unit) in
        [("HEXPIRE", true), ("HPEXPIRE", true), ("HEXPIREAT", true), ("HPEXPIREAT", false)]
    {
        let lower = name.to_lowercase();
        for time in ["-1", "-9223372036854775808"] {
            let reply = call(&mut client, &format!("{name} h {time} FIELDS 1 a"));
            assert_eq!(reply, format!("-ERR invalid expire time in '{lower}' command"));
        }
        let reply = call(&mut client, &format!("{name} h 9223372036854775807 FIELDS 1 a"));
        if unit {
            assert_eq!(reply, format!("-ERR invalid expire time in '{lower}' command"));
        } else {
            assert_eq!(reply, "1");
        }
        let reply = call(&mut client, &format!("{name} h 9223372036854775808 FIELDS 1 a"));
        assert_eq!(reply, "-ERR value is not an integer or out of range");
        for count in
            ["9223372036854775807", "-9223372036854775808", "4611686018427387905", "0", "-1"]
        {
            let reply = call(&mut client, &format!("{name} h 100 FIELDS {count} a"));
            assert!(reply.starts_with("-ERR numfields should be"), "{reply}");
        }
    }
    for count in ["9223372036854775807", "4611686018427387905", "9223372036854775809"] {
        for line in [
            "HSETEX h FIELDS {} a b",
            "HGETEX h FIELDS {} a",
            "HPERSIST h FIELDS {} a",
            "HTTL h FIELDS {} a",
        ] {
            assert!(call(&mut client, &line.replace("{}", count)).starts_with("-ERR"));
        }
    }
    assert_eq!(call(&mut client, "HGETALL h"), "a 1");
    // One that cannot come is kept as one that comes last.
    assert_eq!(call(&mut client, "HPEXPIRETIME h FIELDS 1 a"), "9223372036854775806");
    assert_eq!(
        call(&mut client, "HSETEX h PX 9223372036854775807 FIELDS 1 a 1"),
        "-ERR invalid expire time in 'hsetex' command"
    );
}

/// Lets the fields expire without being deleted.
fn let_expire(client: &mut Client, key: &str, fields: &[&str]) {
    client.ok(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    let count = fields.len().to_string();
    client.call(&[&["HPEXPIRE", key, "1", "FIELDS", &count], fields].concat());
    for field in fields {
        client.until(&["HGET", key, field], "(nil)");
    }
}

#[test]
fn fields_whose_time_is_over_are_hidden_from_every_read() {
    let (_dir, _server, mut client) = start(&[]);
    for (entries, encoding) in [("512", "listpackex"), ("1", "hashtable")] {
        client.ok(&["FLUSHALL"]);
        client.ok(&["CONFIG", "SET", "hash-max-listpack-entries", entries]);
        call(&mut client, "HSET h a 1 b 2 c 3");
        let_expire(&mut client, "h", &["a", "b"]);
        replies(
            &mut client,
            &[
                ("OBJECT ENCODING h", encoding),
                ("HLEN h", "3"),
                ("HGETALL h", "c 3"),
                ("HKEYS h", "c"),
                ("HVALS h", "3"),
                ("HMGET h a b c", "(nil) (nil) 3"),
                ("HEXISTS h a", "0"),
                ("HSTRLEN h a", "0"),
                ("HSCAN h 0", "0 c 3"),
                ("HRANDFIELD h", "c"),
                ("HRANDFIELD h 10", "c"),
                ("HRANDFIELD h -3", "c c c"),
                ("HTTL h FIELDS 1 a", "-2"),
                ("HPERSIST h FIELDS 1 a", "-2"),
                ("HEXPIRE h 100 FIELDS 1 a", "-2"),
                ("HGETEX h EX 100 FIELDS 1 a", "(nil)"),
                ("HGETDEL h FIELDS 1 a", "(nil)"),
                ("HDEL h a", "0"),
                ("HSETNX h b 9", "1"),
                ("HTTL h FIELDS 1 b", "-1"),
            ],
        );
        let_expire(&mut client, "h", &["b"]);
        replies(
            &mut client,
            &[
                ("HINCRBY h b 5", "5"),
                ("HEXPIRE h 100 FIELDS 1 b", "1"),
                ("HINCRBY h b 5", "10"),
                ("HINCRBYFLOAT h b 1.5", "11.5"),
                ("HTTL h FIELDS 1 b", "100"),
                ("HSET h b 5", "0"),
                ("HTTL h FIELDS 1 b", "-1"),
            ],
        );
        let_expire(&mut client, "h", &["b"]);
        assert_eq!(call(&mut client, "HSET h b 6"), "1");
        let_expire(&mut client, "h", &["b"]);
        assert_eq!(call(&mut client, "HSETEX h FXX EX 100 FIELDS 1 b 6"), "0");
        assert_eq!(call(&mut client, "HSETEX h FNX KEEPTTL FIELDS 1 b 6"), "1");
        assert_eq!(call(&mut client, "HTTL h FIELDS 1 b"), "-1");
        let_expire(&mut client, "h", &["b", "c"]);
        replies(
            &mut client,
            &[
                ("EXISTS h", "1"),
                ("HLEN h", "2"),
                ("HGETALL h", ""),
                ("HRANDFIELD h", "(nil)"),
                ("HRANDFIELD h 2", ""),
                ("HRANDFIELD h -2", ""),
                ("HSCAN h 0", "0 "),
                ("DEBUG SET-ACTIVE-EXPIRE 1", "OK"),
            ],
        );
        client.until(&["EXISTS", "h"], "0");
    }
    assert_eq!(client.info("expired_keys"), "0");
}

#[test]
fn copies_and_dumps_of_a_hash_have_its_times() {
    let (_dir, server, mut client) = start(&[]);
    let set = format!("HSETEX h PXAT {LATER} FIELDS 2 a 1 b 2");
    replies(
        &mut client,
        &[(&set, "1"), ("HSET h c 3", "1"), ("COPY h copy", "1"), ("RENAME copy moved", "OK")],
    );
    // A payload is no text: one server hands it to the other.
    let other = tempfile::tempdir().unwrap();
    let target = Server::start(other.path(), &[]);
    let port = target.port.to_string();
    client.ok(&["MIGRATE", "127.0.0.1", &port, "h", "0", "10000", "COPY"]);
    let expected = format!("{LATER} {LATER} -1");
    for (client, key) in [(&mut client, "moved"), (&mut target.client(), "h")] {
        assert_eq!(call(client, &format!("HPEXPIRETIME {key} FIELDS 3 a b c")), expected);
    }
    let line = call(&mut server.client(), "INFO keyspace");
    assert!(
        line.contains("keys=2,expires=0,avg_ttl=0,subexpiry=2,keys_with_volatile_items=2"),
        "{line}"
    );
    replies(&mut client, &[("DEL h", "1"), ("HPERSIST moved FIELDS 2 a b", "1 1")]);
    let line = call(&mut client, "INFO keyspace");
    // An exporter that knows three fields of a database finds no more where nobody gives fields a time.
    assert!(line.contains("db0:keys=1,expires=0,avg_ttl=0\r\n"), "{line}");
}

#[test]
fn times_outlive_restarts_by_snapshot_and_by_log() {
    for args in [["--appendonly", "no"], ["--appendonly", "yes"]] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path(), &args);
        let mut client = server.client();
        let set = format!("HSETEX h PXAT {LATER} FIELDS 2 a 1 b 2");
        replies(
            &mut client,
            &[
                ("HSET h c 3", "1"),
                (&set, "1"),
                ("HINCRBY h b 5", "7"),
                ("HPERSIST h FIELDS 1 a", "1"),
            ],
        );
        // Over by the time of the restart, and deleted only then.
        client.call(&["HSETEX", "short", "PX", "1", "FIELDS", "1", "f", "v"]);
        for rewritten in [false, true] {
            if args[1] == "no" {
                client.ok(&["SAVE"]);
            } else if rewritten {
                client.call(&["BGREWRITEAOF"]);
                client.until_info("aof_rewrite_in_progress", "0");
            }
            server.kill();
            server = Server::start(dir.path(), &args);
            client = server.client();
            assert_eq!(
                call(&mut client, "HPEXPIRETIME h FIELDS 3 a b c"),
                format!("-1 {LATER} -1")
            );
            assert_eq!(call(&mut client, "HMGET h a b c"), "1 7 3");
            client.until(&["EXISTS", "short"], "0");
        }
    }
}

#[test]
fn a_replica_hides_what_is_over_and_deletes_when_its_primary_does() {
    let (_dir, primary, mut p) = start(&[]);
    let (_other, _replica, mut r) = start(&[]);
    call(&mut p, "HSET before a 1 b 2");
    call(&mut p, &format!("HPEXPIREAT before {LATER} FIELDS 1 a"));
    p.ok(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    r.ok(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    r.until_info("master_link_status", "up");
    // By the snapshot, and by the stream.
    assert_eq!(call(&mut r, "HPEXPIRETIME before FIELDS 2 a b"), format!("{LATER} -1"));
    call(&mut p, "HSET h a 1 b 2 c 3");
    call(&mut p, "HEXPIRE h 1000 FIELDS 1 c");
    r.until(&["HEXISTS", "h", "c"], "1");
    let_expire(&mut p, "h", &["a", "b"]);
    r.until(&["HMGET", "h", "a", "b", "c"], "(nil) (nil) 3");
    assert_eq!(call(&mut r, "HLEN h"), "3");
    assert_eq!(
        call(&mut r, "HPEXPIRETIME h FIELDS 1 c"),
        call(&mut p, "HPEXPIRETIME h FIELDS 1 c")
    );
    // What is written over something hidden is the same on both.
    call(&mut p, "HINCRBY h a 5");
    call(&mut p, "HSETEX h KEEPTTL FIELDS 2 b 6 c 7");
    assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
    for client in [&mut p, &mut r] {
        assert_eq!(call(client, "HMGET h a b c"), "5 6 7");
        assert_eq!(call(client, "HTTL h FIELDS 2 a b"), "-1 -1");
        assert_ne!(call(client, "HTTL h FIELDS 1 c"), "-1");
    }
    let_expire(&mut p, "h", &["a", "b", "c"]);
    assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
    assert_eq!(call(&mut r, "HLEN h"), "3");
    p.ok(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
    r.until(&["EXISTS", "h"], "0");
    assert_eq!(r.info("expired_fields"), "0");
    assert!(p.info("expired_fields").parse::<u64>().unwrap() >= 5);
    assert_eq!(r.info("master_repl_offset"), p.info("master_repl_offset"));
}

#[test]
fn a_large_hash_whose_time_is_over_goes_in_slices_on_both() {
    let (_dir, primary, mut p) = start(&[]);
    let (_other, _replica, mut r) = start(&[]);
    r.ok(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    r.until_info("master_link_status", "up");
    p.ok(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    let fields: Vec<String> = (0..20_000).map(|n| format!("f{n}")).collect();
    let mut request = vec!["HSETEX", "h", "PX", "1", "FIELDS", "20000"];
    request.extend(fields.iter().flat_map(|field| [field.as_str(), "v"]));
    assert_eq!(p.call(&request), "1");
    call(&mut p, "HSET h stays 1");
    p.until(&["HRANDFIELD", "h", "5"], "stays");
    p.ok(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
    p.until(&["HLEN", "h"], "1");
    r.until(&["HLEN", "h"], "1");
    assert_eq!(call(&mut r, "HGETALL h"), "stays 1");
    assert_eq!(call(&mut p, "OBJECT ENCODING h"), "hashtable");
    let line = call(&mut p, "INFO keyspace");
    assert!(!line.contains("keys_with_volatile_items"), "{line}");
}

#[test]
fn what_happens_to_fields_is_told() {
    let (_dir, server, mut client) = start(&["--notify-keyspace-events", "Ehg"]);
    let mut listener = server.client();
    listener.call(&["PSUBSCRIBE", "*"]);
    let mut heard = |expected: &[&str]| {
        for name in expected {
            let text = listener.reply().unwrap();
            assert_eq!(text, format!("pmessage * __keyevent@0__:{name} h"));
        }
    };
    for (line, events) in [
        ("HSET h a 1 b 2 c 3", &["hset"][..]),
        ("HSETEX h EX 100 FIELDS 1 a 5", &["hset", "hexpire"]),
        ("HSETEX h KEEPTTL FIELDS 1 a 5", &["hset"]),
        ("HEXPIRE h 100 FIELDS 2 b zz", &["hexpire"]),
        ("HGETEX h EX 100 FIELDS 1 b", &["hexpire"]),
        ("HGETEX h PERSIST FIELDS 1 b", &["hpersist"]),
        ("HPERSIST h FIELDS 1 a", &["hpersist"]),
        ("HSETEX h PXAT 1 FIELDS 1 a 5", &["hset", "hexpire", "hexpired"]),
        ("HGETEX h PXAT 1 FIELDS 1 b", &["hexpired"]),
        ("HEXPIRE h 0 FIELDS 1 c", &["hexpired", "del"]),
        ("HSET h a 1", &["hset"]),
        ("HPEXPIRE h 1 FIELDS 1 a", &["hexpire", "hexpired", "del"]),
    ] {
        call(&mut client, line);
        heard(events);
    }
    call(&mut client, "HSET h a 1");
    heard(&["hset"]);
    let_expire(&mut client, "h", &["a"]);
    heard(&["hexpire"]);
    call(&mut client, "HSET h a 1");
    heard(&["hexpired", "hset"]);
}
