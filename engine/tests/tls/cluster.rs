//! A cluster that speaks TLS everywhere: to its clients, among its members and on its bus.

use crate::client::{Certified, TlsClient, config};
use crate::support::Server;
use crate::{Authority, eventually, free_port, run, tls_args};

struct Node {
    port: u16,
    _server: Server,
}

fn nodes(authority: &Authority, count: usize, plain: bool) -> Vec<Node> {
    (0..count)
        .map(|_| {
            // The bus is 10,000 above.
            let port = std::iter::repeat_with(free_port).find(|port| *port < 55_000).unwrap();
            let mut args = tls_args(authority, port);
            let more = "--cluster-enabled yes --tls-cluster yes --tls-replication yes";
            args.extend(more.split(' ').map(String::from));
            if !plain {
                args.extend(["--port".to_string(), "0".to_string()]);
            }
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Node { port, _server: Server::larder(&args) }
        })
        .collect()
}

fn connect(authority: &Authority, port: u16, who: &Certified) -> TlsClient {
    let ca = std::fs::read(authority.path("ca.crt")).unwrap();
    let mut client = TlsClient::open(port, config(&ca, Some(who))).unwrap();
    assert_eq!(client.words("PING"), "PONG");
    client
}

#[test]
fn a_cluster_without_a_plain_port_forms_serves_moves_slots_and_fails_over() {
    let authority = Authority::new();
    let who = authority.issue("server", "server");
    let mut nodes = nodes(&authority, 6, false);
    let places: Vec<String> = nodes.iter().map(|n| format!("127.0.0.1:{}", n.port)).collect();
    let (ca, cert, key) =
        (authority.path("ca.crt"), authority.path("server.crt"), authority.path("server.key"));
    let tls = ["--tls", "--cacert", &ca, "--cert", &cert, "--key", &key];
    let create = ["--cluster", "create"].into_iter().chain(places.iter().map(String::as_str));
    let create = create.chain(["--cluster-replicas", "1", "--cluster-yes"]);
    let args: Vec<&str> = tls.iter().copied().chain(create).collect();
    let Some(said) = run("redis-cli", &args, b"") else { return };
    assert!(said.contains("All 16384 slots covered"), "{said}");
    let first = nodes[0].port.to_string();
    let ask = |port: &str, words: &str| {
        let args = tls.iter().copied().chain(["-c", "-p", port]).chain(words.split(' '));
        run("redis-cli", &args.collect::<Vec<_>>(), b"").unwrap().trim().to_string()
    };
    eventually("the cluster is whole", || {
        let info = ask(&first, "cluster info");
        info.contains("cluster_state:ok") && info.contains("larder_members_in_sync:6")
    });
    for n in 0..30 {
        assert_eq!(ask(&first, &format!("SET key{n} v{n}")), "OK");
    }
    let mut client = connect(&authority, nodes[0].port, &who);
    // Whatever tells of addresses tells of those where TLS is spoken.
    let ports: Vec<u16> = nodes.iter().map(|n| n.port).collect();
    for words in ["CLUSTER NODES", "CLUSTER SLOTS", "CLUSTER SHARDS"] {
        let text = client.words(words);
        assert!(ports.iter().all(|port| text.contains(&port.to_string())), "{words}: {text}");
    }
    assert!(client.words("CLUSTER SHARDS").contains(" tls-port "));
    let args = ["--cluster", "reshard", &places[0], "--cluster-from", "all", "--cluster-to"];
    let to = client.words("CLUSTER MYID");
    let args = tls.iter().copied().chain(args).chain([to.as_str(), "--cluster-slots", "2000"]);
    let said = run("redis-cli", &args.chain(["--cluster-yes"]).collect::<Vec<_>>(), b"").unwrap();
    assert!(!said.contains("[ERR]"), "{said}");
    let get_all =
        |port: &str| (0..30).all(|n| ask(port, &format!("GET key{n}")) == format!("v{n}"));
    assert!(get_all(&first));
    drop(nodes.remove(0));
    let second = nodes[0].port.to_string();
    eventually("its replica takes over", || get_all(&second));
}

#[test]
fn each_client_is_sent_to_the_port_that_it_speaks_to() {
    let authority = Authority::new();
    let who = authority.issue("server", "server");
    let nodes = nodes(&authority, 2, true);
    let plain: Vec<_> = nodes.iter().map(|n| n._server.addr.port()).collect();
    let mut by_tls = connect(&authority, nodes[0].port, &who);
    let mut by_tcp = nodes[0]._server.connect();
    let bus = nodes[1].port + 10_000;
    assert_eq!(by_tls.words(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", nodes[1].port)), "OK");
    let mut other = connect(&authority, nodes[1].port, &who);
    eventually("they have met", || other.words("CLUSTER NODES").lines().count() == 2);
    eventually("slots are assigned", || other.words("CLUSTER ADDSLOTSRANGE 0 16383") == "OK");
    let text = |value| crate::client::text(&value);
    eventually("the first has heard of it", || by_tls.words("GET k").starts_with("-MOVED"));
    assert!(by_tls.words("GET k").ends_with(&format!(":{}", nodes[1].port)));
    assert!(text(by_tcp.words("GET k")).ends_with(&format!(":{}", plain[1])));
    assert!(by_tls.words("CLUSTER NODES").contains(&format!(":{}@", nodes[1].port)));
    assert!(text(by_tcp.words("CLUSTER NODES")).contains(&format!(":{}@", plain[1])));
    assert!(by_tls.words("CLUSTER SLOTS").contains(&format!(" {} ", nodes[1].port)));
    assert!(text(by_tcp.words("CLUSTER SLOTS")).contains(&format!(" {} ", plain[1])));
    let both = text(by_tcp.words("CLUSTER SHARDS"));
    assert!(both.contains(&format!("port {} tls-port {}", plain[1], nodes[1].port)), "{both}");
}
