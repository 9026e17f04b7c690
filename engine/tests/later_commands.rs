//! Commands that the stock server here is too old for: replies as those of Redis 8.4 and 8.8, and of Valkey 9.1.

mod processes;

use processes::{Client, Server};

fn replies(client: &mut Client, table: &[(&str, &str)]) {
    for (line, expected) in table {
        let args: Vec<&str> =
            line.split(' ').map(|arg| if arg == "''" { "" } else { arg }).collect();
        assert_eq!(client.call(&args), *expected, "{line}");
    }
}

fn start() -> (tempfile::TempDir, Server, Client) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let client = server.client();
    (dir, server, client)
}

/// XXH3 of nothing, as its authors publish it.
const EMPTY: &str = "2d06800538d394c2";
const OTHER: &str = "0123456789abcdef";

#[test]
fn values_are_compared_by_themselves_and_by_their_digests() {
    let (_dir, _server, mut client) = start();
    let lines = |line: &str| line.replace("EMPTY", EMPTY).replace("OTHER", OTHER);
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    for (line, expected) in [
        ("DIGEST k", "(nil)"),
        ("SET k ''", "OK"),
        ("DIGEST k", EMPTY),
        ("SET k v IFDEQ OTHER", "(nil)"),
        ("SET k v IFDNE EMPTY", "(nil)"),
        ("SET k w IFDNE OTHER GET", ""),
        ("SET k '' IFEQ w", "OK"),
        ("SET k v IFDEQ EMPTY", "OK"),
        ("SET k v IFDEQ short", "-ERR must be exactly 16 hexadecimal characters"),
        ("SET k v IFEQ v IFDEQ OTHER", "-ERR syntax error"),
        ("SET none v IFDEQ OTHER", "(nil)"),
        ("SET none '' IFDNE OTHER", "OK"),
        ("DELEX none IFDEQ OTHER", "0"),
        ("DELEX none IFEQ x", "0"),
        ("DELEX none IFDNE EMPTY", "0"),
        ("DELEX none IFDEQ EMPTY", "1"),
        ("DELEX none IFEQ", "0"),
        ("DELEX k IFEQ", "-ERR wrong number of arguments for 'delex' command"),
        ("DELEX k IFEQ a b", "-ERR wrong number of arguments for 'delex' command"),
        ("DELEX k IF v", "-ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"),
        ("DELEX k IFNE v", "0"),
        ("DELEX k IFNE w", "1"),
        ("EXISTS k", "0"),
        ("RPUSH l a", "1"),
        ("DIGEST l", wrong_type),
        ("SET l v IFDNE OTHER", wrong_type),
        ("DELEX l IFEQ a", "-ERR Key should be of string type if conditions are specified"),
        ("DELEX l", "1"),
    ] {
        replies(&mut client, &[(&lines(line), expected)]);
    }
    client.ok(&["SET", "k", ""]);
    assert_eq!(client.call(&["DELEX", "k", "IFDEQ", &EMPTY.to_uppercase()]), "1");
}

#[test]
fn increx_adds_within_its_bounds() {
    let (_dir, _server, mut client) = start();
    const MAX: &str = "9223372036854775807";
    replies(
        &mut client,
        &[
            ("INCREX n", "1 1"),
            ("INCREX n BYINT 9", "10 9"),
            ("INCREX n BYINT 10 UBOUND 15", "10 0"),
            ("INCREX n BYINT 10 UBOUND 15 SATURATE", "15 5"),
            ("INCREX n BYINT -100 LBOUND 0 SATURATE", "0 -15"),
            ("INCREX n BYINT 5 UBOUND 5", "5 5"),
            ("INCREX new BYINT 15 UBOUND 10", "0 0"),
            ("EXISTS new", "0"),
            ("SET n 50", "OK"),
            ("INCREX n BYINT 5 UBOUND 30 SATURATE", "30 -20"),
            ("SET n 9223372036854775800", "OK"),
            ("INCREX n BYINT 9223372036854775800", "9223372036854775800 0"),
            (
                "INCREX n BYINT 1 SATURATE UBOUND -9223372036854775808",
                "-ERR applied increment would overflow",
            ),
            ("INCREX n BYINT 9223372036854775800 SATURATE", "9223372036854775807 7"),
            ("GET n", MAX),
            ("SET n -9223372036854775800", "OK"),
            ("INCREX n BYINT -9223372036854775808 SATURATE", "-9223372036854775808 -8"),
            ("SET f 1.5", "OK"),
            ("INCREX f BYFLOAT 0.25", "1.75 0.25"),
            ("INCREX f BYFLOAT 100 UBOUND 42.5", "1.75 0"),
            ("INCREX f BYFLOAT 100 UBOUND 42.5 SATURATE", "42.5 40.75"),
            ("INCREX f BYFLOAT -100 LBOUND -5.5 SATURATE", "-5.5 -48"),
            ("INCREX f BYFLOAT inf", "-ERR BYFLOAT increment cannot be Infinity"),
            ("INCREX f", "-ERR value is not an integer or out of range"),
            ("SET f inf", "OK"),
            ("INCREX f BYFLOAT 1", "-ERR value cannot be Infinity"),
            ("SET f 1e308", "OK"),
            ("INCREX n BYINT 1.5", "-ERR value is not an integer or out of range"),
            ("INCREX n BYFLOAT x", "-ERR value is not a valid float"),
            ("INCREX n BYINT 1 BYFLOAT 1", "-ERR syntax error"),
            ("INCREX n BYINT", "-ERR syntax error"),
            ("INCREX n FOO", "-ERR syntax error"),
            ("INCREX n LBOUND 10 UBOUND 5", "-ERR LBOUND can't be greater than UBOUND"),
            (
                "INCREX n BYFLOAT 1 LBOUND 1.5 UBOUND 0.5",
                "-ERR LBOUND can't be greater than UBOUND",
            ),
            ("INCREX n ENX", "-ERR ENX flag requires an expiration"),
            ("INCREX n PERSIST ENX", "-ERR syntax error"),
            ("INCREX n EX 10 PX 10", "-ERR syntax error"),
            ("INCREX n EX 10 PERSIST", "-ERR syntax error"),
            ("INCREX n EX 0", "-ERR invalid expire time in 'increx' command"),
            ("SET n 1", "OK"),
            ("INCREX n BYINT 100 UBOUND 15 EX 100", "1 0"),
            ("TTL n", "-1"),
            ("INCREX n EX 100 ENX", "2 1"),
            ("TTL n", "100"),
            ("INCREX n EX 500 ENX", "3 1"),
            ("TTL n", "100"),
            ("INCREX n", "4 1"),
            ("TTL n", "100"),
            ("INCREX n EX 500", "5 1"),
            ("TTL n", "500"),
            ("INCREX n PERSIST", "6 1"),
            ("TTL n", "-1"),
            ("INCREX n EXAT 1", "7 1"),
            ("EXISTS n", "0"),
            ("RPUSH l a", "1"),
            ("INCREX l", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ],
    );
}

#[test]
fn places_are_found_within_a_polygon() {
    let (_dir, _server, mut client) = start();
    client.call(
        &"GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania 14.0 37.0 Mid 2.35 48.85 Paris 12.758489 38.788135 edge1"
            .split(' ')
            .collect::<Vec<_>>(),
    );
    let few = "-ERR GEOSEARCH BYPOLYGON must have at least 3 vertices";
    let box4 = "BYPOLYGON 4 12 36 16 36 16 39 12 39";
    for (line, expected) in [
        ("GEOSEARCH g BOX ASC", "Mid Palermo Catania edge1"),
        ("GEOSEARCH g BOX DESC COUNT 1", "edge1"),
        (
            "GEOSEARCH g BOX ASC WITHDIST",
            "Mid 57488.7673 Palermo 87079.3757 Catania 95942.2984 edge1 178279.5297",
        ),
        ("GEOSEARCH g BYPOLYGON 3 12 36 16 36 16 39 ASC", "Mid Catania"),
        ("GEOSEARCH g BYPOLYGON 4 12 36 16 39 16 36 12 39", "Catania"),
        ("GEOSEARCH g BYPOLYGON 3 12 36 12 36 12 36", ""),
        ("GEOSEARCH g BYPOLYGON 2 12 36 16 36", few),
        ("GEOSEARCH g BYPOLYGON -1 12 36 16 36", few),
        ("GEOSEARCH g BYPOLYGON 4 12 36 16 36 16 39", few),
        ("GEOSEARCH g BYPOLYGON 2147483647 12 36 16 36 16 39", few),
        ("GEOSEARCH g BYPOLYGON x 12 36 16 36 1 1", "-ERR invalid number of vertices"),
        (
            "GEOSEARCH g BYPOLYGON 9223372036854775807 12 36 16 36 16 39",
            "-ERR invalid number of vertices",
        ),
        ("GEOSEARCH g BYPOLYGON 3 12 36 16 36 16 39 12", "-ERR syntax error"),
        (
            "GEOSEARCH g BYPOLYGON 3 12 36 16 36 16 99",
            "-ERR invalid longitude,latitude pair 16.000000,99.000000",
        ),
        ("GEOSEARCH g BYPOLYGON 3 12 36 16 36 16 x", "-ERR value is not a valid float"),
        ("GEOSEARCH g FROMLONLAT 15 37 BOX", "-ERR syntax error"),
        ("GEOSEARCH g BOX FROMMEMBER Mid", "-ERR syntax error"),
        ("GEOSEARCH g BOX BYRADIUS 10 km", "-ERR syntax error"),
        ("GEOSEARCH g BYRADIUS 10 km BOX", "-ERR syntax error"),
        ("GEORADIUS g 15 37 200 km BOX", "-ERR syntax error"),
        ("GEOSEARCH none BOX", ""),
        ("GEOSEARCHSTORE d g BOX", "4"),
        ("ZRANGE d 0 -1", "Mid Palermo edge1 Catania"),
        ("GEOSEARCHSTORE d g BOX STOREDIST", "4"),
        ("ZRANGE d 0 -1", "Mid Palermo Catania edge1"),
    ] {
        replies(&mut client, &[(&line.replace("BOX", box4), expected)]);
    }
}

#[test]
fn clusterscan_needs_a_cluster() {
    let (_dir, _server, mut client) = start();
    replies(&mut client, &[("CLUSTERSCAN 0", "-ERR This instance has cluster support disabled")]);
}

#[test]
fn a_picture_has_the_size_that_is_asked_for_and_the_version_below() {
    let (_dir, _server, mut client) = start();
    let version = concat!("Larder ver. ", env!("CARGO_PKG_VERSION"));
    for (args, lines) in [
        (&["LOLWUT"][..], 18),
        (&["LOLWUT", "VERSION", "5"], 18),
        (&["LOLWUT", "4", "1"], 6),
        (&["LOLWUT", "VERSION", "6", "4", "2"], 12),
        (&["LOLWUT", "-1", "9223372036854775807"], 120),
    ] {
        let text = client.call(args);
        assert_eq!(text.lines().count(), lines + 2, "{args:?}: {text}");
        assert_eq!(text.lines().last(), Some(version), "{args:?}");
    }
    let refused = "-ERR value is not an integer or out of range";
    replies(&mut client, &[("LOLWUT VERSION x", refused), ("LOLWUT x", refused)]);
}

#[test]
fn a_cached_script_is_shown() {
    let (_dir, _server, mut client) = start();
    let hash = client.call(&["SCRIPT", "LOAD", "return 1"]);
    replies(
        &mut client,
        &[
            (&format!("SCRIPT SHOW {hash}"), "return 1"),
            (&format!("SCRIPT SHOW {}", hash.to_uppercase()), "return 1"),
            ("SCRIPT SHOW x", "-NOSCRIPT No matching script."),
            ("SCRIPT SHOW", "-ERR wrong number of arguments for 'script|show' command"),
        ],
    );
}

#[test]
fn latency_and_memory_are_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(
        dir.path(),
        &["--enable-debug-command", "yes", "--latency-monitor-threshold", "1"],
    );
    let mut client = server.client();
    replies(
        &mut client,
        &[
            ("LATENCY GRAPH command", "-ERR No samples available for event 'command'"),
            ("LATENCY GRAPH", "-ERR wrong number of arguments for 'latency|graph' command"),
            ("DEBUG SLEEP 0.005", "OK"),
            ("MEMORY DOCTOR", "Too little memory is used for a diagnosis.\n"),
        ],
    );
    let graph = client.call(&["LATENCY", "GRAPH", "Command"]);
    assert!(graph.starts_with("command - high ") && graph.contains("\n_"), "{graph}");
    let text = client.call(&["MEMORY", "MALLOC-STATS"]);
    assert!(text.contains("allocated: ") && text.contains("resident: "), "{text}");
    for n in 0..10 {
        client.ok(&["SET", &format!("key:{n}"), &"x".repeat(1 << 20)]);
    }
    let text = client.call(&["MEMORY", "DOCTOR"]);
    assert!(text.starts_with("Nothing unusual: "), "{text}");
    client.ok(&["CONFIG", "SET", "maxmemory", "10500kb"]);
    let text = client.call(&["MEMORY", "DOCTOR"]);
    assert!(text.starts_with("Limit: "), "{text}");
    client.ok(&["CONFIG", "SET", "maxmemory", "0"]);
    // The peak is taken when it is looked at.
    assert_ne!(client.info("used_memory_peak"), "");
    assert_eq!(client.call(&["DEL", "key:0", "key:1", "key:2", "key:3", "key:4"]), "5");
    let text = client.call(&["MEMORY", "DOCTOR"]);
    assert!(text.starts_with("Peak: "), "{text}");
}

#[test]
fn a_client_that_can_be_redirected_is_told_where_the_primary_is() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &[]);
    let port = primary.port.to_string();
    let replica = Server::start(dirs[1].path(), &["--replicaof", "127.0.0.1", &port]);
    let mut client = replica.client();
    client.until_info("master_link_status", "up");
    let elsewhere = format!("-REDIRECT 127.0.0.1:{port}");
    let no_cluster = "-ERR This instance has cluster support disabled";
    let read_only = "-READONLY You can't write against a read only replica.";
    replies(
        &mut client,
        &[
            ("SET k v", read_only),
            ("GET k", "(nil)"),
            ("READONLY", no_cluster),
            ("CLIENT CAPA", "-ERR wrong number of arguments for 'client|capa' command"),
            ("CLIENT CAPA nothing-known", "OK"),
            ("GET k", "(nil)"),
            ("CLIENT CAPA other redirect", "OK"),
            ("SET k v", &elsewhere),
            ("GET k", &elsewhere),
            ("PING", "PONG"),
            ("READONLY", "OK"),
            ("GET k", "(nil)"),
            ("SET k v", &elsewhere),
            ("READWRITE", "OK"),
            ("GET k", &elsewhere),
            ("MULTI", "OK"),
            ("GET k", &elsewhere),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
        ],
    );
    assert!(client.call(&["CLIENT", "LIST"]).contains(" capa=r "));
    replies(&mut client, &[("RESET", "RESET"), ("GET k", "(nil)"), ("READONLY", no_cluster)]);
    let mut client = primary.client();
    replies(&mut client, &[("CLIENT CAPA redirect", "OK"), ("SET k v", "OK"), ("GET k", "v")]);
}

#[test]
fn in_import_mode_nothing_expires_and_only_who_imports_sees_it() {
    let (_dir, server, mut source) = start();
    let mut other = server.client();
    replies(
        &mut source,
        &[
            ("CLIENT IMPORT-SOURCE ON", "-ERR Server is not in import mode"),
            ("CLIENT IMPORT-SOURCE OFF", "OK"),
            ("CONFIG SET import-mode yes", "OK"),
            ("CLIENT IMPORT-SOURCE x", "-ERR syntax error"),
            ("CLIENT IMPORT-SOURCE ON", "OK"),
            ("SET old v PXAT 1", "OK"),
            ("GET old", "v"),
            ("HSET h f v", "1"),
            ("PEXPIREAT h 1", "1"),
            ("HGET h f", "v"),
        ],
    );
    assert!(source.call(&["CLIENT", "LIST"]).contains(" flags=I "));
    replies(&mut other, &[("GET old", "(nil)"), ("EXISTS h", "0"), ("DBSIZE", "2")]);
    replies(
        &mut source,
        &[
            ("GET old", "v"),
            ("CLIENT IMPORT-SOURCE OFF", "OK"),
            ("GET old", "(nil)"),
            ("DBSIZE", "2"),
            ("CONFIG SET import-mode no", "OK"),
            ("GET old", "(nil)"),
            ("EXISTS h", "0"),
            ("DBSIZE", "0"),
        ],
    );
}
