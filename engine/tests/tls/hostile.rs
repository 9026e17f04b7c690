//! Who means no handshake, or means harm by it: its connection goes, and nobody else notices.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::{TlsClient, config, text};
use crate::{Served, eventually, run};

fn raw(served: &Served) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", served.port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Whatever comes until the other side closes.
fn until_closed(mut socket: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(e) => panic!("it is not closed: {e}"),
        }
    }
}

#[test]
fn garbage_is_answered_with_an_alert_and_closes_its_own_connection_only() {
    let served = Served::new(&["--tls-auth-clients", "no"]);
    let mut other = served.connect();
    let long = vec![0x16, 0x03, 0x01, 0xff, 0xff];
    let of_1_2_gb =
        [&[0x16, 0x03, 0x01, 0x3f, 0xff, 0x01, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat();
    for garbage in [
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 5],
        vec![0xff; 70_000],
        long,
        of_1_2_gb,
        // A record that is encrypted before anything was agreed on; an alert; one of SSL 2.
        vec![0x17, 0x03, 0x03, 0x00, 0x02, 0x41, 0x41],
        vec![0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28],
        vec![0x80, 0x2e, 0x01, 0x00, 0x02],
    ] {
        let mut socket = raw(&served);
        // It may be closed before all of it is written.
        let _ = socket.write_all(&garbage);
        let said = until_closed(&socket);
        assert!(said.is_empty() || said[0] == 0x15, "{garbage:?} was answered {said:?}");
        assert_eq!(other.words("PING"), "PONG");
    }
    // One that may be the half of something is waited for until its time is over.
    let of = |field: &str| served.info(field).parse::<u64>().unwrap();
    let ended = || of("larder_tls_handshakes_failed") + of("larder_tls_handshakes_timed_out");
    eventually("all are counted", || ended() == 9);
    assert_eq!(served.info("larder_tls_handshakes_in_progress"), "0");
}

#[test]
fn those_who_begin_a_handshake_and_do_not_go_on_keep_nobody_out() {
    let served = Served::new(&["--tls-auth-clients", "no"]);
    let mut other = served.connect();
    // More than are half-open at a time; each has sent the half of a first message.
    let mut halves = Vec::new();
    for n in 0..1100 {
        let mut socket = raw(&served);
        socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00][..1 + n % 7]).unwrap();
        halves.push(socket);
        if n % 100 == 0 {
            assert_eq!(other.words("PING"), "PONG");
            served.connect();
        }
    }
    eventually("the oldest have made room", || {
        served.info("larder_tls_handshakes_timed_out").parse::<u64>().unwrap() >= 76
    });
    assert!(served.info("larder_tls_handshakes_in_progress").parse::<u64>().unwrap() <= 1024);
    served.connect();
    assert_eq!(other.words("PING"), "PONG");
    until_closed(&halves[0]);
    // Those that are left go when their time is over.
    until_closed(halves.last().unwrap());
    eventually("all are gone", || served.info("larder_tls_handshakes_in_progress") == "0");
}

#[test]
fn a_connection_that_is_cut_at_any_byte_of_its_handshake_leaves_nothing_behind() {
    let served = Served::new(&["--tls-auth-clients", "no"]);
    let ca = std::fs::read(served.authority.path("ca.crt")).unwrap();
    let config = config(&ca, None);
    let mut cut = 0;
    loop {
        let mut client = TlsClient::open(served.port, config.clone()).unwrap();
        let mut left = cut;
        // Byte by byte, until there are no more to be sent or the cut is reached.
        let is_whole = loop {
            let mut out = Vec::new();
            while client.tls.wants_write() {
                client.tls.write_tls(&mut out).unwrap();
            }
            let n = out.len().min(left);
            client.socket.write_all(&out[..n]).unwrap();
            left -= n;
            if n < out.len() {
                break false;
            }
            if !client.tls.is_handshaking() {
                break true;
            }
            client.tls.read_tls(&mut client.socket).unwrap();
            client.tls.process_new_packets().unwrap();
        };
        if is_whole {
            break;
        }
        drop(client);
        cut += 7;
    }
    assert!(cut > 200, "{cut}");
    eventually("all are gone", || served.info("larder_tls_handshakes_in_progress") == "0");
    eventually("nobody is left", || served.info("connected_clients") == "1");
    assert_eq!(served.connect().words("PING"), "PONG");
}

#[test]
fn a_mangled_record_ends_its_connection_only_and_so_does_a_close_at_any_time() {
    let served = Served::new(&["--tls-auth-clients", "no", "--io-threads", "2"]);
    let mut other = served.connect();
    for n in 0..40 {
        let mut client = served.connect();
        client.send(&["SET", "k", &"v".repeat(50_000)]).unwrap();
        for _ in 0..n {
            client.send(&["GET", "k"]).unwrap();
        }
        if n % 2 == 0 {
            let record =
                [0x17, 0x03, 0x03, 0x00, 0x20].into_iter().chain([n; 32]).collect::<Vec<_>>();
            client.socket.write_all(&record).unwrap();
            let mut buffer = vec![0; 65_536];
            while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
        }
        drop(client);
        assert_eq!(other.words("PING"), "PONG");
    }
    eventually("all are gone", || served.info("connected_clients") == "2");
}

#[test]
fn a_client_that_does_not_read_is_held_up_and_cut_off_as_on_any_socket() {
    let served = Served::new(&["--tls-auth-clients", "no"]);
    let mut control = served.plain();
    let set = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1048576 0 0"];
    assert_eq!(text(&control.command(&set)), "OK");
    let mut listener = served.connect();
    assert_eq!(listener.words("SUBSCRIBE c"), "subscribe c 1");
    let message = "m".repeat(100_000);
    let mut heard = 1;
    while heard > 0 {
        let value = control.command(&["PUBLISH", "c", &message]);
        heard = text(&value).parse::<i64>().unwrap();
    }
    // A reader that asks for much and reads nothing has the server wait, not fill its memory.
    let mut lazy = served.connect();
    control.command(&["SET", "big", &"v".repeat(1_000_000)]);
    for _ in 0..300 {
        lazy.send(&["GET", "big"]).unwrap();
    }
    let buffers = || served.info("mem_clients_normal").parse::<u64>().unwrap();
    assert!(buffers() < 64 << 20, "{}", buffers());
    assert_eq!(served.connect().words("PING"), "PONG");
    for _ in 0..300 {
        assert_eq!(text(&lazy.reply().unwrap()).len(), 1_000_000);
    }
}

#[test]
fn renegotiation_is_refused() {
    let served = Served::new(&["--tls-auth-clients", "no"]);
    let (to, ca) = (format!("127.0.0.1:{}", served.port), served.authority.path("ca.crt"));
    let args = ["s_client", "-connect", &to, "-CAfile", &ca, "-tls1_2", "-crlf"];
    let Some(said) = run("openssl", &args, b"R\nR\nR\n") else { return };
    assert!(said.contains("no renegotiation") || said.contains("RENEGOTIATING"), "{said}");
    assert!(!said.contains("+PONG"), "{said}");
    let mut other = served.connect();
    assert_eq!(other.words("PING"), "PONG");
    eventually("it is gone", || served.info("connected_clients") == "2");
}

#[test]
fn too_many_clients_are_turned_away_before_their_handshake() {
    let served = Served::new(&["--tls-auth-clients", "no", "--maxclients", "3"]);
    let clients: Vec<_> = (0..3).map(|_| served.connect()).collect();
    assert!(served.try_connect(None).is_err());
    drop(clients);
    eventually("there is room again", || served.try_connect(None).is_ok());
}

#[test]
fn half_open_connections_give_way_where_few_clients_are_allowed() {
    let served = Served::new(&["--tls-auth-clients", "no", "--maxclients", "20"]);
    let mut other = served.connect();
    let halves: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut socket = raw(&served);
            socket.write_all(&[0x16, 0x03, 0x01]).unwrap();
            socket
        })
        .collect();
    served.connect();
    assert_eq!(other.words("PING"), "PONG");
    until_closed(&halves[0]);
    assert!(served.info("larder_tls_handshakes_in_progress").parse::<u64>().unwrap() < 20);
}

#[test]
fn what_tls_takes_counts_as_memory_of_clients() {
    let served = Served::new(&["--tls-auth-clients", "no"]);
    let bytes = || served.info("mem_clients_normal").parse::<u64>().unwrap();
    let before = bytes();
    let clients: Vec<TlsClient> = (0..50).map(|_| served.connect()).collect();
    eventually("fifty states of TLS are counted", || bytes() >= before + 50 * 6 * 1024);
    drop(clients);
    eventually("and no more when they are gone", || bytes() < before + 10 * 6 * 1024);
}
