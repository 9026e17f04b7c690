//! Slots that move between real managed servers while clients write: no request fails for a client that follows
//! redirections, no effect is lost or made twice, and whoever is killed on the way, the slots have one owner
//! that has every key.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "managed/cluster.rs"]
mod cluster;
mod managed;
mod processes;
#[path = "managed/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::{Cluster, Follower};
use engine::topology::{Change, Member, SlotRange, slot_of};
use processes::Client;
use wire::BadWire;

/// What moves: the first half of the first shard's slots.
const MOVING: SlotRange = SlotRange { first: 0, last: 4095 };

fn begin_move(cluster: &Cluster, from: u16, to: u16) {
    cluster.wish(Change::Move { slots: vec![MOVING], from, to });
}

fn until_owned_by(cluster: &Cluster, shard: u16) {
    cluster.until(&format!("shard {shard} owns the slots"), |c| {
        (0..c.nodes.len()).all(|n| {
            c.topology(n).is_some_and(|t| t.owner_of(&MOVING) == Some(shard) && t.moves.is_empty())
        })
    });
}

/// What was acknowledged per key, and what went wrong.
type Written = (BTreeMap<String, u64>, Vec<String>);

/// Writers of counters and lists in the moving slots and elsewhere.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Written>>,
}

impl Writers {
    fn start(ports: &[u16], patient: bool) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..4)
            .map(|t| {
                let (stop, ports) = (stop.clone(), ports.to_vec());
                std::thread::spawn(move || write(&stop, ports, t, patient))
            })
            .collect();
        Writers { stop, threads }
    }

    fn stop(self) -> Written {
        self.stop.store(true, Ordering::Release);
        let mut all = (BTreeMap::new(), Vec::new());
        for thread in self.threads {
            let (acked, failures) = thread.join().unwrap();
            all.0.extend(acked);
            all.1.extend(failures);
        }
        all
    }
}

/// `patient`: who is refused or cut off tries again after a while.
fn write(stop: &AtomicBool, ports: Vec<u16>, thread: usize, patient: bool) -> Written {
    let mut client = Follower::new(ports);
    let mut acked: BTreeMap<String, u64> = BTreeMap::new();
    let mut failures = Vec::new();
    for round in 0u64.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let key = format!("count:{thread}:{}", round % 300);
        match client.call(&key, &["INCR", &key]) {
            Ok(reply) if !reply.starts_with('-') => {
                acked.insert(key, reply.parse().unwrap());
            }
            Ok(reply) => failures.push(format!("{key}: {reply}")),
            Err(error) => failures.push(format!("{key}: {error}")),
        }
        if !failures.is_empty() && patient {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    (acked, failures)
}

/// A hundred thousand characters that cannot be packed.
fn noise(seed: u64) -> String {
    let mut dice = seed;
    let mut letter = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (dice >> 33) as u8 % 90)
    };
    (0..100_000).map(|_| letter()).collect()
}

fn fill(client: &mut Follower) {
    for i in 0..3000 {
        let key = format!("fill:{i}");
        let value = format!("value-{i}");
        assert_eq!(client.call(&key, &["SET", &key, &value]).unwrap(), "OK");
    }
    for i in 0..200 {
        let (list, hash) = (format!("list:{i}"), format!("hash:{i}"));
        client.call(&list, &["RPUSH", &list, "a", "b", "c"]).unwrap();
        client.call(&hash, &["HSET", &hash, "f", "1", "g", "2"]).unwrap();
        let key = format!("ttl:{i}");
        client.call(&key, &["SET", &key, "v", "EX", "1000"]).unwrap();
    }
}

fn check_fill(client: &mut Follower) {
    for i in 0..3000 {
        let key = format!("fill:{i}");
        assert_eq!(client.call(&key, &["GET", &key]).unwrap(), format!("value-{i}"), "{key}");
    }
    for i in 0..200 {
        let (list, hash) = (format!("list:{i}"), format!("hash:{i}"));
        assert_eq!(client.call(&list, &["LRANGE", &list, "0", "-1"]).unwrap(), "a b c");
        assert_eq!(client.call(&hash, &["HGET", &hash, "g"]).unwrap(), "2");
        let key = format!("ttl:{i}");
        let ttl: i64 = client.call(&key, &["TTL", &key]).unwrap().parse().unwrap();
        assert!((800..=1000).contains(&ttl), "{key}: {ttl}");
    }
}

#[test]
fn slots_move_to_and_fro_under_load_and_no_request_fails() {
    let cluster = Cluster::form(&[0, 1, 2], 2, &[]);
    let mut client = Follower::new(cluster.ports());
    fill(&mut client);
    let writers = Writers::start(&cluster.ports(), false);
    let mut from = 0;
    for to in [2, 1, 2, 0] {
        begin_move(&cluster, from, to);
        until_owned_by(&cluster, to);
        from = to;
    }
    let (acked, failures) = writers.stop();
    assert!(
        failures.is_empty(),
        "{} failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    let counters = acked.len() as u64;
    assert!(counters > 0);
    for (key, count) in acked {
        let now = client.call(&key, &["GET", &key]).unwrap();
        assert_eq!(now, count.to_string(), "{key}");
    }
    check_fill(&mut client);
    // Nothing is left where it was: every key is in one place.
    cluster.until("the left-overs are swept", |c| {
        let sizes = c.ports().into_iter().map(|port| {
            let mut client = Client::try_connect(port).unwrap();
            client.call(&["DBSIZE"]).parse::<u64>().unwrap()
        });
        sizes.sum::<u64>() == 3000 + 600 + counters
    });
}

#[test]
fn a_client_moves_slots_with_the_commands_of_valkey() {
    let cluster = Cluster::form(&[0, 1, 2], 2, &[]);
    let mut source = Client::try_connect(cluster.ports()[0]).unwrap();
    let target = cluster.nodes[2].member.id.clone();
    let wish = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "4095", "NODE", &target];
    source.ok(&wish);
    until_owned_by(&cluster, 2);
    assert_eq!(source.call(&["CLUSTER", "GETSLOTMIGRATIONS"]), "");
    assert!(source.call(&["CLUSTER", "CANCELSLOTMIGRATIONS"]).starts_with("-ERR No migrations"));
    for (words, why) in [
        (&wish[..4], "-ERR wrong number"),
        (&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "9", "1", "NODE", &target], "-ERR start slot"),
        (&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "99999", "NODE", &target], "-ERR Invalid"),
        (&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "1", "NODE", "x"], "-ERR x is not"),
        (&["CLUSTER", "FAILOVER"], "-ERR You should send"),
    ] {
        let reply = source.call(words);
        assert!(reply.starts_with(why), "{words:?}: {reply}");
    }
}

#[test]
fn slots_tell_how_many_keys_they_have() {
    let cluster = Cluster::form(&[0, 1], 2, &[]);
    let mut client = Client::try_connect(cluster.ports()[0]).unwrap();
    // Slot 5061 is `bar`'s, of the first shard; 12182 is `foo`'s, of the other one.
    client.ok(&["MSET", "{bar}1", "a", "{bar}2", "b"]);
    let stats = |client: &mut Client, words: &[&str]| {
        client.call(&[&["CLUSTER", "SLOT-STATS"], words].concat())
    };
    let told = stats(&mut client, &["SLOTSRANGE", "5060", "5061"]);
    assert_eq!(told, "5060 key-count 0 5061 key-count 2");
    assert_eq!(stats(&mut client, &["SLOTSRANGE", "12182", "12182"]), "");
    let told = stats(&mut client, &["ORDERBY", "key-count", "LIMIT", "2"]);
    assert_eq!(told, "5061 key-count 2 0 key-count 0");
    let told = stats(&mut client, &["ORDERBY", "key-count", "ASC", "LIMIT", "1"]);
    assert_eq!(told, "0 key-count 0");
    for (words, why) in [
        (
            &["SLOTSRANGE", "9", "1"][..],
            "-ERR Start slot number 9 is greater than end slot number 1",
        ),
        (&["SLOTSRANGE", "0", "16384"], "-ERR Invalid or out of range slot"),
        (&["ORDERBY", "cpu-usec", "ASC"], "-ERR Unrecognized sort metric for ORDERBY."),
        (&["ORDERBY", "key-count", "LIMIT", "0"], "-ERR Limit has to lie in between 1 and 16384"),
        (&["ORDERBY", "key-count", "SIDEWAYS"], "-ERR syntax error"),
    ] {
        let reply = stats(&mut client, words);
        assert!(reply.starts_with(why), "{words:?}: {reply}");
    }
}

#[test]
fn a_replica_is_made_primary_by_cluster_failover() {
    let cluster = Cluster::form(&[0, 0, 0], 1, &[]);
    let mut client = Follower::new(cluster.ports());
    client.call("k", &["SET", "k", "v"]).unwrap();
    let old = cluster.primary_of(0).unwrap();
    let new = (old + 1) % 3;
    Client::try_connect(cluster.ports()[new]).unwrap().ok(&["CLUSTER", "FAILOVER"]);
    cluster.until("the handover", |c| c.primary_of(0) == Some(new));
    assert_eq!(client.call("k", &["GET", "k"]).unwrap(), "v");
    assert_eq!(client.call("k", &["SET", "k", "w"]).unwrap(), "OK");
}

#[test]
fn sentinel_clients_find_the_primary_and_hear_of_the_next_one() {
    let cluster = Cluster::form(&[0, 0, 0], 1, &[]);
    let old = cluster.primary_of(0).unwrap();
    let mut client = Client::try_connect(cluster.ports()[(old + 1) % 3]).unwrap();
    let address = |n: usize| format!("127.0.0.1 {}", cluster.ports()[n]);
    for name in ["demo-0", "demo"] {
        assert_eq!(client.call(&["SENTINEL", "get-master-addr-by-name", name]), address(old));
    }
    assert_eq!(client.call(&["SENTINEL", "get-master-addr-by-name", "other"]), "(nil)");
    assert!(client.call(&["SENTINEL", "CKQUORUM", "demo"]).starts_with("OK 3 usable Sentinels."));
    let master = client.call(&["SENTINEL", "MASTER", "demo-0"]);
    for field in
        ["name demo-0 ip 127.0.0.1 port", "flags master", "num-slaves 2", "num-other-sentinels 2"]
    {
        assert!(master.contains(field), "{field}: {master}");
    }
    let replicas = client.call(&["SENTINEL", "REPLICAS", "demo-0"]);
    assert_eq!(replicas.matches("flags slave ").count(), 2, "{replicas}");
    let sentinels = client.call(&["SENTINEL", "SENTINELS", "demo-0"]);
    assert_eq!(sentinels.matches("flags sentinel").count(), 2, "{sentinels}");
    assert!(
        client.call(&["SENTINEL", "MONITOR", "a", "b", "1", "2"]).starts_with("-ERR the members")
    );

    let mut listener = Client::try_connect(cluster.ports()[(old + 2) % 3]).unwrap();
    assert_eq!(listener.call(&["SUBSCRIBE", "+switch-master"]), "subscribe +switch-master 1");
    client.ok(&["SENTINEL", "FAILOVER", "demo-0"]);
    let message = listener.reply().unwrap();
    let new = cluster.primary_of(0).unwrap();
    assert_ne!(new, old);
    let told = format!("message +switch-master demo-0 {} {}", address(old), address(new));
    assert_eq!(message, told);
    assert_eq!(client.call(&["SENTINEL", "get-master-addr-by-name", "demo"]), address(new));
}

#[test]
fn clients_that_asked_for_it_are_told_before_slots_leave_and_before_their_primary_changes() {
    let cluster = Cluster::form(&[0, 1, 0], 2, &[]);
    let at = |n: usize| format!("127.0.0.1:{}", cluster.ports()[n]);
    let on = ["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "internal-ip"];
    let listen = |n: usize| {
        let mut client = Client::try_connect(cluster.ports()[n]).unwrap();
        assert!(client.call(&on).starts_with("-ERR maintenance notifications are pushes of RESP3"));
        client.call(&["HELLO", "3"]);
        client.ok(&on);
        client
    };
    let (old, new) = (cluster.primary_of(0).unwrap(), 2);
    assert_eq!(old, 0);
    let (mut source, mut target) = (listen(0), listen(1));
    begin_move(&cluster, 0, 1);
    until_owned_by(&cluster, 1);
    let words = |client: &mut Client| {
        let message = client.reply().unwrap();
        let (name, rest) = message.split_once(' ').unwrap();
        let (number, what) = rest.split_once(' ').unwrap_or((rest, ""));
        assert!(number.parse::<u64>().is_ok_and(|n| n > 0), "{message}");
        format!("{name} {what}")
    };
    assert_eq!(words(&mut source), "SMIGRATING 0-4095");
    let left = format!("SMIGRATED {} {} 0-4095", at(0), at(1));
    assert_eq!(words(&mut source), left);
    assert_eq!(words(&mut target), left);

    Client::try_connect(cluster.ports()[new]).unwrap().ok(&["CLUSTER", "FAILOVER"]);
    assert_eq!(words(&mut source), "FAILING_OVER 2");
    let left = format!("SMIGRATED {} {} 4096-8191", at(old), at(new));
    assert_eq!(words(&mut source), left);
    assert_eq!(words(&mut source), "FAILED_OVER ");
    assert_eq!(words(&mut target), left);
    target.ok(&["CLIENT", "MAINT_NOTIFICATIONS", "OFF"]);
}

#[test]
fn a_client_that_follows_nothing_is_told_to_move_before_its_server_ends() {
    let mut cluster = Cluster::form(&[0, 0, 0], 1, &[]);
    let primary = cluster.primary_of(0).unwrap();
    let mut client = Client::try_connect(cluster.ports()[primary]).unwrap();
    client.call(&["HELLO", "3"]);
    let on = ["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "internal-ip"];
    client.ok(&on);
    cluster.nodes[primary].server.terminate();
    let told: Vec<String> = std::iter::from_fn(|| client.reply().ok()).collect();
    let names: Vec<&str> = told.iter().filter_map(|m| m.split(' ').next()).collect();
    assert_eq!(names, ["FAILING_OVER", "SMIGRATED", "FAILED_OVER", "MOVING"], "{told:?}");
    cluster.until("another primary", |c| c.primary_of(0).is_some_and(|n| n != primary));
    let next = cluster.ports()[cluster.primary_of(0).unwrap()];
    assert!(told[3].ends_with(&format!(" 1 127.0.0.1:{next}")), "{told:?}");
}

#[test]
fn a_blocked_client_is_sent_on_when_its_slot_moves() {
    let cluster = Cluster::form(&[0, 1, 2], 2, &[]);
    let key = (0..)
        .map(|i| format!("queue:{i}"))
        .find(|k| MOVING.contains(slot_of(k.as_bytes())))
        .unwrap();
    let mut blocked = Client::try_connect(cluster.ports()[0]).unwrap();
    blocked.send(&["BLPOP", &key, "0"]).unwrap();
    let mut other = Client::try_connect(cluster.ports()[0]).unwrap();
    other.until_info("blocked_clients", "1");
    begin_move(&cluster, 0, 2);
    until_owned_by(&cluster, 2);
    let reply = blocked.reply().unwrap();
    assert!(
        reply.starts_with("-MOVED ") && reply.ends_with(&cluster.ports()[2].to_string()),
        "{reply}"
    );
}

#[test]
fn shard_channels_are_heard_on_all_members_of_the_shard_until_their_slot_moves() {
    let cluster = Cluster::form(&[0, 0, 1], 2, &["--io-threads", "2"]);
    let mut names = (0..).map(|i| format!("channel:{i}"));
    let moving = names.find(|k| MOVING.contains(slot_of(k.as_bytes()))).unwrap();
    let staying = SlotRange { first: 4096, last: 8191 };
    let other = names.find(|k| staying.contains(slot_of(k.as_bytes()))).unwrap();
    let primary = cluster.primary_of(0).unwrap();
    let connect = |n: usize| Client::try_connect(cluster.ports()[n]).unwrap();
    let port = |n: usize| cluster.ports()[n].to_string();
    let (mut at_primary, mut at_replica) = (connect(primary), connect(1 - primary));
    for listener in [&mut at_primary, &mut at_replica] {
        let subscribed = listener.call(&["SSUBSCRIBE", &moving]);
        assert_eq!(subscribed, format!("ssubscribe {moving} 1"));
        assert_eq!(listener.call(&["SSUBSCRIBE", &other]), format!("ssubscribe {other} 2"));
    }
    let mut elsewhere = connect(2);
    for words in [&["SSUBSCRIBE", &moving][..], &["SPUBLISH", &moving, "m"]] {
        let reply = elsewhere.call(words);
        assert!(reply.starts_with("-MOVED ") && reply.ends_with(&port(primary)), "{reply}");
    }
    let reply = connect(1 - primary).call(&["SPUBLISH", &moving, "m"]);
    assert!(reply.starts_with("-MOVED ") && reply.ends_with(&port(primary)), "{reply}");
    let reply = connect(primary).call(&["SSUBSCRIBE", &moving, &other]);
    assert!(reply.starts_with("-CROSSSLOT "), "{reply}");
    assert_eq!(connect(primary).call(&["SPUBLISH", &moving, "one"]), "1");
    for listener in [&mut at_primary, &mut at_replica] {
        assert_eq!(listener.reply().unwrap(), format!("smessage {moving} one"));
    }
    begin_move(&cluster, 0, 1);
    until_owned_by(&cluster, 1);
    for listener in [&mut at_primary, &mut at_replica] {
        assert_eq!(listener.reply().unwrap(), format!("sunsubscribe {moving} 1"));
    }
    let mut client = connect(primary);
    assert_eq!(client.call(&["PUBSUB", "SHARDCHANNELS"]), other);
    let reply = client.call(&["SSUBSCRIBE", &moving]);
    assert!(reply.starts_with("-MOVED ") && reply.ends_with(&port(2)), "{reply}");
    assert_eq!(elsewhere.call(&["SSUBSCRIBE", &moving]), format!("ssubscribe {moving} 1"));
    assert_eq!(connect(2).call(&["SPUBLISH", &moving, "two"]), "1");
    assert_eq!(elsewhere.reply().unwrap(), format!("smessage {moving} two"));
    // Nothing of it came to the former owner.
    assert_eq!(client.call(&["SPUBLISH", &other, "three"]), "1");
    for listener in [&mut at_primary, &mut at_replica] {
        assert_eq!(listener.reply().unwrap(), format!("smessage {other} three"));
    }
}

#[test]
fn whoever_is_killed_on_the_way_the_slots_have_one_owner_with_every_key() {
    let mut cluster = Cluster::form(&[0, 1, 2], 2, &[]);
    let mut client = Follower::new(cluster.ports());
    fill(&mut client);
    let writers = Writers::start(&cluster.ports(), true);
    let mut from = 0;
    for (round, to) in [2u16, 0, 2, 0].into_iter().enumerate() {
        begin_move(&cluster, from, to);
        // Source, target, and at different moments of the move.
        let victim = if round % 2 == 0 { from } else { to };
        std::thread::sleep(Duration::from_millis(10 * round as u64 + 3));
        cluster.nodes[victim as usize].restart();
        until_owned_by(&cluster, to);
        from = to;
    }
    let (acked, _) = writers.stop();
    cluster.until("all serve", |c| (0..3).all(|n| c.ready(n)));
    let mut client = Follower::new(cluster.ports());
    let mut ahead = 0;
    for (key, count) in acked {
        let now: u64 = client.call(&key, &["GET", &key]).unwrap().parse().unwrap();
        // A write whose reply was cut off may have been made.
        assert!(now >= count, "{key}: {now} of {count} acknowledged");
        ahead += now - count;
    }
    assert!(ahead <= 4 * 4 * 2, "{ahead} made and not acknowledged: more than were under way");
    check_fill(&mut client);
}

#[test]
fn a_move_that_clients_would_feel_is_slowed_tells_how_far_it_is_and_comes_to_its_end() {
    let cluster = Cluster::form(&[0, 1, 1], 2, &["--larder-move-p99-ms", "5"]);
    let mut client = Follower::new(cluster.ports());
    let moving = (0..).map(|i| format!("large:{i}"));
    let moving = moving.filter(|k| MOVING.contains(slot_of(k.as_bytes())));
    // At the slowest rate that takes several seconds.
    let value = noise(1);
    let keys: Vec<String> = moving.take(300).collect();
    for key in &keys {
        assert_eq!(client.call(key, &["SET", key, &value]).unwrap(), "OK");
    }
    let port = cluster.ports()[cluster.primary_of(0).unwrap()];
    let stop = Arc::new(AtomicBool::new(false));
    let slow = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut client = Client::try_connect(port).unwrap();
            // Longer than the bound: none of these is served in time.
            let code = "for i = 1, 2000000 do end return 1";
            while !stop.load(Ordering::Acquire) {
                assert_eq!(client.call(&["EVAL", code, "0"]), "1");
            }
        })
    };
    begin_move(&cluster, 0, 1);
    let mut watcher = Client::try_connect(port).unwrap();
    let mut limited = None;
    for _ in 0..3000 {
        let shown = watcher.call(&["CLUSTER", "GETSLOTMIGRATIONS"]);
        let words: Vec<&str> = shown.split(' ').collect();
        let number = |name: &str| {
            let at = words.iter().position(|w| *w == name)?;
            words.get(at + 1)?.parse::<i64>().ok().filter(|n| *n > 0)
        };
        if let (Some(limit), Some(keys)) = (number("limit_bytes_per_second"), number("keys")) {
            let all = ["keys_total", "bytes", "bytes_total", "eta_ms"].map(number);
            limited = Some((limit, keys, all));
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (limit, sent, all) = limited.unwrap();
    let [total, bytes, bytes_total, eta_ms] = all.map(Option::unwrap);
    assert!(limit >= 4 << 20, "{limit}");
    assert!(total == 300 && sent < 300, "{sent} of {total}");
    assert!(bytes < bytes_total && bytes_total > 20_000_000, "{bytes} of {bytes_total}");
    assert!(eta_ms < 600_000, "{eta_ms}");
    until_owned_by(&cluster, 1);
    stop.store(true, Ordering::Release);
    slow.join().unwrap();
    for key in &keys {
        assert_eq!(client.call(key, &["STRLEN", key]).unwrap(), "100000");
    }
    assert_eq!(watcher.call(&["CLUSTER", "GETSLOTMIGRATIONS"]), "");
}

#[test]
fn a_large_slot_comes_over_a_wire_that_is_cut_on_the_way_with_nothing_lost_and_nothing_twice() {
    const KEYS: u64 = 200;
    let cluster = Cluster::form(&[0, 1, 1], 2, &[]);
    let mut client = Follower::new(cluster.ports());
    // One slot with twenty megabytes.
    let tag =
        (0..).map(|i| format!("{{large:{i}}}")).find(|t| MOVING.contains(slot_of(t.as_bytes())));
    let tag = tag.unwrap();
    for i in 0..KEYS {
        let key = format!("{tag}:{i}");
        assert_eq!(client.call(&key, &["SET", &key, &noise(i)]).unwrap(), "OK");
    }
    let digest = |client: &mut Follower, key: &str| client.call(key, &["DIGEST", key]).unwrap();
    let digests: Vec<String> =
        (0..KEYS).map(|i| digest(&mut client, &format!("{tag}:{i}"))).collect();
    // From here on members reach the source by a wire that breaks when so much has come over it.
    let source = &cluster.nodes[cluster.primary_of(0).unwrap()].member;
    let wire = BadWire::to(source.port, b"LARDER.MOVE", &[3_000_000, 11_000_000, 200_000]);
    cluster.wish(Change::Join(Member { port: wire.port, ..source.clone() }));
    cluster.until("everybody knows the wire", |c| {
        (0..c.nodes.len())
            .all(|n| c.topology(n).is_some_and(|t| t.members[&source.id].port == wire.port))
    });
    let writers = Writers::start(&cluster.ports(), false);
    begin_move(&cluster, 0, 1);
    until_owned_by(&cluster, 1);
    let (acked, failures) = writers.stop();
    assert!(failures.is_empty(), "{:?}", &failures[..failures.len().min(5)]);
    assert!(wire.cuts() >= 3, "it was cut {} times, and came through", wire.cuts());
    for (i, before) in digests.iter().enumerate() {
        let key = format!("{tag}:{i}");
        assert_eq!(digest(&mut client, &key), *before, "{key}");
    }
    let counters = acked.len() as u64;
    for (key, count) in acked {
        assert_eq!(client.call(&key, &["GET", &key]).unwrap(), count.to_string(), "{key}");
    }
    cluster.until("every key is in one place", |c| {
        let primaries = (0..2).filter_map(|shard| c.primary_of(shard));
        let sizes = primaries.map(|n| {
            let mut client = Client::try_connect(c.nodes[n].member.port).unwrap();
            client.call(&["DBSIZE"]).parse::<u64>().unwrap()
        });
        sizes.sum::<u64>() == KEYS + counters
    });
}
