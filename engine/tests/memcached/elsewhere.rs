//! A managed cluster: keys of other members are refused, never taken, and flags go where their keys go.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use engine::topology::{Change, SlotRange, slot_of};

use crate::cluster::Cluster;
use crate::read_to;

/// What a member answers on its socket in the file system.
fn ask(cluster: &Cluster, member: usize, bytes: &str) -> String {
    let mut stream = UnixStream::connect(cluster.nodes[member].dir.join("memcached")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream.write_all(b"mn\r\n").unwrap();
    String::from_utf8(read_to(&mut stream, b"MN\r\n")).unwrap()
}

#[test]
fn a_member_that_may_not_answer_for_a_key_says_so_and_flags_outlive_a_failover() {
    let cluster = Cluster::form(&[0, 0, 1], 2, &["--memcached-unixsocket", "{dir}/memcached"]);
    let key = (0..).map(|n| format!("key:{n}")).find(|k| slot_of(k.as_bytes()) < 8192).unwrap();
    let primary = cluster.primary_of(0).unwrap();
    let (replica, other) = (1 - primary, 2);
    let set = format!("set {key} 7 0 2\r\nhi\r\n");
    assert_eq!(ask(&cluster, primary, &set), "STORED\r\n");
    let expected = format!("VALUE {key} 7 2\r\nhi\r\nEND\r\n");
    assert_eq!(ask(&cluster, primary, &format!("get {key}\r\n")), expected);
    let port = cluster.nodes[primary].member.port;
    let moved = format!("SERVER_ERROR MOVED {} 127.0.0.1:{port}\r\n", slot_of(key.as_bytes()));
    for member in [replica, other] {
        for request in [
            format!("set {key} 0 0 1\r\nx\r\n"),
            format!("get {key}\r\n"),
            format!("gets {key}\r\n"),
            format!("delete {key}\r\n"),
            format!("touch {key} 5\r\n"),
            format!("incr {key} 1\r\n"),
            format!("mg {key} v N30\r\n"),
            format!("ms {key} 1\r\nx\r\n"),
            format!("md {key}\r\n"),
            format!("ma {key} N0\r\n"),
        ] {
            assert_eq!(ask(&cluster, member, &request), moved, "{request}");
        }
        let silent = format!("set {key} 0 0 1 noreply\r\nx\r\ndelete {key} noreply\r\n");
        assert_eq!(ask(&cluster, member, &silent), "");
    }
    assert_eq!(ask(&cluster, primary, &format!("get {key}\r\n")), expected);

    cluster.until("the replica takes over", |c| {
        let reply = c.nodes[replica].server.client().call(&["CLUSTER", "FAILOVER"]);
        reply == "OK" || c.primary_of(0) == Some(replica)
    });
    cluster.until("it serves", |c| ask(c, replica, &format!("get {key}\r\n")) == expected);
}

#[test]
fn flags_marks_and_expiry_go_with_a_slot_that_moves() {
    let cluster = Cluster::form(&[0, 1], 2, &["--memcached-unixsocket", "{dir}/memcached"]);
    let moving = SlotRange { first: 0, last: 4095 };
    let is_moving =
        |k: &String| moving.first <= slot_of(k.as_bytes()) && slot_of(k.as_bytes()) <= moving.last;
    let keys: Vec<String> = (0..).map(|n| format!("key:{n}")).filter(is_moving).take(3).collect();
    let [plain, dated, stale] = [&keys[0], &keys[1], &keys[2]];
    let stores = format!(
        "set {plain} 7 0 2\r\nhi\r\nset {dated} 8 100000 2\r\nho\r\nms {stale} 2 F9\r\nhe\r\nmd {stale} I\r\n"
    );
    assert_eq!(ask(&cluster, 0, &stores), "STORED\r\nSTORED\r\nHD\r\nHD\r\n");
    cluster.wish(Change::Move { slots: vec![moving], from: 0, to: 1 });
    let look = format!("get {plain} {dated}\r\nmg {stale} f v\r\n");
    let expected = format!(
        "VALUE {plain} 7 2\r\nhi\r\nVALUE {dated} 8 2\r\nho\r\nEND\r\nVA 2 f9 X W\r\nhe\r\n"
    );
    cluster.until("the keys are there", |c| {
        let moved = ask(c, 1, &format!("get {plain}\r\n")).starts_with("VALUE ");
        moved && c.topology(1).is_some_and(|t| t.moves.is_empty())
    });
    assert_eq!(ask(&cluster, 1, &look), expected);
    assert_eq!(ask(&cluster, 1, &format!("touch {dated} 100000\r\n")), "TOUCHED\r\n");
    assert!(ask(&cluster, 0, &format!("get {plain}\r\n")).starts_with("SERVER_ERROR MOVED "));
}

#[test]
fn a_primary_that_is_cut_off_takes_no_writes() {
    let mut cluster = Cluster::form(&[0, 0, 1], 2, &["--memcached-unixsocket", "{dir}/memcached"]);
    let key = (0..).map(|n| format!("key:{n}")).find(|k| slot_of(k.as_bytes()) < 8192).unwrap();
    let primary = cluster.primary_of(0).unwrap();
    for n in 0..3 {
        if n != primary {
            cluster.nodes[n].server.kill();
        }
    }
    let refuses = |c: &Cluster, request: &str| {
        ask(c, primary, request).starts_with("SERVER_ERROR CLUSTERDOWN ")
    };
    let set = format!("set {key} 7 0 2\r\nhi\r\n");
    cluster.until("it refuses writes", |c| refuses(c, &set));
    assert!(refuses(&cluster, &format!("get {key}\r\n")));
    assert!(refuses(&cluster, &format!("md {key}\r\n")));
}
