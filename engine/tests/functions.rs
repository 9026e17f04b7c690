//! Libraries of functions are data: the same on every thread, on replicas, after a restart, and for redis.

mod processes;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use processes::{Client, Server};

const BUSY: &str =
    "-BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

/// A library whose function `name` returns a text, and which is long enough to be compressed.
fn library(name: &str, text: &str) -> String {
    let remark = "-- a remark that is there again and again\n".repeat(10);
    let callback = format!("callback=function() return '{text}' end, flags={{'no-writes'}}");
    let register = format!("redis.register_function{{function_name='{name}', {callback}}}");
    format!("#!lua name=lib_{name}\n{remark}{register}")
}

fn load(client: &mut Client, name: &str, text: &str) {
    let loaded = client.call(&["FUNCTION", "LOAD", "REPLACE", &library(name, text)]);
    assert_eq!(loaded, format!("lib_{name}"));
}

fn follow(replica: &mut Client, primary: &Server) {
    replica.ok(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    replica.until_info("master_link_status", "up");
}

/// What is left of `change_all`.
fn check_all(client: &mut Client) {
    for (name, reply) in [("early", "early"), ("nowrites", "nowrites"), ("quoted", "it's")] {
        assert_eq!(client.call(&["FCALL_RO", name, "0"]), reply, "{name}");
    }
    assert_eq!(client.call(&["FCALL_RO", "gone", "0"]), "-ERR Function not found");
    let stats = client.call(&["FUNCTION", "STATS"]);
    assert!(stats.contains("libraries_count 2 functions_count 3"), "{stats}");
}

const NO_WRITES: &str = "#!lua name=reads\n\
    redis.register_function{function_name='nowrites', callback=function() return 'nowrites' end, flags={'no-writes'}}\n\
    redis.register_function{function_name='quoted', callback=function() return \"it's\" end, flags={'no-writes'}}";

fn change_all(client: &mut Client) {
    load(client, "early", "old");
    load(client, "early", "early");
    load(client, "gone", "gone");
    client.ok(&["FUNCTION", "DELETE", "lib_gone"]);
    assert_eq!(client.call(&["FUNCTION", "LOAD", NO_WRITES]), "reads");
    assert!(
        client.call(&["FUNCTION", "LOAD", NO_WRITES]).starts_with("-ERR Library 'reads' already")
    );
    client.ok(&["FLUSHALL"]);
}

#[test]
fn libraries_are_the_same_on_replicas_of_either_kind_and_after_a_restart() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let log = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut primary = Server::start(dirs[0].path(), &log);
    let replica = Server::start(dirs[1].path(), &[]);
    let redis = Server::redis(dirs[2].path(), &[]);
    let mut p = primary.client();
    let mut followers = vec![replica.client()];
    followers.extend(redis.as_ref().map(Server::client));
    // In the stream of one, and in the full sync of the other.
    follow(&mut followers[0], &primary);
    change_all(&mut p);
    followers.iter_mut().skip(1).for_each(|follower| follow(follower, &primary));
    let count = followers.len().to_string();
    assert_eq!(p.call(&["WAIT", &count, "10000"]), count);
    check_all(&mut p);
    for follower in &mut followers {
        check_all(follower);
        let refused = follower.call(&["FUNCTION", "LOAD", &library("x", "x")]);
        assert!(refused.starts_with("-READONLY"), "{refused}");
        let refused = follower.call(&["FUNCTION", "FLUSH"]);
        assert!(refused.starts_with("-READONLY"), "{refused}");
    }
    // The log as requests, then as a base.
    primary.kill();
    let mut primary = Server::on(primary.port, dirs[0].path(), &log);
    let mut p = primary.client();
    check_all(&mut p);
    p.call(&["BGREWRITEAOF"]);
    p.until_info("aof_rewrite_in_progress", "0");
    assert_eq!(p.info("aof_last_bgrewrite_status"), "ok");
    primary.kill();
    let primary = Server::on(primary.port, dirs[0].path(), &log);
    check_all(&mut primary.client());
    primary.client().ok(&["FUNCTION", "FLUSH"]);
    followers[0].until(&["FUNCTION", "LIST"], "");
}

#[test]
fn redis_loads_our_snapshot_with_libraries_and_we_load_its() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let Some(mut redis) = Server::redis(dirs[0].path(), &[]) else { return };
    change_all(&mut redis.client());
    redis.client().ok(&["SAVE"]);
    redis.kill();
    let pass_on = |from: usize, to: usize| {
        std::fs::copy(dirs[from].path().join("dump.rdb"), dirs[to].path().join("dump.rdb"))
            .unwrap();
    };
    pass_on(0, 1);
    let ours = Server::start(dirs[1].path(), &[]);
    check_all(&mut ours.client());
    ours.client().ok(&["SAVE"]);
    pass_on(1, 2);
    let redis = Server::redis(dirs[2].path(), &[]).unwrap();
    check_all(&mut redis.client());
    // And as a full sync, in place of what was there.
    load(&mut ours.client(), "mine", "mine");
    let mut o = ours.client();
    follow(&mut o, &redis);
    check_all(&mut o);
    let mut loader = redis.client();
    load(&mut loader, "early", "replaced");
    // It has come before the other stops listening.
    assert_eq!(loader.call(&["WAIT", "1", "10000"]), "1");
    o.until(&["FCALL_RO", "mine", "0"], "-ERR Function not found");
    o.ok(&["REPLICAOF", "NO", "ONE"]);
    o.until(&["FCALL", "early", "0"], "replaced");
}

/// Each call sees the version that was loaded last when it was made, or a later one, wherever it runs.
#[test]
fn what_one_thread_has_loaded_all_threads_call() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--io-threads", "3"]);
    let (version, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
    load(&mut server.client(), "version", "0");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let (version, ends, mut client) = (&version, &ends, server.client());
            scope.spawn(move || {
                while !ends.load(Ordering::Acquire) {
                    let least = version.load(Ordering::Acquire);
                    let seen: usize = client.call(&["FCALL", "version", "0"]).parse().unwrap();
                    assert!(seen >= least, "{seen} after {least}");
                }
            });
        }
        let mut loaders = [server.client(), server.client(), server.client()];
        for next in 1..300 {
            let loader = &mut loaders[next % 3];
            load(loader, "version", &next.to_string());
            version.store(next, Ordering::Release);
            let failed =
                loader.call(&["FUNCTION", "LOAD", "REPLACE", "#!lua name=lib_version\nx()"]);
            assert!(failed.starts_with("-ERR Error registering"), "{failed}");
        }
        ends.store(true, Ordering::Release);
    });
}

#[test]
fn a_function_that_runs_for_long_is_shown_and_ended_as_one() {
    for threads in ["1", "3"] {
        let dir = tempfile::tempdir().unwrap();
        let server =
            Server::start(dir.path(), &["--io-threads", threads, "--busy-reply-threshold", "50"]);
        let endless = "#!lua name=endless\n\
            redis.register_function('endless', function() while true do end end)\n\
            redis.register_function('half', function(keys) redis.call('set', keys[1], 1) while true do end end)";
        assert_eq!(server.client().call(&["FUNCTION", "LOAD", endless]), "endless");
        let mut client = server.client();
        client.send(&["FCALL", "endless", "1", "k", "a"]).unwrap();
        let mut other = server.client();
        other.until(&["PING"], BUSY);
        assert_eq!(other.call(&["SCRIPT", "KILL"]), BUSY);
        assert_eq!(other.call(&["FUNCTION", "LIST"]), BUSY);
        let stats = other.call(&["FUNCTION", "STATS"]);
        let shown = "running_script name endless command FCALL endless 1 k a duration_ms ";
        assert!(stats.starts_with(shown), "{stats}");
        other.ok(&["FUNCTION", "KILL"]);
        let reply = client.reply().unwrap();
        assert!(reply.contains("Script killed by user with FUNCTION KILL"), "{reply}");
        assert!(other.call(&["FUNCTION", "KILL"]).starts_with("-NOTBUSY"));
        // A script is no function, and what has written is ended by nobody.
        client.send(&["EVAL", "while true do end", "0"]).unwrap();
        other.until(&["FUNCTION", "KILL"], &BUSY.replace("FUNCTION", "SCRIPT"));
        assert_eq!(other.call(&["FUNCTION", "STATS"]), BUSY.replace("FUNCTION", "SCRIPT"));
        other.ok(&["SCRIPT", "KILL"]);
        assert!(client.reply().unwrap().contains("SCRIPT KILL"));
        client.send(&["FCALL", "half", "1", "k"]).unwrap();
        other.until(&["PING"], BUSY);
        assert!(other.call(&["FUNCTION", "KILL"]).starts_with("-UNKILLABLE"));
    }
}

#[test]
fn loading_is_bounded_and_what_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--larder-script-memory-bytes", "16mb"]);
    let mut client = server.client();
    load(&mut client, "kept", "kept");
    for body in [
        "while true do end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "string.rep('a', 1e6):find(('.-'):rep(30) .. 'b')",
        "('a'):rep(1e6):find(('.-'):rep(30) .. 'b')",
        "local function f() return 1 + f() end f()",
        "redis.register_function('kept', function() end)",
        "redis.register_function('new', function() end) error()",
    ] {
        let source = format!("#!lua name=fails\n{body}");
        let reply = client.call(&["FUNCTION", "LOAD", &source]);
        assert!(reply.starts_with("-ERR"), "{body}: {reply:.200}");
        assert_eq!(client.call(&["FCALL", "kept", "0"]), "kept", "{body}");
        assert_eq!(client.call(&["FCALL", "new", "0"]), "-ERR Function not found", "{body}");
    }
    client.ok(&["SET", "k", "v"]);
    client.ok(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = client.call(&["FUNCTION", "LOAD", &library("x", "x")]);
    assert!(refused.starts_with("-OOM command not allowed"), "{refused}");
    client.ok(&["FUNCTION", "DELETE", "lib_kept"]);
}
