//! Streams whose entries go with a say in who refers to them: replies as those of Redis 8.2.3, and replicas that follow.

mod processes;

use processes::{Client, Server};

fn replies(client: &mut Client, table: &[(&str, &str)]) {
    for (line, expected) in table {
        let args: Vec<&str> = line.split(' ').collect();
        assert_eq!(client.call(&args), *expected, "{line}");
    }
}

/// Entries 1-1 to 4-1, all read by group `g`, the first `by_h` by group `h`.
fn fill(client: &mut Client, by_h: &str) {
    client.call(&["DEL", "s"]);
    for n in 1..=4 {
        client.call(&["XADD", "s", &format!("{n}-1"), "a", "b"]);
    }
    client.ok(&["XGROUP", "CREATE", "s", "g", "0"]);
    client.call(&["XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"]);
    if by_h != "0" {
        client.ok(&["XGROUP", "CREATE", "s", "h", "0"]);
        client.call(&["XREADGROUP", "GROUP", "h", "c", "COUNT", by_h, "STREAMS", "s", ">"]);
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_what_is_not_there_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    let positive = "-ERR Number of IDs must be a positive integer";
    let count = "-ERR The `numids` parameter must match the number of arguments";
    let invalid = "-ERR Invalid stream ID specified as stream command argument";
    client.ok(&["SET", "str", "x"]);
    fill(&mut client, "0");
    replies(
        &mut client,
        &[
            ("XDELEX s 1-1", "-ERR wrong number of arguments for 'xdelex' command"),
            ("XACKDEL s g IDS 1", "-ERR wrong number of arguments for 'xackdel' command"),
            ("XDELEX none IDS 1 bad", "-1"),
            ("XDELEX none FOO IDS 1 1-1", "-ERR syntax error"),
            ("XDELEX str IDS 1 bad", wrong_type),
            ("XDELEX s IDS 1 1-1 2-1", "-ERR syntax error"),
            ("XDELEX s IDS 2 1-1", count),
            ("XDELEX s IDS 0 1-1", positive),
            ("XDELEX s IDS -1 1-1", positive),
            ("XDELEX s IDS x 1-1", positive),
            ("XDELEX s IDS 9223372036854775807 1-1", count),
            ("XDELEX s KEEPREF DELREF IDS 1 1-1", "-ERR syntax error"),
            ("XDELEX s IDS 1 bad", invalid),
            ("XDELEX s IDS 2 1-1 bad", invalid),
            ("XDELEX s IDS 1 9-9", "-1"),
            ("XACKDEL none g IDS 2 1-1 2-2", "-1 -1"),
            ("XACKDEL s none IDS 1 1-1", "-1"),
            ("XACKDEL str g IDS 1 1-1", wrong_type),
            ("XACKDEL s g FOO IDS 1 1-1", "-ERR syntax error"),
            ("XLEN s", "4"),
        ],
    );
}

#[test]
fn references_are_kept_dropped_or_respected_here_and_on_a_replica() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &[]);
    let replica =
        Server::start(dirs[1].path(), &["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    let (mut p, mut r) = (primary.client(), replica.client());
    r.until_info("master_link_status", "up");
    let scenes: &[(&str, &[(&str, &str)])] = &[
        ("0", &[("XDELEX s IDS 2 1-1 9-9", "1 -1"), ("XDELEX s DELREF IDS 2 2-1 1-1", "1 -1")]),
        (
            "1",
            &[
                ("XDELEX s ACKED IDS 3 1-1 2-1 4-1", "2 2 2"),
                ("XACK s g 1-1", "1"),
                ("XDELEX s ACKED IDS 1 1-1", "2"),
                ("XACK s h 1-1", "1"),
                ("XDELEX s IDS 1 1-1 ACKED", "1"),
                ("XDELEX s DELREF IDS 2 2-1 9-9", "1 -1"),
            ],
        ),
        (
            "3",
            &[
                ("XACKDEL s g IDS 2 4-1 9-1", "1 -1"),
                ("XACKDEL s g ACKED IDS 1 1-1", "2"),
                ("XACKDEL s g DELREF IDS 1 2-1", "1"),
                ("XACKDEL s h ACKED IDS 1 1-1", "1"),
                ("XACKDEL s h IDS 1 3-1", "1"),
            ],
        ),
        (
            "3",
            &[
                ("XACK s h 2-1 3-1", "2"),
                ("XACK s g 3-1", "1"),
                ("XTRIM s MAXLEN 0 ACKED", "1"),
                ("XTRIM s MAXLEN = 1 DELREF", "2"),
                (
                    "XTRIM s MAXLEN 1 KEEPREF LIMIT 3",
                    "-ERR syntax error, LIMIT cannot be used without the special ~ option",
                ),
                ("XTRIM s MAXLEN 3 KEEPREF KEEPREF", "-ERR syntax error"),
                ("XADD s MAXLEN 1 DELREF 9-1 a b", "9-1"),
                (
                    "XADD s ACKED DELREF 10-1 a b",
                    "-ERR Invalid stream ID specified as stream command argument",
                ),
            ],
        ),
        (
            "0",
            &[
                ("XACK s g 2-1 3-1", "2"),
                ("XTRIM s MAXLEN 3 ACKED", "1"),
                ("XTRIM s MINID 4 ACKED", "1"),
                ("XADD s ACKED MAXLEN 1 5-1 a b", "5-1"),
                ("XADD s DELREF 7-1 a b", "7-1"),
                ("XTRIM s KEEPREF MAXLEN 3", "1"),
                ("XTRIM s DELREF MINID 5", "1"),
            ],
        ),
    ];
    for (by_h, lines) in scenes {
        fill(&mut p, by_h);
        for (line, expected) in *lines {
            replies(&mut p, &[(line, expected)]);
            assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
            for look in ["XRANGE s - +", "XPENDING s g - + 100", "XPENDING s h - + 100"] {
                let args: Vec<&str> = look.split(' ').collect();
                let without_times = |text: String| -> Vec<String> {
                    text.split(' ').filter(|w| w.contains('-')).map(Into::into).collect()
                };
                let (here, there) = (p.call(&args), r.call(&args));
                assert_eq!(without_times(here), without_times(there), "{look} after {line}");
            }
        }
    }
    // What was dropped is pending for nobody.
    replies(&mut p, &[("XRANGE s - +", "5-1 a b 7-1 a b"), ("XPENDING s g", "1 1-1 1-1 c 1")]);
}
