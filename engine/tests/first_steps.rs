//! The first things that are done with a server: started without arguments, bound to one address, killed, looked at.

mod processes;

use std::process::Command;
use std::time::Duration;

use processes::{Client, Server, free_port};

/// Set for the run of a test inside a network of its own.
const INSIDE: &str = "LARDER_TEST_IN_OWN_NETWORK";

/// Runs this very test once more where nobody else has a port: false to who is to do so, after it was done.
fn has_own_network(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = ["--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "-"];
    let may = Command::new("unshare").args(&unshare[..4]).args(["ip link set lo up"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("skipped: no network of its own can be made here");
        return false;
    }
    let status = Command::new("unshare")
        .args(unshare)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    false
}

#[test]
fn without_any_argument_it_says_that_it_is_ready_and_answers_on_6379() {
    if !has_own_network("without_any_argument_it_says_that_it_is_ready_and_answers_on_6379") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder-server"))
        .current_dir(dir.path())
        .stdout(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    while !std::fs::read_to_string(&log).unwrap().contains("Ready to accept connections") {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    let answer = Client::try_connect(6379).and_then(|mut client| client.try_call(&["PING"]));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.unwrap(), "PONG");
}

/// Local addresses of a process's listening sockets of TCP, as the kernel writes them.
fn listens_on(pid: u32) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = links
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|to| {
            to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            if words[3] == "0A" && sockets.iter().any(|inode| inode == words[9]) {
                found.push(words[1].to_owned());
            }
        }
    }
    found
}

#[test]
fn bound_to_one_address_it_listens_on_no_other() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let file = dir.path().join("larder.conf");
    let folder = dir.path().display();
    std::fs::write(&file, format!("bind 127.0.0.1\nport {port}\ndir {folder}\n")).unwrap();
    let server = Server::configured(port, dir.path(), &file);
    assert_eq!(server.client().call(&["PING"]), "PONG");
    assert_eq!(listens_on(server.pid()), [format!("0100007F:{port:04X}")]);
    for other in ["127.0.0.2", "::1"] {
        assert!(std::net::TcpStream::connect((other, port)).is_err(), "{other}");
    }
}

#[test]
fn after_a_crash_the_data_is_that_of_the_last_snapshot_and_info_says_from_when() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    assert_eq!(client.info("larder_loaded_snapshot_time"), "0");
    for n in 0..100 {
        client.ok(&["SET", &format!("saved:{n}"), &n.to_string()]);
    }
    client.ok(&["SAVE"]);
    let saved = client.call(&["LASTSAVE"]).parse::<i64>().unwrap();
    client.ok(&["SET", "saved:0", "later"]);
    client.ok(&["SET", "unsaved", "1"]);
    client.call(&["DEL", "saved:1"]);
    server.kill();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    assert_eq!(client.call(&["DBSIZE"]), "100");
    for n in 0..100 {
        assert_eq!(client.call(&["GET", &format!("saved:{n}")]), n.to_string());
    }
    // A snapshot is of the moment at which it began, LASTSAVE tells its end.
    let taken = client.info("larder_loaded_snapshot_time").parse::<i64>().unwrap();
    assert!(taken > 0 && taken <= saved, "{taken}, saved {saved}");
}

#[test]
fn commands_and_uptime_are_told_and_the_rate_is_that_of_the_moment() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let number = |client: &mut Client, field: &str| client.info(field).parse::<u64>().unwrap();
    let before = number(&mut client, "total_commands_processed");
    for _ in 0..100 {
        client.call(&["PING"]);
    }
    let after = number(&mut client, "total_commands_processed");
    // The INFO that tells a figure is counted by the next one at the earliest.
    assert_eq!(after - before, 101);
    let mut until = |what: &str, field: &str, holds: &dyn Fn(u64) -> bool, meanwhile: &dyn Fn()| {
        for _ in 0..2000 {
            meanwhile();
            if holds(number(&mut client, field)) {
                return;
            }
        }
        panic!("never: {what}");
    };
    let wait = || std::thread::sleep(Duration::from_millis(10));
    until("a time to divide by", "uptime_in_seconds", &|s| s > 0, &wait);
    let busy = || {
        let mut client = server.client();
        (0..2000).for_each(|_| client.send(&["PING"]).unwrap());
        (0..2000).for_each(|_| drop(client.reply().unwrap()));
    };
    // Whoever asks every 10 ms makes fewer than a hundred and fifty a second himself.
    until("a rate under load", "instantaneous_ops_per_sec", &|n| n > 1000, &busy);
    until("a rate without load", "instantaneous_ops_per_sec", &|n| n < 150, &wait);
}
