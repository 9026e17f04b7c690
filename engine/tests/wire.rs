//! The protocol over raw sockets: framing, its limits, and what a hostile client costs.
//!
//! Where a row's answer is that of a stock redis-server, the same bytes are also sent to one, when
//! it is installed, so that the table cannot drift from what clients know.

mod support;

use std::time::Duration;

use support::{Client, Server, Value, encode};

/// Long enough for a reply on a loaded machine; only spent when the server does not close.
const QUIET: Duration = Duration::from_millis(300);

/// Bytes sent at once, the whole answer, and whether the connection is closed after it.
struct Row {
    sent: Vec<u8>,
    answer: &'static [u8],
    closed: bool,
}

fn keeps(sent: impl AsRef<[u8]>, answer: &'static str) -> Row {
    Row { sent: sent.as_ref().to_vec(), answer: answer.as_bytes(), closed: false }
}

fn closes(sent: impl AsRef<[u8]>, answer: &'static str) -> Row {
    Row { sent: sent.as_ref().to_vec(), answer: answer.as_bytes(), closed: true }
}

fn check(server: &Server, who: &str, rows: &[Row], wrong: &mut Vec<String>) {
    for row in rows {
        let mut client = server.connect();
        client.try_send_raw(&row.sent);
        let (answer, closed) = if row.closed {
            client.drain(Duration::from_secs(5))
        } else {
            // What is still open must still be in step: a PING ends the answer.
            client.try_send_raw(b"*2\r\n$4\r\nPING\r\n$6\r\nmarker\r\n");
            read_to_marker(&mut client)
        };
        if answer != row.answer || closed != row.closed {
            wrong.push(format!(
                "{who}: {:.120}\n   expected {:?} (closed: {})\n   answered {:?} (closed: {closed})",
                row.sent.escape_ascii().to_string(),
                row.answer.escape_ascii().to_string(),
                row.closed,
                answer.escape_ascii().to_string(),
            ));
        }
    }
}

fn read_to_marker(client: &mut Client) -> (Vec<u8>, bool) {
    const MARKER: &[u8] = b"$6\r\nmarker\r\n";
    let mut all = Vec::new();
    for _ in 0..50 {
        let (more, closed) = client.drain(Duration::from_millis(100));
        all.extend(more);
        if let Some(before) = all.strip_suffix(MARKER) {
            return (before.to_vec(), false);
        }
        if closed {
            return (all, true);
        }
    }
    (all, false)
}

/// Runs a table on the engine and, when `stock` says that the answers are redis-server's own,
/// on that too.
fn run_table(extra: &[&str], stock: bool, rows: &[Row]) {
    let mut wrong = Vec::new();
    let mut server = Server::larder(extra);
    check(&server, "larder-server", rows, &mut wrong);
    assert!(server.is_alive(), "the server ended");
    if stock {
        match Server::oracle(extra) {
            Ok(oracle) => check(&oracle, "redis-server", rows, &mut wrong),
            Err(why) => println!("skipped the comparison with redis-server: {why}"),
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn malformed_frames_get_one_protocol_error_and_are_closed() {
    let inline_long = [b"PING ".to_vec(), vec![b'a'; 70_000]].concat();
    let count_long = [b"*1".to_vec(), vec![b'1'; 70_000]].concat();
    let bulk_long = [b"*1\r\n$1".to_vec(), vec![b'1'; 70_000]].concat();
    run_table(
        &[],
        true,
        &[
            closes("*1\r\nPING\r\n", "-ERR Protocol error: expected '$', got 'P'\r\n"),
            closes("*1\r\n:4\r\n", "-ERR Protocol error: expected '$', got ':'\r\n"),
            closes("*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            closes("*2147483648\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            closes(
                "*99999999999999999999\r\n",
                "-ERR Protocol error: invalid multibulk length\r\n",
            ),
            closes("*+1\r\n$4\r\nPING\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            closes("*01\r\n$4\r\nPING\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            closes("*1 \r\n$4\r\nPING\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            closes("*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            closes("*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            closes("*1\r\n$+4\r\nPING\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            closes("*1\r\n$04\r\nPING\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            closes("*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            closes("*1\r\n$\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            closes("PING \"open\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
            closes("PING \"a\"b\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
            closes(&inline_long, "-ERR Protocol error: too big inline request\r\n"),
            closes(&count_long, "-ERR Protocol error: too big mbulk count string\r\n"),
            closes(&bulk_long, "-ERR Protocol error: too big bulk count string\r\n"),
        ],
    );
}

#[test]
fn empty_requests_and_odd_lines_keep_the_connection_in_step() {
    run_table(
        &[],
        true,
        &[
            keeps("", ""),
            keeps("\r\n", ""),
            keeps("\n\n\r\n", ""),
            keeps("*0\r\n", ""),
            keeps("*-1\r\n", ""),
            keeps("*-10\r\n*0\r\n*1\r\n$4\r\nPING\r\n", "+PONG\r\n"),
            keeps("PING\r\n", "+PONG\r\n"),
            keeps("PING\n", "+PONG\r\n"),
            keeps("   ping   hello  \r\n", "$5\r\nhello\r\n"),
            keeps("PING \"a b\"\r\n", "$3\r\na b\r\n"),
            keeps("PING \"\\x41\\n\\\"\"\r\n", "$3\r\nA\n\"\r\n"),
            keeps("PING 'it\\'s'\r\n", "$4\r\nit's\r\n"),
            keeps("PING ''\r\n", "$0\r\n\r\n"),
            keeps("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "$0\r\n\r\n"),
            keeps("*2\r\n$4\r\nECHO\r\n$8\r\na\r\nb\0c\r\n\r\n", "$8\r\na\r\nb\0c\r\n\r\n"),
            keeps("PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n", "+PONG\r\n+PONG\r\n+PONG\r\n"),
            keeps(
                "*1\r\n$5\r\nNOSUC\r\n",
                "-ERR unknown command 'NOSUC', with args beginning with: \r\n",
            ),
            keeps(
                encode(&[b"no\r\nway".as_slice(), b"a\r\n"]),
                "-ERR unknown command 'no  way', with args beginning with: 'a  ' \r\n",
            ),
        ],
    );
}

#[test]
fn cr_without_lf_waits_for_more() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    client.send_raw(b"PING\r");
    assert_eq!(client.drain(QUIET), (vec![], false));
    client.send_raw(b"\n");
    assert_eq!(client.reply(), Ok(Value::Simple(b"PONG".to_vec())));
}

#[test]
fn request_split_at_every_byte_is_the_same_request() {
    let server = Server::larder(&[]);
    let mut bytes = encode(&["SET", "split", "a\r\nb"]);
    bytes.extend(encode(&["GET", "split"]));
    bytes.extend_from_slice(b"ECHO \"in line\"\r\n");
    bytes.extend(encode(&["ECHO", ""]));
    let expected = b"+OK\r\n$4\r\na\r\nb\r\n$7\r\nin line\r\n$0\r\n\r\n";
    for split in 1..bytes.len() {
        let mut client = server.connect();
        client.send_raw(&bytes[..split]);
        // Another connection's round trip gives the first half time to be read alone.
        server.connect().words("PING");
        client.send_raw(&bytes[split..]);
        let answer = read_exactly(&mut client, expected.len());
        assert_eq!(
            answer.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "split at {split}"
        );
    }
    let mut client = server.connect();
    for byte in &bytes {
        client.send_raw(std::slice::from_ref(byte));
    }
    assert_eq!(read_exactly(&mut client, expected.len()), expected);
}

fn read_exactly(client: &mut Client, length: usize) -> Vec<u8> {
    use std::io::Read as _;
    let mut answer = vec![0; length];
    client.stream.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn deep_pipeline_is_answered_in_order() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let bytes: Vec<u8> =
        (0..20_000).flat_map(|number| encode(&["ECHO".to_owned(), number.to_string()])).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        use std::io::Write as _;
        writer.write_all(&bytes).unwrap();
    });
    for number in 0..20_000 {
        assert_eq!(client.reply(), Ok(Value::Bulk(number.to_string().into_bytes())));
    }
    sender.join().unwrap();
}

#[test]
fn large_value_returns_whole() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let value: Vec<u8> = (0..8 << 20).map(|at: u32| (at.wrapping_mul(31) >> 3) as u8).collect();
    let set = client.command(&[b"SET".as_slice(), b"big", &value]);
    assert_eq!(set, Value::Simple(b"OK".to_vec()));
    assert_eq!(client.command(&["GET", "big"]), Value::Bulk(value));
}

#[test]
fn http_requests_are_closed_and_their_body_is_not_run() {
    let server = Server::larder(&[]);
    for head in ["POST / HTTP/1.1", "GET / HTTP/1.1\r\nHost: localhost", "HEAD / X\r\nhost: x"] {
        let mut client = server.connect();
        client.try_send_raw(format!("{head}\r\n\r\nSET http 1\r\n").as_bytes());
        let (answer, closed) = client.drain(Duration::from_secs(5));
        assert!(closed, "{head}: answered {:?}", answer.escape_ascii().to_string());
        assert_eq!(server.connect().words("EXISTS http"), Value::Int(0), "{head}");
    }
}

const LOCKED: &[&str] = &["--requirepass", "secret"];

#[test]
fn unauthenticated_requests_are_held_to_small_limits() {
    run_table(
        LOCKED,
        true,
        &[
            closes("*11\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n"),
            closes("*1048576\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n"),
            closes("*2\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"),
            closes("*2\r\n$536870912\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"),
            closes("*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        ],
    );
}

#[test]
fn nothing_is_served_before_the_password() {
    let server = Server::larder(LOCKED);
    let mut client = server.connect();
    let refused = Value::Error(b"NOAUTH Authentication required.".to_vec());
    for words in
        ["PING", "GET a", "SET a 1", "INFO", "CONFIG GET *", "KEYS *", "MULTI", "CLUSTER NODES"]
    {
        assert_eq!(client.words(words), refused, "{words}");
    }
    let wrong = client.words("AUTH wrong");
    let text = b"WRONGPASS invalid username-password pair or user is disabled.".to_vec();
    assert_eq!(wrong, Value::Error(text));
    assert_eq!(client.words("GET a"), refused);
    assert_eq!(client.words("AUTH secret"), Value::Simple(b"OK".to_vec()));
    assert_eq!(client.words("GET a"), Value::NilBulk);
    let mut second = server.connect();
    assert_eq!(second.words("AUTH default secret"), Value::Simple(b"OK".to_vec()));
    let mut third = server.connect();
    assert!(!third.words("HELLO 3 AUTH default secret").is_error());
    assert_eq!(third.words("GET a"), Value::Null);
}

#[test]
fn limits_of_the_unauthenticated_end_with_the_password() {
    let server = Server::larder(LOCKED);
    let mut client = server.connect();
    client.words("AUTH secret");
    let value = vec![b'v'; 20_000];
    let many: Vec<&[u8]> =
        std::iter::once(b"DEL".as_slice()).chain([b"k".as_slice(); 40]).collect();
    assert_eq!(client.command(&[b"SET".as_slice(), b"k", &value]), Value::Simple(b"OK".to_vec()));
    assert_eq!(client.command(&many), Value::Int(1));
}

#[test]
fn unread_refusals_do_not_grow_without_bound() {
    let server = Server::larder(LOCKED);
    let mut client = server.connect();
    client.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    // 64 MiB of pipelined requests whose refusals nobody reads: more than twice that in replies.
    let batch = b"*1\r\n$4\r\nPING\r\n".repeat(64 * 1024);
    let sent = (0..72).take_while(|_| client.try_send_raw(&batch)).count();
    let rss = resident_mib(server.pid());
    assert!(rss < 200, "{rss} MiB resident after {sent} batches");
    assert_eq!(server.connect().words("AUTH secret"), Value::Simple(b"OK".to_vec()));
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn announced_lengths_take_no_memory_before_their_bytes_come() {
    let server = Server::larder(&[]);
    let before = resident_mib(server.pid());
    let clients: Vec<Client> = (0..100)
        .map(|number| {
            let mut client = server.connect();
            client.send_raw(if number % 2 == 0 {
                b"*1048576\r\n".as_slice()
            } else {
                b"*2\r\n$4\r\nECHO\r\n$536870912\r\nx"
            });
            client
        })
        .collect();
    server.connect().words("PING");
    let after = resident_mib(server.pid());
    assert!(after < before + 100, "{before} MiB before, {after} MiB after");
    drop(clients);
    assert_eq!(server.connect().words("PING"), Value::Simple(b"PONG".to_vec()));
}

#[test]
fn half_requests_of_many_clients_do_not_stop_the_others() {
    let server = Server::larder(&[]);
    let mut half: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    for client in &mut half {
        client.send_raw(b"*3\r\n$3\r\nSET\r\n$4\r\nhal");
    }
    let mut client = server.connect();
    assert_eq!(client.words("SET whole 1"), Value::Simple(b"OK".to_vec()));
    for client in &mut half {
        client.send_raw(b"f\r\n$1\r\n1\r\n");
    }
    for client in &mut half {
        assert_eq!(client.reply(), Ok(Value::Simple(b"OK".to_vec())));
    }
}

#[test]
fn clients_over_maxclients_are_told_and_closed() {
    let server = Server::larder(&["--maxclients", "8"]);
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..20 {
        let mut client = server.connect();
        client.try_send_raw(b"PING\r\n");
        match client.reply() {
            Ok(Value::Simple(_)) => held.push(client),
            other => {
                refused = Some(other);
                break;
            }
        }
    }
    let text = b"ERR max number of clients reached".to_vec();
    assert_eq!(refused, Some(Ok(Value::Error(text))));
    let in_multi = held[0].words("MULTI");
    assert_eq!(in_multi, Value::Simple(b"OK".to_vec()));
    assert_eq!(held[0].words("SET a 1"), Value::Simple(b"QUEUED".to_vec()));
    assert_eq!(held[0].words("EXEC").items().len(), 1);
    held.truncate(4);
    // The closed ones are noticed by the server's own loop: ask until it has.
    let served = (0..200).any(|_| {
        let mut client = server.connect();
        client.try_send_raw(b"PING\r\n");
        let served = client.reply() == Ok(Value::Simple(b"PONG".to_vec()));
        if !served {
            std::thread::sleep(Duration::from_millis(10));
        }
        served
    });
    assert!(served, "no client is served after four have left");
}

#[test]
fn error_texts_never_hold_cr_or_lf_of_the_client() {
    let server = Server::larder(&[]);
    let evil = "x\r\n-INJECTED\r\n\0\x1b";
    let requests: &[&[&str]] = &[
        &[evil],
        &[evil, evil],
        &["GET", evil, evil],
        &["CONFIG", evil],
        &["CONFIG", "SET", evil, evil],
        &["CLIENT", evil],
        &["CLIENT", "SETNAME", evil],
        &["OBJECT", evil, evil],
        &["SET", "k", "v", evil],
        &["HELLO", evil],
        &["HELLO", "3", evil],
        &["COMMAND", evil],
        &["CLUSTER", evil],
        &["DEBUG", evil],
        &["AUTH", evil, evil],
        &["SCAN", evil],
        &["EXPIRE", "k", evil],
        &["ZADD", "z", evil, evil],
        &["MEMORY", evil],
        &["SLOWLOG", evil],
    ];
    for request in requests {
        let mut client = server.connect();
        client.send(request);
        client.send(&["ECHO", "marker"]);
        let reply = client.reply().unwrap();
        if let Value::Error(text) = &reply {
            assert!(!text.iter().any(|byte| b"\r\n".contains(byte)), "{request:?}: {reply}");
        }
        assert_eq!(client.reply(), Ok(Value::Bulk(b"marker".to_vec())), "{request:?}: {reply}");
    }
}

#[test]
fn half_closed_client_still_gets_its_replies() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    client.send_raw(&b"PING\r\n".repeat(1000));
    client.finish_writing();
    let (answer, closed) = client.drain(Duration::from_secs(5));
    assert_eq!((answer.len(), closed), (7000, true));
}

#[test]
fn quit_answers_and_closes() {
    run_table(&[], true, &[closes("QUIT\r\nPING\r\n", "+OK\r\n")]);
}

#[test]
fn hello_switches_the_protocol_and_refuses_others() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    assert_eq!(client.words("GET none"), Value::NilBulk);
    assert!(matches!(client.words("HELLO 3"), Value::Map(_)));
    assert_eq!(client.words("GET none"), Value::Null);
    let refused = Value::Error(b"NOPROTO unsupported protocol version".to_vec());
    assert_eq!(client.words("HELLO 4"), refused);
    assert_eq!(client.words("GET none"), Value::Null, "a refused HELLO changes nothing");
    assert!(matches!(client.words("HELLO 2"), Value::Array(_)));
    assert_eq!(client.words("GET none"), Value::NilBulk);
    assert!(matches!(client.words("HELLO 3"), Value::Map(_)));
    assert_eq!(client.words("RESET"), Value::Simple(b"RESET".to_vec()));
    assert_eq!(client.words("GET none"), Value::NilBulk, "RESET returns to RESP2");
}

#[test]
fn queued_requests_of_a_huge_multi_are_all_run() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let bytes: Vec<u8> = std::iter::once(encode(&["MULTI"]))
        .chain((0..10_000).map(|_| encode(&["INCR", "n"])))
        .chain([encode(&["EXEC"])])
        .flatten()
        .collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        use std::io::Write as _;
        writer.write_all(&bytes).unwrap();
    });
    assert_eq!(client.reply(), Ok(Value::Simple(b"OK".to_vec())));
    for _ in 0..10_000 {
        assert_eq!(client.reply(), Ok(Value::Simple(b"QUEUED".to_vec())));
    }
    let replies = client.reply().unwrap().items();
    assert_eq!(replies.last(), Some(&Value::Int(10_000)));
    sender.join().unwrap();
}
