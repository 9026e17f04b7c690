//! `larder-server memcached` with memcached's own flags.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{connect, free_port, read_to, text};

/// The program as memcached.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(flags: &[&str], is_up: impl Fn() -> bool) -> Started {
    let child = Command::new(env!("CARGO_BIN_EXE_larder-server"))
        .arg("memcached")
        .args(flags)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut started = Started(child);
    for _ in 0..1000 {
        if is_up() {
            return started;
        }
        if let Some(status) = started.0.try_wait().unwrap() {
            panic!("{flags:?}: ended: {status}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{flags:?}: does not serve");
}

fn answers(addr: SocketAddr) -> bool {
    std::net::TcpStream::connect(addr).is_ok() && text(addr, b"get a\r\n") == b"END\r\n"
}

/// Effective user of a process, and whose this one is.
fn user_of(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().to_string()
}

#[test]
fn memcached_flags_mean_here_what_they_mean_there() {
    let port = free_port().to_string();
    let addr = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let flags = [
        "-m",
        "64",
        "-p",
        &port,
        "-u",
        "nobody",
        "-l",
        "127.0.0.1",
        "-c",
        "100",
        "-t",
        "2",
        "-I2m",
        "-U",
        "0",
        "-v",
        "-A",
    ];
    let mut server = start(&flags, || answers(addr));
    let stats = String::from_utf8(text(addr, b"stats settings\r\nstats\r\n")).unwrap();
    for line in [
        "STAT maxbytes 67108864",
        &format!("STAT tcpport {port}"),
        "STAT inter 127.0.0.1",
        "STAT maxconns 100",
        "STAT num_threads 2",
        "STAT item_size_max 2097152",
        "STAT evictions on",
        "STAT shutdown_command yes",
        "STAT limit_maxbytes 67108864",
        "STAT threads 2",
    ] {
        assert!(stats.lines().any(|l| l == line), "{line} in {stats}");
    }
    if user_of("self") == "0" {
        let pid = server.0.id().to_string();
        assert_ne!(user_of(&pid), "0", "root's rights are dropped");
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert_eq!(name.trim_end(), "larder-server");
    }
    let mut stream = connect(addr);
    stream.write_all(b"shutdown\r\n").unwrap();
    assert_eq!(read_to(&mut stream, b"never"), b"<closed>");
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn a_socket_in_the_file_system_has_its_mode_and_its_name_in_stats() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let shown = path.to_str().unwrap();
    let is_up = || UnixStream::connect(&path).is_ok();
    let _server = start(&["-s", shown, "-a", "0760", "-p", "1"], is_up);
    let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o760);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"stats conns\r\nmn\r\n").unwrap();
    let stats = String::from_utf8(read_to(&mut stream, b"MN\r\n")).unwrap();
    assert!(stats.contains(&format!(":addr unix:{shown}\r\n")), "{stats}");
}

#[test]
fn flags_that_cannot_be_kept_to_end_the_start_with_a_reason() {
    for (flags, reason) in [
        (&["-d"][..], "-d is not supported"),
        (&["-U", "11211"], "only -U 0"),
        (&["-Q"], "unknown flag -Q"),
        (&["-m", "many"], "not a number"),
        (&["-Y", "/nowhere"], "No such file"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_larder-server"))
            .args([&["memcached", "-p", "0"], flags].concat())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(reason), "{flags:?}: {errors}");
    }
    assert!(!Path::new("memcached.rdb").exists());
}

#[test]
fn client_list_tells_who_speaks_memcached() {
    let (server, addr) = crate::larder(&[]);
    let mut stream = connect(addr);
    stream.write_all(b"set a 0 0 1\r\nx\r\nmn\r\n").unwrap();
    read_to(&mut stream, b"MN\r\n");
    let mut client = server.connect();
    let list = match client.words("CLIENT LIST") {
        crate::support::Value::Bulk(text) | crate::support::Value::Verbatim(text) => {
            String::from_utf8(text).unwrap()
        }
        other => panic!("{other}"),
    };
    let lines: Vec<&str> = list.lines().collect();
    let theirs: Vec<&&str> = lines.iter().filter(|l| l.ends_with(" proto=memcached")).collect();
    assert!(lines.len() == 2 && theirs.len() == 1, "{list}");
    assert!(theirs[0].contains(" resp=0 ") && theirs[0].contains(" cmd=set "), "{list}");
    let id = theirs[0].strip_prefix("id=").unwrap().split(' ').next().unwrap();
    assert_eq!(client.words(&format!("CLIENT KILL ID {id}")), crate::support::Value::Int(1));
    assert_eq!(read_to(&mut stream, b"never"), b"<closed>");
}
