//! A managed cluster: every member serves every key, by the one that has it, and flags go where their keys go.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::topology::{Change, SlotRange, even_slots, slot_of};

use crate::cluster::Cluster;
use crate::processes::Client;
use crate::{connect, packet, packets_of, read_to, text};

/// One cluster at a time: several starve each other on few cores, and one that is starved is not what is looked at.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a member answers on its socket in the file system.
fn ask(cluster: &Cluster, member: usize, bytes: &str) -> String {
    let mut stream = UnixStream::connect(cluster.nodes[member].dir.join("memcached")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream.write_all(b"mn\r\n").unwrap();
    String::from_utf8(read_to(&mut stream, b"MN\r\n")).unwrap()
}

/// The n-th key whose slot is this one's shard of two.
fn key_of(shard: u16, nth: usize) -> String {
    let slots = even_slots(shard, 2);
    let keys = (0..).map(|n| format!("key:{n}"));
    keys.filter(|key| slots.contains(slot_of(key.as_bytes()))).nth(nth).unwrap()
}

/// Two shards with a replica each, in no hurry to replace anybody.
fn form(extra: &[&str]) -> Cluster {
    let settings = ["--memcached-port", "{port}", "--larder-failure-timeout-ms", "3000"];
    Cluster::form(&[0, 1, 0, 1], 2, &[&settings, extra].concat())
}

/// The Memcached port of a member.
fn addr(cluster: &Cluster, member: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], cluster.nodes[member].port_of("--memcached-port")))
}

/// Requests of text and what they are answered.
fn says(addr: SocketAddr, request: &str, expected: &str) {
    assert_eq!(String::from_utf8_lossy(&text(addr, request.as_bytes())), expected, "{request}");
}

#[test]
fn every_member_serves_every_key_and_quiet_forms_stay_quiet() {
    let _alone = alone();
    let cluster = form(&[]);
    for member in 0..4 {
        let at = addr(&cluster, member);
        for shard in 0..2 {
            let (key, none) = (key_of(shard, member), key_of(shard, 50));
            says(at, &format!("set {key} 7 0 2\r\nhi\r\n"), "STORED\r\n");
            says(at, &format!("get {key}\r\n"), &format!("VALUE {key} 7 2\r\nhi\r\nEND\r\n"));
            says(at, &format!("gat 100 {key}\r\n"), &format!("VALUE {key} 7 2\r\nhi\r\nEND\r\n"));
            says(at, &format!("get {none}\r\n"), "END\r\n");
            let shown = text(at, format!("gets {key}\r\n").as_bytes());
            let shown = String::from_utf8(shown).unwrap();
            let cas = shown.lines().next().unwrap().rsplit(' ').next().unwrap();
            says(at, &format!("cas {key} 0 0 1 {cas}\r\n1\r\n"), "STORED\r\n");
            says(at, &format!("cas {key} 0 0 1 {cas}\r\n1\r\n"), "EXISTS\r\n");
            says(at, &format!("incr {key} 4\r\n"), "5\r\n");
            says(at, &format!("touch {key} 100\r\n"), "TOUCHED\r\n");
            says(at, &format!("mg {key} v k Ox\r\n"), &format!("VA 1 k{key} Ox\r\n5\r\n"));
            says(at, &format!("gat -1 {key}\r\n"), &format!("VALUE {key} 0 1\r\n5\r\nEND\r\n"));
            says(
                at,
                &format!("delete {key}\r\nset {key} 0 0 1\r\n5\r\n"),
                "NOT_FOUND\r\nSTORED\r\n",
            );
            says(at, &format!("mg {key} v k Ox\r\n"), &format!("VA 1 k{key} Ox\r\n5\r\n"));
            says(at, &format!("delete {key}\r\n"), "DELETED\r\n");
            says(at, &format!("mg {key} v q\r\nms {key} 1 q\r\nx\r\n"), "");
            says(at, &format!("mg {key} v q\r\n"), "VA 1\r\nx\r\n");
            says(at, &format!("md {key} q\r\nmd {key} q\r\nmg {key} v\r\n"), "EN\r\n");
            says(
                at,
                &format!("mg {key} v N30\r\nmg {key} v N30\r\n"),
                "VA 0 W\r\n\r\nVA 0 Z\r\n\r\n",
            );
            says(at, &format!("set {key} 0 0 1 noreply\r\n5\r\nincr {key} 1 noreply\r\n"), "");
            says(
                at,
                &format!("append {key} 0 0 1\r\nx\r\nincr {key} 1\r\n"),
                "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
            );
            says(at, &format!("get {key}\r\n"), &format!("VALUE {key} 0 2\r\n6x\r\nEND\r\n"));
            // Larger than an item may be: what was there is gone, whoever has it.
            let large = "x".repeat(2_000_000);
            says(
                at,
                &format!("set {key} 0 0 2000000\r\n{large}\r\nget {key}\r\n"),
                "SERVER_ERROR object too large for cache\r\nEND\r\n",
            );
            let large = "x".repeat(1_000_000);
            says(at, &format!("set {key} 0 0 1000000\r\n{large}\r\n"), "STORED\r\n");
            says(
                at,
                &format!("get {key}\r\n"),
                &format!("VALUE {key} 0 1000000\r\n{large}\r\nEND\r\n"),
            );
        }
    }
}

#[test]
fn values_of_several_members_and_piped_requests_come_in_order() {
    let _alone = alone();
    let cluster = form(&[]);
    let keys: Vec<String> = (0..20).map(|n| key_of(n % 2, usize::from(n))).collect();
    let stores: String =
        keys.iter().map(|k| format!("set {k} 0 0 {}\r\n{k}\r\n", k.len())).collect();
    says(addr(&cluster, 0), &stores, &"STORED\r\n".repeat(20));
    let values: Vec<String> =
        keys.iter().map(|k| format!("VALUE {k} 0 {}\r\n{k}\r\n", k.len())).collect();
    for member in 0..4 {
        let at = addr(&cluster, member);
        let all = keys.join(" ");
        let expected = format!("{}END\r\n", values.concat());
        says(at, &format!("get {all}\r\n"), &expected);
        says(at, &format!("get none {all} none \r\n"), &expected);
        let piped: String = keys.iter().map(|k| format!("get {k}\r\ndelete none\r\n")).collect();
        let expected: String = values.iter().map(|v| format!("{v}END\r\nNOT_FOUND\r\n")).collect();
        says(at, &piped, &expected);
    }
}

#[test]
fn packets_are_answered_by_the_member_that_has_the_key() {
    let _alone = alone();
    let cluster = form(&[]);
    for member in 0..4 {
        for shard in 0..2 {
            let key = key_of(shard, member);
            let key = key.as_bytes();
            let extras = [&7u32.to_be_bytes()[..], &[0; 4]].concat();
            let noop = packet(0x0a, 0, &[], &[], &[]);
            let piped = [
                packet(0x01, 0, &extras, key, b"hi"),
                packet(0x11, 0, &extras, key, b"ho"),
                packet(0x00, 0, &[], key, &[]),
                packet(0x09, 0, &[], key, &[]),
                packet(0x14, 0, &[], key, &[]),
                packet(0x09, 0, &[], key, &[]),
                packet(0x00, 0, &[], key, &[]),
            ]
            .concat();
            let mut end = noop.clone();
            end[0] = 0x81;
            let said = packets_of(&crate::ask(addr(&cluster, member), &piped, &noop, &end));
            let shown: Vec<(u8, u8, &[u8])> = said.iter().map(|p| (p[1], p[7], &p[24..])).collect();
            let value = [&7u32.to_be_bytes()[..], b"ho"].concat();
            assert_eq!(
                shown,
                [
                    (0x01, 0, &b""[..]),
                    (0x00, 0, &value),
                    (0x09, 0, &value),
                    (0x00, 1, b"Not found"),
                ]
            );
            assert!(said.iter().all(|p| p[12..16] == [1, 2, 3, 4]), "the opaque is theirs");
        }
    }
}

#[test]
fn a_planned_failover_is_a_pause_and_each_is_counted_once() {
    let _alone = alone();
    let cluster = form(&[]);
    // At a replica, which has nothing of its own to give.
    let at = (0..4).find(|n| (0..2).all(|shard| cluster.primary_of(shard) != Some(*n))).unwrap();
    let (at, stop) = (addr(&cluster, at), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let (key, stop) = (key_of(n % 2, usize::from(n)), stop.clone());
            std::thread::spawn(move || {
                let mut stream = connect(at);
                let mut call = |request: String| {
                    stream.write_all(request.as_bytes()).unwrap();
                    String::from_utf8(read_to(&mut stream, b"\r\n")).unwrap()
                };
                assert_eq!(call(format!("set {key} 0 0 1\r\n0\r\n")), "STORED");
                let mut done = 0;
                while !stop.load(Ordering::Acquire) {
                    done += 1;
                    assert_eq!(call(format!("incr {key} 1\r\n")), done.to_string(), "{key}");
                }
                done
            })
        })
        .collect();
    for shard in [0, 1, 0] {
        cluster.hand_over(shard);
    }
    stop.store(true, Ordering::Release);
    for thread in threads {
        assert!(thread.join().unwrap() > 0);
    }
}

#[test]
fn who_may_not_log_in_at_the_keys_member_is_refused_there() {
    let _alone = alone();
    let cluster = form(&["--requirepass", "secret", "--masterauth", "secret"]);
    let member = cluster.primary_of(0).unwrap();
    let admin = |n: usize| {
        let mut client = Client::try_connect(cluster.ports()[n]).unwrap();
        client.ok(&["AUTH", "secret"]);
        client
    };
    let ann = ["ACL", "SETUSER", "ann", "on", ">word", "~*", "&*", "+@all"];
    admin(member).ok(&ann);
    let (here, there, at) = (key_of(0, 0), key_of(1, 0), addr(&cluster, member));
    let log_in = |user: &str| format!("set x 0 0 {}\r\n{user}\r\n", user.len());
    let gets = format!("get {there} {here}\r\nget {here} {there} {here}\r\nget {here}\r\n");
    let refused =
        "SERVER_ERROR NOPERM no Memcached client may be the user \"ann\" at the slot's member\r\n";
    says(
        at,
        &format!("get {there}\r\n{}{gets}", log_in("ann word")),
        &format!("CLIENT_ERROR unauthenticated\r\nSTORED\r\n{refused}{refused}END\r\n"),
    );
    let set = format!("set {there} 0 0 1\r\nx\r\n");
    says(at, &format!("{}{set}", log_in("default secret")), "STORED\r\nSTORED\r\n");
    // Rights to some keys are not enough, as for who logs in there.
    let other = cluster.primary_of(1).unwrap();
    admin(other).ok(&["ACL", "SETUSER", "ann", "on", ">word", &format!("~{there}"), "+@all"]);
    says(at, &format!("{}{set}", log_in("ann word")), &format!("STORED\r\n{refused}"));
    admin(other).ok(&ann);
    says(at, &format!("{}{set}", log_in("ann word")), "STORED\r\nSTORED\r\n");
    // The request among members is none for clients, and of one key.
    let mut admin = admin(other);
    let mut forwarded =
        |key: &str, request: &str| admin.call(&["LARDER.MEMCACHED", key, "ann", request]);
    assert_eq!(
        forwarded(&there, &format!("get {there}\r\n")),
        format!("VALUE {there} 0 1\r\nx\r\nEND\r\n")
    );
    assert!(forwarded(&here, &format!("get {here}\r\n")).starts_with("-MOVED "));
    let whole = "-ERR this is no whole Memcached request of this key";
    for request in [
        format!("get {}\r\n", key_of(1, 1)),
        format!("get {there}"),
        "quit\r\n".into(),
        "lru_crawler metadump all\r\n".into(),
    ] {
        assert_eq!(forwarded(&there, &request), whole, "{request}");
    }
    assert!(forwarded(&there, "set").starts_with(whole));
    let nobody = admin.call(&["LARDER.MEMCACHED", &there, "nobody", "mn\r\n"]);
    assert!(nobody.starts_with("-NOPERM "), "{nobody}");
}

#[test]
fn flags_marks_and_expiry_go_with_a_slot_that_moves() {
    let _alone = alone();
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
        (0..2).all(|n| {
            c.topology(n).is_some_and(|t| t.owner_of(&moving) == Some(1) && t.moves.is_empty())
        })
    });
    assert_eq!(ask(&cluster, 1, &look), expected);
    assert_eq!(ask(&cluster, 1, &format!("touch {dated} 100000\r\n")), "TOUCHED\r\n");
    let expected = format!("VALUE {plain} 7 2\r\nhi\r\nEND\r\n");
    assert_eq!(ask(&cluster, 0, &format!("get {plain}\r\n")), expected);
}

#[test]
fn a_primary_that_is_cut_off_takes_no_writes() {
    let _alone = alone();
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
