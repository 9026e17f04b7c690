//! The ledger is itself tested, against a stock server: it must notice losses and gaps, and must not invent any.

use e2e::client::{AddressBook, Client};
use e2e::clock::eventually;
use e2e::ledger::{self, Writers};
use e2e::wire::{Connection, Reply};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Server {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A free port whose bus port (10,000 higher) exists too.
fn port() -> u16 {
    std::iter::repeat_with(|| {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    })
    .find(|port| *port < 55_000)
    .unwrap()
}

/// One stock server that owns all slots; none where it is not installed.
async fn server() -> Option<Server> {
    if e2e::sh::find_program("redis-server").is_none() {
        println!("skipped: redis-server is not installed");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = port();
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--cluster-enabled", "yes", "--save", ""])
        .args(["--requirepass", "secret", "--cluster-announce-ip", "127.0.0.1"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let server = Server { child, address, _folder: folder };
    eventually("stock server owns all slots", Duration::from_secs(20), || async {
        let mut connection = open(address).await?;
        connection.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await?;
        let info = connection.call(&["CLUSTER", "INFO"]).await?.text().unwrap_or_default();
        e2e::ensure!(info.contains("cluster_state:ok"), "{info}");
        Ok(())
    })
    .await
    .unwrap();
    Some(server)
}

async fn open(address: SocketAddr) -> e2e::failure::Result<Connection> {
    Connection::open(address, Some("secret"), Duration::from_secs(2)).await
}

fn book(server: &Server) -> AddressBook {
    let book = AddressBook::default();
    book.set(BTreeMap::from([("demo-0-0".to_owned(), server.address)]));
    book
}

async fn some_writes(writers: &Writers, count: usize) {
    eventually("writes", Duration::from_secs(20), || async {
        let seen = writers.ledgers()[0].acks.len();
        e2e::ensure!(seen >= count, "{seen} so far");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_where_nothing_happens() {
    let Some(server) = server().await else { return };
    let book = book(&server);
    let writers = Writers::start(&book, Some("secret"), Duration::ZERO).await.unwrap();
    some_writes(&writers, 500).await;
    let ledgers = writers.stop().await;
    let loss = ledger::check(&book, Some("secret"), &ledgers).await.unwrap();
    assert!(loss.acknowledged >= 500 && loss.lost.is_empty(), "{loss:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_writes_are_counted_as_lost() {
    let Some(server) = server().await else { return };
    let book = book(&server);
    let writers = Writers::start(&book, Some("secret"), Duration::ZERO).await.unwrap();
    some_writes(&writers, 200).await;
    let before = writers.ledgers()[0].acks.len();
    open(server.address).await.unwrap().call(&["FLUSHALL"]).await.unwrap();
    some_writes(&writers, before + 200).await;
    let ledgers = writers.stop().await;
    let loss = ledger::check(&book, Some("secret"), &ledgers).await.unwrap();
    assert!(loss.lost.len() >= before && loss.lost.len() < loss.acknowledged, "{before}: {loss:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_of_the_server_shows_as_a_gap() {
    let Some(server) = server().await else { return };
    let book = book(&server);
    let writers = Writers::start(&book, Some("secret"), Duration::from_millis(1)).await.unwrap();
    some_writes(&writers, 50).await;
    writers.reset_gaps();
    let pid = server.child.id().to_string();
    e2e::sh!("kill", "-STOP", pid).unwrap();
    eventually("a gap", Duration::from_secs(20), || async {
        let gap = writers.gaps()[0];
        e2e::ensure!(gap >= Duration::from_secs(1), "{gap:?}");
        Ok(())
    })
    .await
    .unwrap();
    e2e::sh!("kill", "-CONT", pid).unwrap();
    writers.all_resume(Duration::from_secs(20)).await.unwrap();
    assert!(writers.gaps()[0] >= Duration::from_secs(1), "the gap is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_replies_and_not_failures() {
    let Some(server) = server().await else { return };
    let mut stranger =
        Connection::open(server.address, None, Duration::from_secs(2)).await.unwrap();
    let reply = stranger.call(&["GET", "a"]).await.unwrap();
    assert!(matches!(&reply, Reply::Error(error) if error.starts_with("NOAUTH")), "{reply:?}");
    let mut client = Client::new(&book(&server), Some("secret"));
    let reply = client.call("a", &["MSET", "a", "1", "b", "2"]).await.unwrap();
    assert!(matches!(&reply, Reply::Error(error) if error.starts_with("CROSSSLOT")), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_client_fills_what_the_own_client_reads() {
    let Some(server) = server().await else { return };
    let address = server.address.to_string();
    let program = env!("CARGO_BIN_EXE_e2e");
    e2e::sh::run(
        Command::new(program)
            .args(["fill", &address, "key", "2500"])
            .env("LARDER_E2E_PASSWORD", "secret"),
    )
    .unwrap();
    let keys: Vec<String> = (0..2500).map(|number| format!("key:{number}")).collect();
    let values = Client::new(&book(&server), Some("secret")).get_all(&keys).await.unwrap();
    for (number, value) in values.iter().enumerate() {
        assert_eq!(value.as_deref(), Some(number.to_string().as_bytes()));
    }
}
