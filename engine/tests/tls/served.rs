//! What is served by TLS: requests of any size, with and without certificates, and other servers.

use std::io::Read as _;

use crate::client::text;
use crate::support::{Client, Server};
use crate::{Authority, Served, eventually, free_port, info_of, run, tls_args};

#[test]
fn redis_cli_is_served_where_there_is_no_plain_port() {
    let authority = Authority::new();
    authority.issue("server", "server");
    authority.issue("client", "client");
    let port = free_port();
    let args = tls_args(&authority, port);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--port", "0"]).collect();
    let server = Server::larder(&args);
    let (port, ca) = (port.to_string(), authority.path("ca.crt"));
    let (cert, key) = (authority.path("client.crt"), authority.path("client.key"));
    let base = ["-p", &port, "--tls", "--cacert", &ca];
    let known = ["--cert", cert.as_str(), "--key", key.as_str()];
    let cli = |base: &[&str], more: &[&str], input: &[u8]| {
        run("redis-cli", &[base, more].concat(), input)
    };
    let with_cert = [base.as_slice(), &known].concat();
    let Some(pong) = cli(&with_cert, &["PING"], b"") else { return };
    assert_eq!(pong.trim(), "PONG", "{}", server.log());
    let big = vec![b'x'; 3_000_000];
    assert_eq!(cli(&with_cert, &["-x", "SET", "big"], &big).unwrap().trim(), "OK");
    assert_eq!(cli(&with_cert, &["GET", "big"], b"").unwrap().trim().len(), big.len());
    let ports = cli(&with_cert, &["INFO", "server"], b"").unwrap();
    assert!(ports.contains(&format!("tcp_port:{port}")), "{ports}");
    assert!(ports.contains(&format!("listener0:name=tls,bind=127.0.0.1,port={port}")), "{ports}");
    // Without a certificate, and without TLS, nobody comes in.
    let refused = cli(&base, &["PING"], b"").unwrap();
    assert!(!refused.contains("PONG") && refused.contains("closed"), "{refused}");
    assert!(!cli(&["-p", &port], &["PING"], b"").unwrap().contains("PONG"));
}

#[test]
fn clients_show_certificates_as_the_settings_ask_for_them() {
    let served = Served::new(&[]);
    let ours = served.authority.issue("client", "client");
    let theirs = Authority::new().issue("client", "client");
    let mut control = served.plain();
    for (setting, without, with, with_others) in
        [("yes", false, true, false), ("optional", true, true, false), ("no", true, true, true)]
    {
        assert_eq!(text(&control.words(&format!("CONFIG SET tls-auth-clients {setting}"))), "OK");
        let comes_in = |who| served.try_connect(who).is_ok();
        assert_eq!(comes_in(None), without, "{setting}");
        assert_eq!(comes_in(Some(&ours)), with, "{setting}");
        assert_eq!(comes_in(Some(&theirs)), with_others, "{setting}");
    }
}

#[test]
fn a_certificate_logs_in_the_user_that_it_names_and_nobody_else() {
    let served = Served::new(&["--tls-auth-clients-user", "cn", "--requirepass", "secret"]);
    let mut control = served.plain();
    for words in
        ["AUTH secret", "ACL SETUSER alice on >pw ~a:* +@all", "ACL SETUSER carol off >pw ~* +@all"]
    {
        assert_eq!(text(&control.words(words)), "OK");
    }
    let issue = |name: &str| served.authority.issue("client", name);
    // The PING of `try_connect` may be refused: it is answered all the same.
    let mut client = served.try_connect(Some(&issue("alice"))).unwrap();
    assert_eq!(client.words("ACL WHOAMI"), "alice");
    assert_eq!(client.words("SET a:1 x"), "OK");
    assert!(client.words("SET b x").starts_with("-NOPERM"));
    for name in ["carol", "nobody", "alice\0.example", "alice\0"] {
        let mut client = served.try_connect(Some(&issue(name))).unwrap();
        assert!(client.words("ACL WHOAMI").starts_with("-NOAUTH"), "{name:?}");
        assert_eq!(client.words("AUTH alice pw"), "OK", "{name:?}");
    }
    assert_eq!(info_of(&mut control, "acl_access_denied_tls_cert"), "4");
    let log = text(&control.words("ACL LOG"));
    assert!(log.contains("reason tls-cert") && log.contains("username carol"), "{log}");
    assert!(text(&control.words("CONFIG GET tls-auth-clients-user")).ends_with(" CN"));
}

#[test]
fn many_requests_at_once_are_answered_in_order_whatever_the_size_of_the_pieces() {
    let served = Served::new(&["--tls-auth-clients", "no", "--io-threads", "2"]);
    let mut client = served.connect();
    let value = |n: usize| "v".repeat(n * 37 % 70_000);
    let mut requests = Vec::new();
    for n in 0..200 {
        let (key, value) = (format!("k{n}"), value(n));
        requests.extend(crate::support::encode(&["SET", &key, &value]));
        requests.extend(crate::support::encode(&["GET", &key]));
    }
    let writer = std::thread::spawn(move || {
        for piece in [1, 2, 3, 16_384, 5, 70_000, 11].iter().cycle() {
            let piece = requests.drain(..requests.len().min(*piece)).collect::<Vec<_>>();
            if piece.is_empty() {
                return client;
            }
            client.send_raw(&piece).unwrap();
        }
        client
    });
    let mut client = writer.join().unwrap();
    for n in 0..200 {
        assert_eq!(text(&client.reply().unwrap()), "OK");
        assert_eq!(text(&client.reply().unwrap()), value(n));
    }
}

#[test]
fn a_client_that_says_goodbye_still_gets_the_replies_to_what_it_asked() {
    let served = Served::new(&["--tls-auth-clients", "no"]);
    let mut client = served.connect();
    let value = "v".repeat(1_000_000);
    client.command(&["SET", "k", &value]);
    for _ in 0..8 {
        client.send(&["GET", "k"]).unwrap();
    }
    client.tls.send_close_notify();
    while client.tls.wants_write() {
        client.tls.write_tls(&mut client.socket).unwrap();
    }
    for _ in 0..8 {
        assert_eq!(text(&client.reply().unwrap()).len(), value.len());
    }
    // The server says goodbye, too: nothing was cut off.
    let mut buffer = [0; 16];
    assert_eq!(client.read(&mut buffer), Ok(0));
}

#[test]
fn a_replica_follows_by_tls() {
    let served = Served::new(&["--requirepass", "secret"]);
    let mut primary = served.plain();
    primary.words("AUTH secret");
    let value = "v".repeat(10_000);
    for n in 0..500 {
        primary.command(&["SET", &format!("k{n}"), &value]);
    }
    let own_port = free_port();
    let args = tls_args(&served.authority, own_port);
    let args = args.iter().map(String::as_str).chain(["--tls-replication", "yes"]);
    let args: Vec<&str> = args.chain(["--masterauth", "secret"]).collect();
    let replica = Server::larder(&args);
    let mut follower = replica.connect();
    follower.words(&format!("REPLICAOF 127.0.0.1 {}", served.port));
    eventually("the first sync", || info_of(&mut follower, "master_link_status") == "up");
    assert_eq!(text(&follower.words("DBSIZE")), "500");
    // The primary counts it as online from its first acknowledgement on.
    let online = format!("port={own_port},state=online");
    eventually("it is online", || info_of(&mut primary, "slave0").contains(&online));
    for n in 0..500 {
        primary.command(&["APPEND", &format!("k{n}"), "more"]);
    }
    assert_eq!(text(&primary.words("WAIT 1 20000")), "1");
    assert_eq!(text(&follower.words("STRLEN k499")), "10004");
    // A link that broke goes on where it was.
    primary.words("CLIENT KILL TYPE replica");
    primary.words("SET again 1");
    eventually("the link is up again", || text(&follower.words("GET again")) == "1");
    assert_eq!(info_of(&mut primary, "sync_partial_ok"), "1");
    assert_eq!(info_of(&mut primary, "sync_full"), "1");
    // A replica without a certificate, and one that speaks no TLS, do not come in.
    follower.words("CONFIG SET tls-replication no");
    primary.words("CLIENT KILL TYPE replica");
    primary.words("SET unseen 1");
    eventually("it is turned away", || info_of(&mut follower, "master_link_status") == "down");
    assert_eq!(text(&follower.words("GET unseen")), "(nil)");
}

#[test]
fn keys_are_migrated_by_tls_where_the_cluster_speaks_it() {
    let served = Served::new(&[]);
    let port = free_port();
    let args = tls_args(&served.authority, port);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--tls-cluster", "yes"]).collect();
    let source = Server::larder(&args);
    let mut client = source.connect();
    client.words("SET k v");
    let to = served.port;
    assert_eq!(text(&client.words(&format!("MIGRATE 127.0.0.1 {to} k 0 5000"))), "OK");
    assert_eq!(text(&served.plain().words("GET k")), "v");
    let plain = served.server.addr.port();
    client.words("SET k v");
    let refused = text(&client.words(&format!("MIGRATE 127.0.0.1 {plain} k 0 5000")));
    assert!(refused.starts_with("-IOERR"), "{refused}");
}

#[test]
fn what_does_not_fit_together_ends_the_start_with_a_word() {
    let authority = Authority::new();
    authority.issue("server", "server");
    authority.issue("other", "other");
    let path = |name: &str| authority.path(name);
    let (cert, key, ca) = (path("server.crt"), path("server.key"), path("ca.crt"));
    let other = path("other.key");
    let base = ["--port", "0", "--tls-port", "1", "--save", ""];
    for (args, why) in [
        (vec![], "No tls-cert-file configured!"),
        (vec!["--tls-cert-file", &cert], "No tls-key-file configured!"),
        (
            vec!["--tls-cert-file", &cert, "--tls-key-file", &key],
            "Either tls-ca-cert-file or tls-ca-cert-dir must be specified",
        ),
        (
            vec!["--tls-cert-file", &cert, "--tls-key-file", &other, "--tls-ca-cert-file", &ca],
            "server.crt",
        ),
        (vec!["--tls-key-file-pass", "x"], "not supported"),
        (
            vec![
                "--tls-cert-file",
                &cert,
                "--tls-key-file",
                &key,
                "--tls-ca-cert-file",
                &ca,
                "--tls-protocols",
                "TLSv1.1",
            ],
            "TLSv1.1 is not supported",
        ),
    ] {
        let args: Vec<&str> = base.iter().copied().chain(args).collect();
        let said = run(env!("CARGO_BIN_EXE_larder-server"), &args, b"").unwrap();
        assert!(said.contains(why), "{args:?}: {said}");
    }
}

#[test]
fn memcached_clients_are_served_by_tls() {
    let authority = Authority::new();
    authority.issue("server", "server");
    let port = free_port();
    let path = |name: &str| authority.path(name);
    let files = format!("ssl_chain_cert={},ssl_key={}", path("server.crt"), path("server.key"));
    let port_text = port.to_string();
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_larder-server"))
        .args(["memcached", "-Z", "-o", &files, "-p", &port_text, "-l", "127.0.0.1"])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let config = crate::client::config(&std::fs::read(path("ca.crt")).unwrap(), None);
    let mut client = None;
    eventually("it serves", || {
        client = crate::TlsClient::open(port, config.clone()).ok();
        client.as_mut().is_some_and(|client| client.send_raw(b"version\r\n").is_ok())
    });
    let mut client = client.unwrap();
    let mut line = |bytes: &[u8]| {
        client.send_raw(bytes).unwrap();
        let mut buffer = [0; 256];
        let n = client.read(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    assert!(line(b"").starts_with("VERSION"));
    assert_eq!(line(b"set k 0 0 1\r\nv\r\n"), "STORED\r\n");
    assert_eq!(line(b"get k\r\n"), "VALUE k 0 1\r\nv\r\nEND\r\n");
    assert_eq!(line(b"refresh_certs\r\n"), "OK\r\n");
    let mut plain = Client::new(([127, 0, 0, 1], port).into());
    plain.send_raw(b"version\r\n");
    let mut said = Vec::new();
    let _ = plain.stream.read_to_end(&mut said);
    assert!(!said.starts_with(b"VERSION"));
    child.kill().unwrap();
    child.wait().unwrap();
}
