//! Clients beside each other: paused, killed, watching, and one that meets a fault.

use crate::figure;
use crate::support::{Client, Server, Value, value::text};

#[test]
fn paused_writers_go_on_when_they_may() {
    let server = Server::larder(&[]);
    let (mut client, mut writer) = (server.connect(), server.connect());
    assert_eq!(text(&client.words("CLIENT PAUSE 60000 WRITE")), "OK");
    writer.send(&["SET", "k", "v"]);
    assert_eq!(text(&client.words("GET k")), "NilBulk");
    assert_eq!(text(&client.words("CLIENT UNPAUSE")), "OK");
    assert_eq!(text(&writer.reply().unwrap()), "OK");
    assert_eq!(text(&client.words("GET k")), "v");
}

#[test]
fn killed_clients_are_closed_and_the_killer_gets_its_reply() {
    let server = Server::larder(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    other.words("PING");
    assert_eq!(text(&client.words("CLIENT KILL TYPE normal")), "1");
    assert!(other.reply().is_err());
    assert_eq!(text(&client.words("CLIENT KILL TYPE normal SKIPME no")), "1");
    assert!(client.reply().is_err());
}

#[test]
fn a_watched_key_cannot_change_unseen() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 400;
    let server = Server::larder(&["--io-threads", "4"]);
    server.connect().words("SET n 0");
    let done: usize = std::thread::scope(|scope| {
        let run = || {
            let mut client = server.connect();
            let mut done = 0;
            for _ in 0..ROUNDS {
                client.words("WATCH n");
                let n: u64 = text(&client.words("GET n")).parse().unwrap();
                client.words("MULTI");
                client.words(&format!("SET n {}", n + 1));
                done += usize::from(matches!(client.words("EXEC"), Value::Array(_)));
            }
            done
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(run)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    // Each EXEC that ran counted one up from what its client had read: none overwrote another.
    assert_eq!(text(&server.connect().words("GET n")), done.to_string());
    assert!(done >= ROUNDS, "{done}");
}

#[test]
fn a_fault_costs_only_the_connection_that_met_it() {
    let mut server = Server::larder(&["--enable-debug-command", "yes", "--io-threads", "2"]);
    let mut others: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    others[0].words("SET k v");
    for _ in 0..4 {
        let mut client = server.connect();
        client.send(&["DEBUG", "FAULT"]);
        assert!(client.reply().is_err());
    }
    assert!(server.is_alive());
    for other in &mut others {
        assert_eq!(text(&other.words("GET k")), "v");
    }
    let mut last = server.connect();
    assert_eq!(text(&last.words("SET k w")), "OK");
    assert_eq!(figure(&mut last, "connected_clients"), 5);
}
