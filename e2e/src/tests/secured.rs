//! Clients by TLS, of Redis and of Memcached, on the same keys, before and after a failover.

use crate::clock::eventually;
use crate::cluster::{Cluster, Member};
use crate::failure::{Context, Result};
use crate::tls;
use crate::wire::{Connection, Reply};
use crate::world::Room;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const MEMCACHED_PORT: u16 = 11211;
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn tls_and_memcached_outlive_their_primary(room: Arc<Room>) -> Result {
    let spec = json!({
        "shards": 1, "replicasPerShard": 1, "memory": "64Mi", "tls": {}, "memcached": {"enabled": true},
    });
    let mut cluster = Cluster::apply(&room, "demo", spec).await?;
    cluster.ready(Duration::from_secs(120)).await?;
    cluster.read_password().await?;
    let maps: Api<ConfigMap> = Api::namespaced(room.world.client.clone(), &room.namespace);
    let ca = maps.get("demo-ca").await?.data.unwrap_or_default().remove("ca.crt");
    let clients = Clients {
        ca: ca.context("ca.crt of the ConfigMap demo-ca")?,
        // The certificate has the name of the Service through which clients come to the primary.
        name: format!("demo-0-primary.{}.svc", room.namespace),
        password: cluster.password.clone().context("a password")?,
    };

    let first = primary(&cluster).await?;
    let address = first.address.context("address of the primary")?;
    nobody_comes_in_plainly(address).await?;
    clients.set_by_redis(address, "a", "one").await?;
    clients.set_by_memcached(address, "b", "two").await?;
    clients.both_see(address, &[("a", "one"), ("b", "two")]).await?;

    cluster.delete_pod(&first.name).await?;
    eventually("another primary serves both", Duration::from_secs(30), || async {
        let second = primary(&cluster).await?;
        crate::ensure!(second.uid != first.uid, "{} is primary still", first.name);
        let address = second.address.context("its address")?;
        clients.both_see(address, &[("a", "one"), ("b", "two")]).await
    })
    .await?;
    cluster.ready(Duration::from_secs(60)).await?;
    Ok(())
}

/// The primary, as the status tells it: what asks the members themselves speaks no TLS.
async fn primary(cluster: &Cluster) -> Result<Member> {
    let object = cluster.object().await?;
    let name = object["status"]["shards"][0]["primary"].as_str().context("a primary")?;
    cluster.member(name).await
}

async fn nobody_comes_in_plainly(address: SocketAddr) -> Result {
    let mut plain = Connection::open(address, None, PATIENCE).await?;
    let answer = plain.call(&["PING"]).await;
    crate::ensure!(answer.is_err(), "without TLS it answered {answer:?}");
    Ok(())
}

struct Clients {
    ca: String,
    name: String,
    password: String,
}

impl Clients {
    async fn redis(&self, address: SocketAddr, words: &[&str]) -> Result<Reply> {
        let mut connection = tls::open(address, &self.name, &self.ca, PATIENCE).await?;
        connection.call(&["AUTH", &self.password]).await?.ok()?;
        connection.call(words).await?.ok()
    }

    /// A request of memcached's text protocol, after a login.
    async fn memcached(&self, mut address: SocketAddr, request: &str) -> Result<Vec<String>> {
        address.set_port(MEMCACHED_PORT);
        let mut connection = tls::open(address, &self.name, &self.ca, PATIENCE).await?;
        let refused = connection.lines("get b\r\n", &["END", "CLIENT_ERROR unauthenticated"]);
        let refused = refused.await?;
        crate::ensure!(refused != ["END"], "Memcached is open to everybody: {refused:?}");
        let login = format!("default {}", self.password);
        let login = format!("set login 0 0 {}\r\n{login}\r\n", login.len());
        connection.lines(&login, &["STORED"]).await.context("login")?;
        connection.lines(request, &["END", "STORED"]).await
    }

    async fn set_by_redis(&self, address: SocketAddr, key: &str, value: &str) -> Result {
        let set = self.redis(address, &["SET", key, value]).await?;
        crate::ensure!(set == Reply::Text("OK".into()), "SET answered {set:?}");
        let waited = self.redis(address, &["WAIT", "1", "1000"]).await?;
        crate::ensure!(waited == Reply::Number(1), "WAIT answered {waited:?}");
        Ok(())
    }

    async fn set_by_memcached(&self, address: SocketAddr, key: &str, value: &str) -> Result {
        let request = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
        self.memcached(address, &request).await?;
        // A replica has what came before a write that it has.
        self.set_by_redis(address, "fence", "").await
    }

    async fn both_see(&self, address: SocketAddr, items: &[(&str, &str)]) -> Result {
        for (key, value) in items {
            let got = self.redis(address, &["GET", key]).await?;
            crate::ensure!(got.text().as_deref() == Some(value), "by RESP {key} is {got:?}");
            let got = self.memcached(address, &format!("get {key}\r\n")).await?;
            let header = format!("VALUE {key} 0 {}", value.len());
            crate::ensure!(got == [&header, *value, "END"], "by Memcached {key} is {got:?}");
        }
        Ok(())
    }
}
