//! Three real Sentinels watch a plain primary with two replicas, and fail over.

mod processes;

use std::path::Path;
use std::time::Duration;

use processes::{Client, REDIS, Server, check_filled, fill, free_port};

/// The name under which Sentinels know the primary.
const NAME: &str = "cache";
/// Replies are asked for this often, 20 ms apart.
const TRIES: usize = 3000;
/// More than the second after which a Sentinel asks a server that it has just turned to for the first time: with no more than
/// that, three at once take a new primary for dead now and then, and replace it by the other replica.
const DOWN_AFTER_MS: u16 = 2500;

/// A server with a configuration file, which Sentinel has it rewrite.
fn start(dir: &Path, port: u16) -> Server {
    let file = dir.join(format!("{port}.conf"));
    if !file.exists() {
        let text = format!("port {port}\ndir {}\nsave \"\"\n", dir.display());
        std::fs::write(&file, text).unwrap();
    }
    Server::configured(port, dir, &file)
}

fn start_sentinel(dir: &Path, primary: u16, quorum: u8, failover_timeout_ms: u16) -> Server {
    let port = free_port();
    let file = dir.join(format!("sentinel-{port}.conf"));
    let text = format!(
        "port {port}\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {primary} {quorum}\n\
         sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n\
         sentinel failover-timeout {NAME} {failover_timeout_ms}\n",
        dir.display()
    );
    std::fs::write(&file, text).unwrap();
    Server::run(REDIS, port, dir, &[file.to_str().unwrap(), "--sentinel"])
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..TRIES {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not in time: {what}");
}

/// A Sentinel that changes a server's role ends its connections: each question comes on a new one.
fn says(server: &Server, args: &[&str], expected: impl Fn(&str) -> bool) {
    let ask = || Client::try_connect(server.port)?.try_call(args);
    eventually(&format!("{args:?} on {}", server.port), || ask().is_ok_and(|r| expected(&r)));
}

fn follows(server: &Server, port: &str) {
    says(server, &["INFO", "replication"], |info| info.contains(&format!("master_port:{port}\r")));
}

/// Where a Sentinel says that the primary is.
fn primary_by(sentinel: &Server) -> String {
    sentinel.client().call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])
}

#[test]
fn sentinels_replace_a_primary_and_take_it_in_again_as_a_replica() {
    if !Path::new(REDIS).exists() {
        println!("skipped: there is no {REDIS}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut servers: Vec<Server> = (0..3).map(|_| start(dir.path(), free_port())).collect();
    let first = servers[0].port.to_string();
    for replica in &servers[1..] {
        replica.client().ok(&["REPLICAOF", "127.0.0.1", &first]);
    }
    fill(&mut servers[0].client());
    for replica in &servers[1..] {
        replica.client().until_info("master_link_status", "up");
    }
    servers[0].client().until(&["WAIT", "2", "1000"], "2");
    let sentinels: Vec<Server> =
        (0..3).map(|_| start_sentinel(dir.path(), servers[0].port, 2, 10_000)).collect();
    for sentinel in &sentinels {
        eventually("a Sentinel knows two replicas and two others", || {
            let Ok(mut client) = Client::try_connect(sentinel.port) else { return false };
            let known = client.call(&["SENTINEL", "MASTERS"]);
            known.contains("num-slaves 2") && known.contains("num-other-sentinels 2")
        });
        let shown = sentinel.client().call(&["SENTINEL", "MASTER", NAME]);
        assert!(shown.contains(" failover-timeout 10000 "), "{shown}");
    }

    servers[0].kill();
    let mut promoted = 0;
    eventually("all Sentinels name the same new primary", || {
        promoted = (1..3)
            .find(|n| primary_by(&sentinels[0]).ends_with(&port_of(&servers[*n])))
            .unwrap_or(0);
        promoted != 0
            && sentinels.iter().all(|s| primary_by(s).ends_with(&port_of(&servers[promoted])))
    });
    let (other, port) = (3 - promoted, port_of(&servers[promoted]));
    says(&servers[promoted], &["ROLE"], |role| role.starts_with("master"));
    follows(&servers[other], &port);
    check_filled(&mut servers[promoted].client());
    says(&servers[promoted], &["SET", "after", "1"], |reply| reply == "OK");
    says(&servers[other], &["GET", "after"], |reply| reply == "1");

    // It comes back as the primary that it was, and is told better.
    let former = servers[0].port;
    servers[0] = start(dir.path(), former);
    follows(&servers[0], &port);
    says(&servers[0], &["GET", "after"], |reply| reply == "1");
    let file = |server: &Server| {
        std::fs::read_to_string(dir.path().join(format!("{}.conf", server.port))).unwrap()
    };
    eventually("the primary's file says that it follows nobody", || {
        !file(&servers[promoted]).contains("replicaof")
    });
    for server in [&servers[0], &servers[other]] {
        eventually("a replica's file says whom it follows", || {
            file(server).contains(&format!("replicaof 127.0.0.1 {port}"))
        });
    }
}

fn port_of(server: &Server) -> String {
    server.port.to_string()
}

/// Nobody could be promoted the first time: the only replica hung.
#[test]
fn a_failover_that_fails_is_tried_again() {
    if !Path::new(REDIS).exists() {
        println!("skipped: there is no {REDIS}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut primary = start(dir.path(), free_port());
    let replica = start(dir.path(), free_port());
    replica.client().ok(&["REPLICAOF", "127.0.0.1", &port_of(&primary)]);
    replica.client().until_info("master_link_status", "up");
    let sentinel = start_sentinel(dir.path(), primary.port, 1, 1000);
    says(&sentinel, &["SENTINEL", "MASTER", NAME], |shown| shown.contains(" num-slaves 1 "));
    replica.signal("-STOP");
    says(&sentinel, &["SENTINEL", "REPLICAS", NAME], |shown| shown.contains("s_down"));
    primary.kill();
    let log = dir.path().join(format!("{}.log", sentinel.port));
    let attempts = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.matches("-failover-abort-no-good-slave").count()
    };
    eventually("a failover that fails", || attempts() > 0);
    eventually("another that fails, too", || attempts() > 1);
    replica.signal("-CONT");
    eventually("the replica is the primary", || {
        primary_by(&sentinel).ends_with(&port_of(&replica))
    });
    says(&replica, &["ROLE"], |role| role.starts_with("master"));
}
