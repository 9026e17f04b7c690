//! What is on disk after crashes, and what comes back of it.

mod processes;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use processes::{Client, Server, check_filled, fill};

fn incr_file(dir: &std::path::Path) -> std::path::PathBuf {
    let folder = dir.join("appendonlydir");
    let manifest = std::fs::read_to_string(folder.join("appendonly.aof.manifest")).unwrap();
    let line = manifest.lines().rfind(|l| l.ends_with("type i")).unwrap();
    folder.join(line.split(' ').nth(1).unwrap())
}

#[test]
fn a_saved_data_set_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    fill(&mut client);
    client.ok(&["SAVE"]);
    client.ok(&["SET", "unsaved", "1"]);
    server.kill();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    check_filled(&mut client);
    assert_eq!(client.call(&["EXISTS", "unsaved"]), "0");
    let mode =
        std::os::unix::fs::MetadataExt::mode(&dir.path().join("dump.rdb").metadata().unwrap());
    assert_eq!(mode & 0o077, 0, "the file is private");
}

#[test]
fn the_log_brings_every_type_back_and_again_after_a_rewrite() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--appendonly", "yes"]);
    let mut client = server.client();
    fill(&mut client);
    client.ok(&["MULTI"]);
    client.call(&["INCR", "tx"]);
    client.call(&["INCR", "tx"]);
    client.call(&["EXEC"]);
    client.send(&["SHUTDOWN"]).unwrap();
    assert_eq!(server.ended(), Some(0));
    for _ in 0..2 {
        let mut server = Server::start(dir.path(), &["--appendonly", "yes"]);
        let mut client = server.client();
        check_filled(&mut client);
        assert_eq!(client.call(&["GET", "tx"]), "2");
        client.call(&["BGREWRITEAOF"]);
        client.until_info("aof_rewrite_in_progress", "0");
        assert_eq!(client.info("aof_last_bgrewrite_status"), "ok");
        client.send(&["SHUTDOWN"]).unwrap();
        assert_eq!(server.ended(), Some(0));
    }
    let files = std::fs::read_dir(dir.path().join("appendonlydir")).unwrap().count();
    assert_eq!(files, 3, "a base, what came after it, the manifest");
}

/// The end of the process: what was acknowledged is with the kernel, whatever appendfsync says.
#[test]
fn a_kill_at_any_point_loses_nothing_that_was_acknowledged() {
    for policy in ["always", "everysec", "no"] {
        kill_while_it_counts(policy);
    }
}

fn kill_while_it_counts(policy: &str) {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--appendonly", "yes", "--appendfsync", policy];
    let acknowledged = Arc::new(AtomicU64::new(0));
    for round in 0..4u64 {
        let mut server = Server::start(dir.path(), &args);
        let mut client = server.client();
        let have: u64 = client.call(&["GET", "counter"]).parse().unwrap_or(0);
        assert!(have >= acknowledged.load(Ordering::Acquire), "{policy}: round {round}");
        let (port, acked) = (server.port, acknowledged.clone());
        let writer = std::thread::spawn(move || {
            let mut client = Client::try_connect(port).unwrap();
            while let Ok(reply) = client.try_call(&["INCR", "counter"]) {
                acked.store(reply.parse().unwrap(), Ordering::Release);
            }
        });
        let goal = acknowledged.load(Ordering::Acquire) + 50 + round * 37;
        while acknowledged.load(Ordering::Acquire) < goal {
            if round % 2 == 1 {
                // Crash in the middle of a rewrite, too.
                client.call(&["BGREWRITEAOF"]);
            }
            std::thread::yield_now();
        }
        server.kill();
        writer.join().unwrap();
    }
    let server = Server::start(dir.path(), &args);
    let have: u64 = server.client().call(&["GET", "counter"]).parse().unwrap();
    assert!(have >= acknowledged.load(Ordering::Acquire), "{policy}");
}

#[test]
fn a_torn_tail_is_cut_also_inside_a_transaction_and_refused_when_so_configured() {
    for tail in [
        "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$5\r\nto",
        "*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path(), &["--appendonly", "yes"]);
        let mut client = server.client();
        client.ok(&["SET", "a", "1"]);
        client.send(&["SHUTDOWN"]).unwrap();
        assert_eq!(server.ended(), Some(0));
        let path = incr_file(dir.path());
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        file.write_all(tail.as_bytes()).unwrap();
        drop(file);
        let strict = ["--appendonly", "yes", "--aof-load-truncated", "no"];
        let program = env!("CARGO_BIN_EXE_larder-server");
        let mut refusing = Server::spawn(program, processes::free_port(), dir.path(), &strict);
        assert_eq!(refusing.ended(), Some(1));
        let mut server = Server::start(dir.path(), &["--appendonly", "yes"]);
        let mut client = server.client();
        assert_eq!(client.call(&["GET", "a"]), "1");
        assert_eq!(client.call(&["EXISTS", "b"]), "0");
        client.ok(&["SET", "c", "1"]);
        client.send(&["SHUTDOWN"]).unwrap();
        assert_eq!(server.ended(), Some(0));
        let server = Server::start(dir.path(), &strict);
        assert_eq!(server.client().call(&["GET", "c"]), "1");
    }
}

/// Who runs it while loading has no number of a loop's: each command of the script was counted under one, past the end of the
/// counts, so that a script ended with its first command.
#[test]
fn a_script_in_a_log_of_redis_does_all_that_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--appendonly", "yes"]);
    server.client().ok(&["SET", "before", "1"]);
    server.client().send(&["SHUTDOWN"]).unwrap();
    assert_eq!(server.ended(), Some(0));
    let script = "redis.call('SET', KEYS[1], '1') redis.call('SET', KEYS[2], '2')";
    let mut file = std::fs::File::options().append(true).open(incr_file(dir.path())).unwrap();
    write!(file, "*5\r\n$4\r\nEVAL\r\n${}\r\n{script}\r\n", script.len()).unwrap();
    file.write_all(b"$1\r\n2\r\n$1\r\na\r\n$1\r\nb\r\n").unwrap();
    drop(file);
    let server = Server::start(dir.path(), &["--appendonly", "yes"]);
    let mut client = server.client();
    assert_eq!(client.call(&["MGET", "before", "a", "b"]), "1 1 2");
    assert!(client.call(&["INFO", "commandstats"]).contains("cmdstat_set:calls=3"));
}

#[test]
fn a_snapshot_under_writes_shows_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--io-threads", "2"]);
    let mut client = server.client();
    for i in 0..5000 {
        client.ok(&["SET", &format!("filler:{i}"), &"v".repeat(100)]);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (port, ended) = (server.port, stop.clone());
    let writer = std::thread::spawn(move || {
        let mut client = Client::try_connect(port).unwrap();
        let mut n = 0u64;
        while !ended.load(Ordering::Acquire) {
            n += 1;
            let n = n.to_string();
            client.send(&["MULTI"]).unwrap();
            for i in 0..50 {
                client.send(&["SET", &format!("twin:{i}"), &n]).unwrap();
            }
            client.send(&["EXEC"]).unwrap();
            for _ in 0..52 {
                client.reply().unwrap();
            }
        }
    });
    for _ in 0..3 {
        client.call(&["BGSAVE"]);
        client.until_info("rdb_bgsave_in_progress", "0");
        assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("dump.rdb"), copy.path().join("dump.rdb")).unwrap();
        let loaded = Server::start(copy.path(), &[]);
        let mut loaded = loaded.client();
        let first = loaded.call(&["GET", "twin:0"]);
        for i in 1..50 {
            assert_eq!(loaded.call(&["GET", &format!("twin:{i}")]), first);
        }
    }
    stop.store(true, Ordering::Release);
    writer.join().unwrap();
}

#[test]
fn a_log_that_was_just_switched_on_is_whole_before_the_server_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    fill(&mut client);
    client.ok(&["CONFIG", "SET", "appendonly", "yes"]);
    // Its base is still being written, most likely: the end waits for it, or the data set would be nowhere.
    client.until_info("aof_enabled", "1");
    client.ok(&["SET", "after", "1"]);
    let pid = server.pid().to_string();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    assert_eq!(server.ended(), Some(0));
    let server = Server::start(dir.path(), &["--appendonly", "yes"]);
    let mut client = server.client();
    check_filled(&mut client);
    assert_eq!(client.call(&["GET", "after"]), "1");
}

#[test]
fn redis_reads_our_files_and_we_read_its() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--appendonly", "yes"]);
    let mut client = server.client();
    fill(&mut client);
    client.ok(&["SAVE"]);
    client.send(&["SHUTDOWN"]).unwrap();
    assert_eq!(server.ended(), Some(0));
    for args in [&["--appendonly", "yes"][..], &[]] {
        let Some(mut redis) = Server::redis(dir.path(), args) else { return };
        let mut client = redis.client();
        check_filled(&mut client);
        client.ok(&["SAVE"]);
        client.send(&["SHUTDOWN"]).unwrap();
        redis.ended();
        let mut server = Server::start(dir.path(), args);
        let mut client = server.client();
        check_filled(&mut client);
        client.send(&["SHUTDOWN"]).unwrap();
        assert_eq!(server.ended(), Some(0));
    }
}
