//! The first things that are done with a server: started without arguments, bound to one address, killed, looked at.

mod processes;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
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

/// A process that ends with the test, also where that fails: nobody else would look for it in its own network.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// redis-cli on a terminal of its own, which `script` makes: only there does it complete and hint.
struct Terminal {
    child: Ends,
    heard: std::sync::mpsc::Receiver<Vec<u8>>,
    /// What nobody waited for yet.
    screen: Vec<u8>,
}

impl Terminal {
    fn open(home: &std::path::Path) -> Terminal {
        // Without a size it would ask the terminal for one, and nobody would answer.
        let mut child = Command::new("script")
            .args(["--quiet", "--command", "stty cols 200 rows 50; exec redis-cli", "/dev/null"])
            .envs([("TERM", "xterm"), ("HOME", home.to_str().unwrap())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, heard) = std::sync::mpsc::channel();
        let mut out = child.stdout.take().unwrap();
        let child = Ends(child);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut piece) {
                if tell.send(piece[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, heard, screen: Vec::new() }
    }

    /// Reads until that is on the screen, and no further.
    fn until(&mut self, shown: &str) {
        let shown = shown.as_bytes();
        loop {
            if let Some(at) = self.screen.windows(shown.len()).position(|part| part == shown) {
                self.screen.drain(..at + shown.len());
                return;
            }
            match self.heard.recv_timeout(Duration::from_secs(20)) {
                Ok(piece) => self.screen.extend(piece),
                Err(_) => panic!("no {} in {}", shown.escape_ascii(), self.screen.escape_ascii()),
            }
        }
    }

    fn types(&mut self, keys: &str, shown: &str) {
        self.child.0.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
        self.until(shown);
    }
}

const TAB: &str = "\t";
/// Control-U: the line is empty again.
const EMPTY: &str = "\x15";

#[test]
fn redis_cli_without_arguments_connects_prints_replies_completes_and_hints() {
    let has = |tool| Command::new(tool).arg("--version").output().is_ok();
    if !has("redis-cli") || !has("script") {
        println!("skipped: there is no redis-cli, or no script to give it a terminal");
        return;
    }
    let test = "redis_cli_without_arguments_connects_prints_replies_completes_and_hints";
    if !has_own_network(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Command::new(env!("CARGO_BIN_EXE_larder-server"))
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .spawn();
    let mut server = Ends(server.unwrap());
    while Client::try_connect(6379).and_then(|mut client| client.try_call(&["PING"])).is_err() {
        assert_eq!(server.0.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut terminal = Terminal::open(dir.path());
    terminal.until("127.0.0.1:6379> ");
    for (line, shown) in [
        ("set key value", "\nOK\r\n"),
        ("get key", "\n\"value\"\r\n"),
        ("get none", "\n(nil)\r\n"),
        ("rpush list a b", "\n(integer) 2\r\n"),
        ("lrange list 0 -1", "\n1) \"a\"\r\n2) \"b\"\r\n"),
        ("hgetall none", "\n(empty array)\r\n"),
        ("incr key", "\n(error) ERR value is not an integer or out of range\r\n"),
    ] {
        terminal.types(&format!("{line}\r"), shown);
        terminal.until("127.0.0.1:6379> ");
    }
    // What it knows of commands that are younger than itself, and of ours, it has from COMMAND DOCS.
    for (begun, whole, hint) in [
        (
            "zrang",
            "ZRANGE",
            "key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]",
        ),
        ("hgete", "HGETEX", "key [EX seconds|PX milliseconds|"),
        ("config g", "CONFIG GET", "parameter [parameter ...]"),
        ("inf", "INFO", "[section [section ...]]"),
        ("reado", "READONLY", "[MAXSTALE milliseconds]"),
    ] {
        // Grey, behind what was typed.
        terminal.types(&format!("{begun}{TAB}"), &format!("{whole}\x1b[0;90;49m {hint}"));
        terminal.types(EMPTY, "\x1b[0K127.0.0.1:6379> \r");
    }
    terminal
        .types("help increx\r", "Adds to a number within bounds and sets when its key expires.");
    terminal.until("127.0.0.1:6379> ");
    terminal.types("quit\r", "quit");
    assert!(terminal.child.0.wait().unwrap().success());
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
