//! Slots on the move, and one that is emptied.

use crate::nodes::{Nodes, create, has_tool};
use crate::processes::Client;
use crate::three_with_a_replica_each;

#[test]
fn a_slot_that_was_left_half_moved_is_fixed() {
    if !has_tool("redis-cli") {
        return;
    }
    let nodes = Nodes::start(3);
    create(&nodes, 0);
    let ids: Vec<String> = (0..3).map(|n| nodes.client(n).call(&["CLUSTER", "MYID"])).collect();
    let (mut source, mut target) = (nodes.client(0), nodes.client(1));
    // Slot 0 to 5460 are the first one's.
    let slot: u16 = source.call(&["CLUSTER", "KEYSLOT", "{c}"]).parse().unwrap();
    let owner = nodes.owner_of(slot);
    if owner != 0 {
        source = nodes.client(owner);
        target = nodes.client((owner + 1) % 3);
    }
    let (from, to) = (&ids[owner], &ids[(owner + 1) % 3]);
    let to_port = nodes.port((owner + 1) % 3).to_string();
    let slot = slot.to_string();
    for n in 0..6 {
        source.ok(&["SET", &format!("{{c}}{n}"), &n.to_string()]);
    }
    source.call(&["RPUSH", "{c}list", "a", "b"]);
    source.ok(&["SET", "{c}later", "v", "EX", "1000"]);
    target.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", from]);
    source.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", to]);
    assert!(source.call(&["CLUSTER", "NODES"]).contains(&format!(" [{slot}->-{to}]")));
    assert!(target.call(&["CLUSTER", "NODES"]).contains(&format!(" [{slot}-<-{from}]")));
    // What is here is answered here; what is not is asked for there.
    let ask = format!("-ASK {slot} 127.0.0.1:{to_port}");
    assert_eq!(source.call(&["GET", "{c}1"]), "1");
    assert_eq!(source.call(&["GET", "{c}new"]), ask);
    source.ok(&["MIGRATE", "127.0.0.1", &to_port, "{c}0", "0", "2000"]);
    assert_eq!(source.call(&["GET", "{c}0"]), ask);
    assert_eq!(
        source.call(&["MGET", "{c}0", "{c}1"]),
        "-TRYAGAIN Multiple keys request during rehashing of slot"
    );
    let nokey = source.call(&["MIGRATE", "127.0.0.1", &to_port, "{c}0", "0", "2000"]);
    assert_eq!(nokey, "NOKEY");
    assert!(target.call(&["GET", "{c}0"]).starts_with("-MOVED"));
    target.ok(&["ASKING"]);
    assert_eq!(target.call(&["GET", "{c}0"]), "0");
    target.ok(&["ASKING"]);
    assert_eq!(
        target.call(&["MGET", "{c}0", "{c}1"]),
        "-TRYAGAIN Multiple keys request during rehashing of slot"
    );
    target.ok(&["ASKING"]);
    target.ok(&["SET", "{c}new", "here"]);
    source.ok(&[
        "MIGRATE",
        "127.0.0.1",
        &to_port,
        "",
        "0",
        "2000",
        "KEYS",
        "{c}list",
        "{c}later",
        "{c}gone",
    ]);
    let early = target.call(&["CLUSTER", "SETSLOT", &slot, "STABLE"]);
    assert!(early.contains("holds keys that were imported"), "{early}");
    let refused = source.call(&["CLUSTER", "SETSLOT", &slot, "NODE", to]);
    assert!(refused.contains("while I still hold keys"), "{refused}");
    let fixed = nodes.cli(&["fix", &nodes.address(0)]);
    assert!(fixed.contains("[OK] All 16384 slots covered."), "{fixed}");
    assert!(!nodes.client(owner).call(&["CLUSTER", "NODES"]).contains('['), "{fixed}");
    nodes.until_agreed(3);
    // Whoever had more of them has all of them now.
    let mut holder = nodes.client(nodes.owner_of(slot.parse().unwrap()));
    assert_eq!(holder.call(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "9", "{fixed}");
    assert_eq!(holder.call(&["LRANGE", "{c}list", "0", "-1"]), "a b");
    assert_eq!(holder.call(&["MGET", "{c}0", "{c}1", "{c}new"]), "0 1 here");
    let ttl: i64 = holder.call(&["TTL", "{c}later"]).parse().unwrap();
    assert!((900..=1000).contains(&ttl), "{ttl}");
}

#[test]
fn keys_that_change_while_they_are_moved_are_not_lost() {
    let nodes = Nodes::start(2);
    nodes.client(0).ok(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    nodes.meet(1, 0);
    nodes.until_agreed(2);
    let (mut source, mut target) = (nodes.client(0), nodes.client(1));
    let (from, to) = (source.call(&["CLUSTER", "MYID"]), target.call(&["CLUSTER", "MYID"]));
    let slot = source.call(&["CLUSTER", "KEYSLOT", "{k}"]);
    source.until(&["SET", "{k}0", "0"], "OK");
    for n in 0..100 {
        source.ok(&["SET", &format!("{{k}}{n}"), "0"]);
    }
    target.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]);
    source.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]);
    // Counts each key up at whoever answers for it, until told to stop: nothing that was answered may be missing.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let count = |first: usize| {
        let mut clients = [nodes.client(0), nodes.client(1)];
        let mut counted = [0i64; 100];
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            for n in (first..100).step_by(2) {
                let incr = ["INCR", &format!("{{k}}{n}")];
                let mut reply = clients[0].call(&incr);
                if reply.starts_with("-ASK") {
                    clients[1].ok(&["ASKING"]);
                    reply = clients[1].call(&incr);
                } else if reply.starts_with("-MOVED") {
                    reply = clients[1].call(&incr);
                }
                counted[n] += i64::from(!reply.starts_with('-'));
            }
        }
        counted
    };
    let counted = std::thread::scope(|scope| {
        let count = &count;
        let counting = [0, 1].map(|first| scope.spawn(move || count(first)));
        let port = nodes.port(1).to_string();
        let keys: Vec<String> = (0..100).map(|n| format!("{{k}}{n}")).collect();
        for some in keys.chunks(5) {
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(some.iter().map(String::as_str));
            source.until(&migrate, "OK");
        }
        target.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
        source.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
        stop.store(true, std::sync::atomic::Ordering::Release);
        counting.map(|c| c.join().unwrap())
    });
    for n in 0..100 {
        let value: i64 = target.call(&["GET", &format!("{{k}}{n}")]).parse().unwrap();
        assert_eq!(value, counted[n % 2][n], "key {n}");
    }
}

#[test]
fn a_slot_is_emptied_here_and_on_its_replica() {
    let nodes = three_with_a_replica_each();
    let slot: u16 = nodes.client(0).call(&["CLUSTER", "KEYSLOT", "{a}"]).parse().unwrap();
    let mut client = nodes.client(nodes.owner_of(slot));
    let keys: Vec<String> = (0..600).map(|n| format!("{{a}}{n}")).collect();
    for key in &keys {
        client.ok(&["SET", key, "v"]);
    }
    let text = slot.to_string();
    for (args, error) in [
        (&["FLUSHSLOT"][..], "-ERR wrong number of arguments for 'cluster|flushslot' command"),
        (&["FLUSHSLOT", "16384"], "-ERR Invalid or out of range slot"),
        (&["FLUSHSLOT", &text, "NOW"], "-ERR syntax error"),
    ] {
        assert_eq!(client.call(&[&["CLUSTER"], args].concat()), error, "{args:?}");
    }
    let replica = (0..6).find(|n| {
        let replicas = client.call(&["CLUSTER", "MYID"]);
        nodes
            .client(*n)
            .call(&["CLUSTER", "NODES"])
            .lines()
            .any(|line| line.contains("myself,slave") && line.contains(&replicas))
    });
    let mut replica = nodes.client(replica.unwrap());
    let refused = replica.call(&["CLUSTER", "FLUSHSLOT", &text]);
    assert!(refused.starts_with("-READONLY"), "{refused}");
    client.ok(&["CLUSTER", "FLUSHSLOT", &text, "ASYNC"]);
    assert_eq!(client.call(&["CLUSTER", "COUNTKEYSINSLOT", &text]), "0");
    replica.until(&["CLUSTER", "COUNTKEYSINSLOT", &text], "0");
    client.ok(&["SET", "{a}", "v"]);
    client.ok(&["MULTI"]);
    client.call(&["CLUSTER", "FLUSHSLOT", &text]);
    assert_eq!(client.call(&["EXEC"]), "OK");
    assert_eq!(client.call(&["EXISTS", "{a}"]), "0");
}

#[test]
fn nobody_writes_to_slots_that_the_council_may_still_let_go_of() {
    let nodes = Nodes::start(2);
    let mut owner = owner_of_all(&nodes);
    let slot = owner.call(&["CLUSTER", "KEYSLOT", "{given}"]);
    owner.ok(&["SET", "{kept}", "0"]);

    give_up_in_doubt(&nodes, &mut owner, &["CLUSTER", "DELSLOTS", &slot], |owner| {
        // What keeps clients away from all the other slots ends as soon as the first one is back.
        let ended = "-CLUSTERDOWN The primary's lease has ended";
        assert_eq!(owner.call(&["SET", "{kept}", "1"]), ended);
    });
    owner.until(&["SET", "{kept}", "2"], "OK");
    nodes.until_agreed(2);
    assert_eq!(nodes.slots_of(1), 16_383);
    // Decided is decided: what was put again meanwhile takes nothing from the next owner.
    nodes.client(0).until(&["CLUSTER", "ADDSLOTS", &slot], "OK");
    nodes.client(0).until(&["SET", "{given}", "3"], "OK");
    nodes.until_agreed(2);
    assert!(nodes.owns(0, slot.parse().unwrap()));
}

#[test]
fn nobody_writes_to_any_slot_while_the_council_may_still_let_go_of_all() {
    let nodes = Nodes::start(2);
    let mut owner = owner_of_all(&nodes);
    give_up_in_doubt(&nodes, &mut owner, &["CLUSTER", "FLUSHSLOTS"], |owner| {
        let held = "-CLUSTERDOWN The slot is about to change its owner";
        assert_eq!(owner.call(&["SET", "{other}", "1"]), held);
    });
    nodes.until_agreed(2);
    assert_eq!(nodes.slots_of(1), 0);
    nodes.client(0).until(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"], "OK");
    nodes.client(0).until(&["SET", "{given}", "3"], "OK");
    nodes.until_agreed(2);
    assert_eq!((nodes.slots_of(0), nodes.slots_of(1)), (16_384, 0));
}

/// A client of the second node, that owns all slots and holds no key; the first is all of the council.
fn owner_of_all(nodes: &Nodes) -> Client {
    // Who asks to meet goes into the other's council, which has one voter: the first.
    nodes.meet(1, 0);
    nodes.until_agreed(2);
    let mut owner = nodes.client(1);
    owner.ok(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    nodes.until_agreed(2);
    owner.until(&["SET", "{given}", "0"], "OK");
    owner.call(&["DEL", "{given}"]);
    owner
}

/// Gives up the slot of `{given}` by `request` while nobody decides; `meanwhile` is asked beside it until somebody does.
fn give_up_in_doubt(
    nodes: &Nodes,
    owner: &mut Client,
    request: &[&str],
    meanwhile: impl Fn(&mut Client),
) {
    // Whoever decides is stopped: what is put to it now, it decides later on or never.
    nodes.signal(0, "-STOP");
    let told = owner.call(request);
    assert!(told.starts_with("-ERR "), "the council has decided: {told}");
    let held = "-CLUSTERDOWN The slot is about to change its owner";
    for _ in 0..100 {
        assert_eq!(owner.call(&["SET", "{given}", "1"]), held, "told: {told}");
        meanwhile(owner);
    }

    // From here on any moment may be the one: only refusals until everybody knows.
    nodes.signal(0, "-CONT");
    let gone = "-CLUSTERDOWN Hash slot not served";
    let mut seen = String::new();
    for _ in 0..1_000_000 {
        seen = owner.call(&["SET", "{given}", "2"]);
        assert!(seen.starts_with("-CLUSTERDOWN "), "{seen}");
        if seen == gone {
            break;
        }
    }
    assert_eq!(seen, gone);
}
