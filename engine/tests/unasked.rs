//! What a server does by itself once it is set up: snapshots by rules, a log that is kept short, replicas that follow.

mod processes;

use std::time::Duration;

use processes::Server;

#[test]
fn snapshots_are_made_by_their_rules() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--save", "1 10"]);
    let mut client = server.client();
    for n in 0..10 {
        client.ok(&["SET", &format!("key:{n}"), "v"]);
    }
    client.until_info("rdb_changes_since_last_save", "0");
    client.until_info("rdb_bgsave_in_progress", "0");
    assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
    assert!(dir.path().join("dump.rdb").exists());
}

#[test]
fn a_log_that_grows_is_rewritten_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "--appendonly",
        "yes",
        "--auto-aof-rewrite-min-size",
        "64kb",
        "--auto-aof-rewrite-percentage",
        "100",
    ];
    let mut server = Server::start(dir.path(), &settings);
    let mut client = server.client();
    let value = "x".repeat(1000);
    let mut writes = 0;
    let before = client.info("aof_rewrites");
    while client.info("aof_rewrites") == before {
        client.ok(&["SET", "key", &value]);
        writes += 1;
        if writes > 200 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(writes < 5000, "the log is not rewritten");
    }
    client.until_info("aof_rewrite_in_progress", "0");
    client.ok(&["SET", "last", "1"]);
    server.kill();
    let server = Server::start(dir.path(), &settings);
    let mut client = server.client();
    assert_eq!(client.call(&["GET", "key"]), value);
    assert_eq!(client.call(&["GET", "last"]), "1");
}

#[test]
fn one_writes_and_three_read() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let primary = Server::start(dirs[0].path(), &[]);
    let port = primary.port.to_string();
    let follow = ["--replicaof", "127.0.0.1", &port];
    let replicas: Vec<Server> =
        dirs[1..].iter().map(|dir| Server::start(dir.path(), &follow)).collect();
    let mut client = primary.client();
    client.until_info("connected_slaves", "3");
    for replica in &replicas {
        replica.client().until_info("master_link_status", "up");
    }
    client.ok(&["SET", "k", "v"]);
    assert_eq!(client.call(&["WAIT", "3", "20000"]), "3");
    for replica in &replicas {
        let mut client = replica.client();
        assert_eq!(client.call(&["GET", "k"]), "v");
        assert!(client.call(&["SET", "k", "w"]).starts_with("-READONLY"));
        assert_eq!(client.info("role"), "slave");
    }
}
