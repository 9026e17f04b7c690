//! What an item is to both protocols, on a replica, and after a restart.

use std::net::SocketAddr;
use std::time::Duration;

use crate::processes::Server as Process;
use crate::support::Value;
use crate::{ask, free_port, larder, packet, packets_of, text};

#[test]
fn a_value_is_the_same_through_both_protocols_and_a_write_by_either_changes_its_cas() {
    let (server, addr) = larder(&[]);
    let mut resp = server.connect();
    assert_eq!(text(addr, b"set a 7 0 2\r\nhi\r\n"), b"STORED\r\n");
    assert_eq!(resp.words("GET a"), Value::Bulk(b"hi".to_vec()));
    let cas = |addr| {
        let reply = text(addr, b"mg a c\r\n");
        String::from_utf8(reply).unwrap().trim().to_string()
    };
    let first = cas(addr);
    assert_eq!(cas(addr), first);
    resp.words("APPEND a !");
    assert_ne!(cas(addr), first);
    assert_eq!(text(addr, b"get a\r\n"), b"VALUE a 7 3\r\nhi!\r\nEND\r\n");
    let second = cas(addr);
    resp.words("SET a hi!");
    assert_ne!(cas(addr), second);
    assert_eq!(text(addr, b"get a\r\n"), b"VALUE a 0 3\r\nhi!\r\nEND\r\n");
    resp.words("RPUSH l 1");
    assert_eq!(text(addr, b"get l\r\n"), b"END\r\n");
    let refused = text(addr, b"append l 0 0 1\r\nx\r\n");
    assert!(refused.starts_with(b"SERVER_ERROR WRONGTYPE"), "{}", refused.escape_ascii());
}

#[test]
fn a_number_that_gets_shorter_keeps_its_length() {
    let (_server, addr) = larder(&[]);
    let script = b"set n 3 0 2\r\n10\r\ndecr n 1\r\nget n\r\ndecr n 100\r\nincr n 5\r\nget n\r\n";
    let expected =
        b"STORED\r\n9\r\nVALUE n 3 2\r\n9 \r\nEND\r\n0\r\n5\r\nVALUE n 3 2\r\n5 \r\nEND\r\n";
    assert_eq!(text(addr, script), expected);
}

#[test]
fn what_is_too_large_is_refused_and_the_key_holds_no_older_value() {
    let (_server, addr) = larder(&[]);
    let large = |verb: &str| {
        let head = format!("{verb} 2000000\r\n");
        [head.as_bytes(), &vec![b'x'; 2_000_000], b"\r\nget a\r\n"].concat()
    };
    for verb in ["set a 0 0", "ms a"] {
        text(addr, b"set a 0 0 3\r\nold\r\n");
        let expected = b"SERVER_ERROR object too large for cache\r\nEND\r\n";
        assert_eq!(text(addr, &large(verb)), expected);
    }
    let fits = vec![b'x'; (1 << 20) - 100];
    let head = format!("set a 0 0 {}\r\n", fits.len());
    assert_eq!(text(addr, &[head.as_bytes(), &fits, b"\r\n"].concat()), b"STORED\r\n");
}

/// Every operation that changes an item, and what is then to be seen of it: key by key on one line.
const CHANGES: &[u8] = b"set append 1 0 1\r\na\r\nappend append 0 0 1\r\nb\r\n\
    set prepend 2 100000 1\r\na\r\nprepend prepend 0 0 1\r\nb\r\n\
    set incr 3 0 1\r\n8\r\nincr incr 5\r\nset decr 4 0 2\r\n10\r\ndecr decr 1\r\n\
    set touch 5 0 1\r\na\r\ntouch touch 100000\r\nset gat 6 100000 1\r\na\r\ngat 0 gat\r\n\
    ms chosen 1 F7 E77\r\na\r\nms swapped 1 E5\r\na\r\nms swapped 1 C5 E6 F8\r\nb\r\n\
    ms dated 1 F9 T100000\r\na\r\nmd dated I T50000\r\nms emptied 1 F10\r\na\r\nmd emptied x\r\n\
    mg made N100000 v\r\nma counted N100000 J12\r\nset gone 1 0 1\r\na\r\ndelete gone\r\n\
    set born 1 0 1\r\na\r\nset born 1 -1 1\r\na\r\nset large 1 0 1\r\na\r\n";
const CHANGED: &[&str] = &[
    "append", "prepend", "incr", "decr", "touch", "gat", "chosen", "swapped", "dated", "emptied",
    "made", "counted", "gone", "born", "large",
];

/// Flags, expiry (to a hundred seconds), marks and values. The second look, since the first may win a lease.
fn look(addr: SocketAddr) -> Vec<String> {
    let shown = |key: &&str| {
        text(addr, format!("mg {key}\r\n").as_bytes());
        let reply = text(addr, format!("mg {key} k f t v\r\n").as_bytes());
        let words = String::from_utf8(reply).unwrap();
        let word = |word: &str| match word.strip_prefix('t').map(str::parse::<i64>) {
            Some(Ok(left)) => format!("t{}", (left + 50) / 100),
            _ => word.to_string(),
        };
        words.split([' ', '\r']).map(word).collect::<Vec<_>>().join(" ")
    };
    CHANGED.iter().map(shown).collect()
}

fn change(addr: SocketAddr) {
    text(addr, CHANGES);
    let large = [&b"set large 1 0 2000000\r\n"[..], &vec![b'x'; 2_000_000], b"\r\n"].concat();
    assert!(text(addr, &large).starts_with(b"SERVER_ERROR object too large"));
}

#[test]
fn flags_reach_a_replica_by_the_stream_and_by_a_full_sync() {
    let (primary, addr) = larder(&[]);
    text(addr, b"set early 7 0 2\r\nhi\r\nms stale 1 F3\r\nx\r\nmd stale I\r\n");
    let (replica, copy) = larder(&[]);
    replica.connect().words(&format!("REPLICAOF 127.0.0.1 {}", primary.addr.port()));
    let mut info = replica.connect();
    for _ in 0..1000 {
        let reply = info.words("INFO replication");
        if let Value::Bulk(text) | Value::Verbatim(text) = reply
            && String::from_utf8_lossy(&text).contains("master_link_status:up")
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    change(addr);
    text(addr, b"set late 9 0 2\r\nho\r\nincr late 1\r\nset n 5 0 1\r\n1\r\nincr n 1\r\n");
    // WAIT is for what its own connection has written.
    let mut writer = primary.connect();
    writer.words("SET last 1");
    assert_eq!(writer.words("WAIT 1 10000"), Value::Int(1));
    let expected = b"VALUE early 7 2\r\nhi\r\nVALUE late 9 2\r\nho\r\nVALUE n 5 1\r\n2\r\nEND\r\n";
    let seen = text(copy, b"get early late n\r\n");
    assert_eq!(seen.escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert_eq!(text(copy, b"mg stale f v\r\n"), b"VA 1 f3 X W\r\nx\r\n");
    assert_eq!(look(copy), look(addr));
    for request in [
        "set a 0 0 1\r\nx\r\n",
        "add a 0 0 1\r\nx\r\n",
        "append early 0 0 1\r\nx\r\n",
        "delete early\r\n",
        "touch early 5\r\n",
        "gat 5 early\r\n",
        "incr n 1\r\n",
        "flush_all\r\n",
        "flush_all 1\r\n",
        "ms a 1\r\nx\r\n",
        "mg a N30\r\n",
        "mg early T5\r\n",
        "md early\r\n",
        "md early I\r\n",
        "ma n\r\n",
    ] {
        let refused = text(copy, request.as_bytes());
        assert!(
            refused.starts_with(b"SERVER_ERROR READONLY"),
            "{request} {}",
            refused.escape_ascii()
        );
    }
    let silent = b"set a 0 0 1 noreply\r\nx\r\ndelete early noreply\r\nincr n 1 noreply\r\nflush_all noreply\r\n";
    assert_eq!(text(copy, silent), b"");
    let large = [&b"set early 0 0 2000000\r\n"[..], &vec![b'x'; 2_000_000], b"\r\n"].concat();
    assert!(text(copy, &large).starts_with(b"SERVER_ERROR READONLY"));
    assert_eq!(text(copy, b"get a early n\r\n"), text(addr, b"get a early n\r\n"));
    let refused = text(copy, b"set a 0 0 1\r\nx\r\n");
    assert!(refused.starts_with(b"SERVER_ERROR READONLY"), "{}", refused.escape_ascii());
}

#[test]
fn flags_marks_and_expiry_outlive_a_restart_and_an_old_cas_does_not() {
    for (args, saves) in [(["--appendonly", "yes"], false), (["--appendonly", "no"], true)] {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port().to_string();
        let args = [&args[..], &["--memcached-port", &port, "--appendfsync", "always"]].concat();
        let addr = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        let mut server = Process::start(dir.path(), &args);
        change(addr);
        text(addr, b"set short 1 1 1\r\na\r\nset cas 5 0 1\r\na\r\n");
        let cas = |addr| {
            let reply = String::from_utf8(text(addr, b"gets cas\r\n")).unwrap();
            reply.lines().next().unwrap().rsplit(' ').next().unwrap().to_string()
        };
        let (before, old) = (look(addr), cas(addr));
        if saves {
            server.client().ok(&["SAVE"]);
        }
        server.kill();
        let _server = Process::start(dir.path(), &args);
        assert_eq!(look(addr), before, "{args:?}");
        let swap = |cas: &str| text(addr, format!("cas cas 6 0 1 {cas}\r\nb\r\n").as_bytes());
        assert_eq!(swap(&old), b"EXISTS\r\n", "{args:?}");
        assert_eq!(swap(&cas(addr)), b"STORED\r\n", "{args:?}");
        assert_eq!(text(addr, b"get cas\r\n"), b"VALUE cas 6 1\r\nb\r\nEND\r\n");
        for _ in 0..1000 {
            if text(addr, b"get short\r\n") == b"END\r\n" {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(text(addr, b"get short\r\n"), b"END\r\n", "{args:?}");
    }
}

#[test]
fn a_flush_that_is_put_off_comes_when_its_time_has_come() {
    let (_server, addr) = larder(&[]);
    assert_eq!(text(addr, b"set a 0 0 1\r\nx\r\nflush_all 1\r\n"), b"STORED\r\nOK\r\n");
    for _ in 0..1000 {
        if text(addr, b"get a\r\n") == b"END\r\n" {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never flushed");
}

#[test]
fn who_has_a_password_must_log_in() {
    let (_server, addr) = larder(&["--requirepass", "secret"]);
    let session = |bytes: &[u8]| ask(addr, bytes, b"quit\r\n", b"never");
    let refused = "CLIENT_ERROR unauthenticated\r\n<closed>";
    assert_eq!(session(b"get a\r\n"), refused.as_bytes());
    let wrong = session(b"set u 0 0 13\r\ndefault wrong\r\nget a\r\n");
    let expected =
        "CLIENT_ERROR authentication failure\r\nCLIENT_ERROR unauthenticated\r\n<closed>";
    assert_eq!(wrong, expected.as_bytes());
    let right = session(b"set u 0 0 14\r\ndefault secret\r\nget a\r\n");
    assert_eq!(right, b"STORED\r\nEND\r\n<closed>");
    let get = packet(0x00, 0, &[], b"k", b"");
    let plain = packet(0x21, 0, &[], b"PLAIN", b"\0default\0secret");
    let quit = packet(0x07, 0, &[], b"", b"");
    let reply = ask(addr, &[get.clone(), plain, get].concat(), &quit, b"never");
    let statuses: Vec<u8> = packets_of(&reply).iter().map(|p| p[7]).collect();
    assert_eq!(statuses, [0x20, 0, 1, 0]);
}

#[test]
fn requests_are_seen_by_monitors_the_slow_log_and_the_counters_of_the_commands_that_they_are() {
    let (server, addr) = larder(&["--slowlog-log-slower-than", "0"]);
    let (mut looks, mut resp) = (server.connect(), server.connect());
    assert_eq!(looks.words("MONITOR"), Value::Simple(b"OK".to_vec()));
    assert_eq!(text(addr, b"set a 0 0 2\r\nhi\r\n"), b"STORED\r\n");
    assert_eq!(text(addr, b"get a\r\n"), b"VALUE a 0 2\r\nhi\r\nEND\r\n");
    for seen in [" \"set\" \"a\"", " \"get\" \"a\""] {
        let line = looks.reply().unwrap().to_string();
        assert!(line.contains(&seen.escape_default().to_string()) || line.contains(seen), "{line}");
    }
    let log = resp.words("SLOWLOG GET -1").to_string();
    assert!(log.contains("[\"get\", \"a\"]") && log.contains("[\"set\", \"a\"]"), "{log}");
    let calls = resp.words("LATENCY HISTOGRAM get").to_string();
    assert!(calls.starts_with("[\"get\", [\"calls\", :1, \"histogram_usec\", "), "{calls}");
}

#[test]
fn large_requests_and_replies_are_in_the_log_of_commands() {
    let limits =
        ["--commandlog-request-larger-than", "1000", "--commandlog-reply-larger-than", "1000"];
    let (server, addr) = larder(&limits);
    let value = "v".repeat(2000);
    let requests = format!(
        "set large 0 0 2000\r\n{value}\r\nget large\r\nset small 0 0 1\r\nx\r\nget small\r\n"
    );
    text(addr, requests.as_bytes());
    let mut resp = server.connect();
    for (kind, command) in [("large-request", "set"), ("large-reply", "get")] {
        let entries = resp.words(&format!("COMMANDLOG GET -1 {kind}")).items();
        assert_eq!(entries.len(), 1, "{kind}");
        let entry = entries[0].clone().items();
        let words: Vec<String> =
            entry[3].clone().items().iter().map(crate::support::value::text).collect();
        assert_eq!(words, [command, "large"], "{kind}");
        assert!(matches!(entry[2], Value::Int(2000..2100)), "{}", entry[2]);
    }
}
