//! Certificates change while clients are served.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::text;
use crate::{Served, eventually};

/// The certificate that a new client is shown.
fn shown(served: &Served) -> Vec<u8> {
    let client = served.connect();
    client.tls.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn files_that_change_are_read_anew_and_the_bad_are_not_taken() {
    let served = Served::new(&["--tls-auth-clients", "no", "--tls-auto-reload-interval", "1"]);
    let first = shown(&served);
    let mut old = served.connect();
    let second = served.authority.issue("server", "server");
    eventually("the new certificate is shown", || shown(&served) == second.cert.to_vec());
    assert_ne!(first, second.cert.to_vec());
    assert_eq!(old.words("PING"), "PONG");
    // A certificate that does not belong to the key, or is none: what was there before goes on.
    for text in [std::fs::read(served.authority.path("ca.crt")).unwrap(), b"nonsense".to_vec()] {
        let failures = served.info("larder_tls_reloads_failed");
        std::fs::write(served.authority.path("server.crt"), text).unwrap();
        eventually("it is tried", || served.info("larder_tls_reloads_failed") != failures);
        assert_eq!(shown(&served), second.cert.to_vec());
    }
    assert!(served.server.log().contains("TLS goes on with what it had"));
    let third = served.authority.issue("server", "server");
    eventually("a good one is taken again", || shown(&served) == third.cert.to_vec());
    assert_eq!(old.words("PING"), "PONG");
}

#[test]
fn a_hangup_signal_has_files_read_anew() {
    let served = Served::new(&["--tls-auth-clients", "no", "--tls-auto-reload-interval", "0"]);
    let second = served.authority.issue("server", "server");
    assert_ne!(shown(&served), second.cert.to_vec());
    let pid = served.server.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    eventually("the new certificate is shown", || shown(&served) == second.cert.to_vec());
}

#[test]
fn settings_change_all_or_none_while_clients_come_and_go() {
    let served = Served::new(&["--tls-auth-clients", "no", "--tls-auto-reload-interval", "0"]);
    let mut control = served.plain();
    let stop = AtomicBool::new(false);
    let (mut old, path) = (served.connect(), |name: &str| served.authority.path(name));
    std::thread::scope(|scope| {
        let comers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut came = 0;
                    while !stop.load(Ordering::Relaxed) || came < 3 {
                        let mut client = served.connect();
                        assert!(client.words("INCR n").parse::<u64>().is_ok());
                        came += 1;
                    }
                })
            })
            .collect();
        for n in 0..10 {
            let name = format!("next{n}");
            let next = served.authority.issue(&name, "server");
            let (cert, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
            // One of the two alone does not fit.
            let alone = text(&control.command(&["CONFIG", "SET", "tls-cert-file", &cert]));
            assert!(alone.contains("Unable to update TLS configuration"), "{alone}");
            let both = ["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key];
            assert_eq!(text(&control.command(&both)), "OK");
            assert_eq!(shown(&served), next.cert.to_vec());
            assert_eq!(old.words("PING"), "PONG");
        }
        stop.store(true, Ordering::Relaxed);
        comers.into_iter().for_each(|c| c.join().unwrap());
    });
    for (name, value) in [
        ("tls-protocols", "SSLv3"),
        ("tls-ciphersuites", "TLS_NULL"),
        ("tls-ca-cert-file", "/nonexistent"),
        ("tls-key-file", "/nonexistent"),
        ("tls-ca-cert-dir", "/nonexistent"),
    ] {
        let before = text(&control.words(&format!("CONFIG GET {name}")));
        let refused = text(&control.command(&["CONFIG", "SET", name, value]));
        assert!(refused.contains(name) && refused.starts_with("-ERR"), "{refused}");
        assert_eq!(text(&control.words(&format!("CONFIG GET {name}"))), before);
    }
    let one = ["CONFIG", "SET", "tls-protocols", "TLSv1.2", "tls-ciphers", "DEFAULT"];
    assert_eq!(text(&control.command(&one)), "OK");
    let client = served.connect();
    assert_eq!(client.tls.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
}
