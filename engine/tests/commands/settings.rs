//! Command line, configuration file and CONFIG.

use std::process::Command;

use crate::support::{Server, Value, value::text};

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_larder-server"))
}

#[test]
fn version_is_printed_as_launchers_look_for_it() {
    let out = binary().arg("-v").output().unwrap();
    let line = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && line.contains("v="), "{line}");
}

#[test]
fn bad_configuration_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.conf");
    std::fs::write(&path, "port 0\nappendfsync everysec # slow\n").unwrap();
    let out = binary().arg(&path).output().unwrap();
    let error = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success());
    for part in ["FATAL CONFIG FILE ERROR", "at line 2", ">>> 'appendfsync everysec # slow'"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn renamed_commands_are_gone_under_their_old_names() {
    let server = Server::larder(&[
        "--rename-command",
        "FLUSHALL",
        "",
        "--rename-command",
        "FLUSHDB",
        "wipe",
    ]);
    let mut client = server.connect();
    client.words("SET k v");
    for name in ["FLUSHALL", "flushall", "FLUSHDB"] {
        assert!(text(&client.words(name)).starts_with("ERR unknown command"), "{name}");
    }
    assert_eq!(text(&client.words("DBSIZE")), "1");
    assert_eq!(text(&client.words("WIPE")), "OK");
    assert_eq!(text(&client.words("DBSIZE")), "0");
}

#[test]
fn debug_is_closed_unless_it_was_opened() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    assert!(text(&client.words("DEBUG SLEEP 0")).starts_with("ERR DEBUG command not allowed"));
    assert!(text(&client.words("CONFIG SET dir /tmp")).contains("protected"));
}

#[test]
fn settings_changed_live_are_in_the_rewritten_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("larder.conf");
    let text_before = "# kept\nmaxmemory 100mb\nsave 900 1\nsave 300 10\ntimeout 7\n\
                       client-output-buffer-limit pubsub 32mb 8mb 60\n";
    std::fs::write(&path, text_before).unwrap();
    let settings: &[(&str, &str)] = &[
        ("maxmemory", "209715200"),
        ("maxmemory-policy", "volatile-ttl"),
        ("requirepass", "a \"b\" c'd"),
        ("client-output-buffer-limit", "normal 1 2 3 slave 4 5 6 pubsub 7 8 9"),
        ("hash-max-listpack-entries", "77"),
        ("slowlog-log-slower-than", "-1"),
        ("latency-tracking", "yes"),
    ];
    let server = Server::larder_from(&path);
    let mut client = server.connect();
    for (name, value) in settings {
        assert_eq!(text(&client.command(&["CONFIG", "SET", name, value])), "OK", "{name}");
    }
    assert_eq!(text(&client.words("CONFIG REWRITE")), "OK");
    drop(server);
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.starts_with("# kept\n"), "{written}");
    let server = Server::larder_from(&path);
    let mut client = server.connect();
    assert!(text(&client.words("GET a")).starts_with("NOAUTH"), "{written}");
    assert_eq!(text(&client.command(&["AUTH", "a \"b\" c'd"])), "OK", "{written}");
    for (name, value) in settings.iter().chain(&[("timeout", "7")]) {
        let got = client.command(&["CONFIG", "GET", name]);
        let Value::Array(pair) = &got else { panic!("{got}") };
        assert_eq!(text(&pair[1]), *value, "{name} in {written}");
    }
}

#[test]
fn a_password_set_live_holds_for_new_connections() {
    let server = Server::larder(&[]);
    let mut old = server.connect();
    assert_eq!(text(&old.words("CONFIG SET requirepass secret")), "OK");
    assert_eq!(text(&old.words("SET a 1")), "OK", "who is in stays in");
    let mut new = server.connect();
    assert!(text(&new.words("GET a")).starts_with("NOAUTH"));
    assert_eq!(text(&new.words("AUTH secret")), "OK");
    assert_eq!(text(&new.words("GET a")), "1");
    assert_eq!(text(&new.words("RESET")), "RESET");
    assert!(text(&new.words("GET a")).starts_with("NOAUTH"), "RESET forgets who it was");
    assert_eq!(text(&old.command(&["CONFIG", "SET", "requirepass", ""])), "OK");
    assert_eq!(text(&server.connect().words("GET a")), "1");
}
