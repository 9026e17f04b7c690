//! The operator dies after any one of its writes, and the next one comes to the same end.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::fake::{Fake, Memories};

pub(super) const CLUSTER: &str = "/apis/larder.dev/v1alpha1/namespaces/shop/cacheclusters/demo";
pub(super) const CORE: &str = "/api/v1/namespaces/shop";

pub(super) fn world() -> Fake {
    let fake = Fake::default();
    let volume = json!({"size": "1Gi"});
    let cluster = json!({
        "apiVersion": "larder.dev/v1alpha1",
        "kind": "CacheCluster",
        "metadata": {"name": "demo", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {"shards": 2, "persistence": {"aof": {}, "volume": volume}},
    });
    fake.put(CLUSTER, cluster);
    fake
}

/// Rounds until nothing is written any more.
pub(super) async fn settle(fake: &Fake, memories: &mut Memories) {
    for _ in 0..10 {
        let before = fake.writes();
        assert!(fake.round(memories).await);
        if fake.writes() == before {
            return;
        }
    }
    panic!("it writes in every round");
}

/// All objects without what chance and time put into them.
pub(super) fn essence(fake: &Fake) -> BTreeMap<String, Value> {
    let mut objects = fake.objects();
    for (path, object) in &mut objects {
        object["metadata"]["resourceVersion"] = Value::Null;
        if path.contains("/secrets/") {
            let keys: BTreeSet<String> =
                object["data"].as_object().unwrap().keys().cloned().collect();
            object["data"] = json!(keys);
        }
        if path == CLUSTER {
            object["status"]["conditions"] = Value::Null;
            object["status"]["plan"] = Value::Null;
        }
    }
    objects
}

pub(super) fn secret(fake: &Fake, name: &str) -> BTreeMap<String, String> {
    let object = fake.objects()[&format!("{CORE}/secrets/{name}")].clone();
    let secret: Secret = serde_json::from_value(object).unwrap();
    let text = |v: Vec<u8>| String::from_utf8(v).unwrap();
    secret.data.unwrap().into_iter().map(|(k, v)| (k, text(v.0))).collect()
}

/// The Secrets of a cluster fit together.
fn secrets_agree(fake: &Fake) {
    let operator = secret(fake, "demo-operator-tls");
    let (member, auth) = (secret(fake, "demo-tls"), secret(fake, "demo-auth"));
    assert_eq!(operator["ca.crt"], member["ca.crt"]);
    assert_eq!(operator["ca.key"], member["ca.key"]);
    assert_eq!(operator["password"], auth["password"]);
    assert!(auth["auth.conf"].contains(&auth["password"]));
}

#[tokio::test]
async fn operator_that_dies_after_any_write_is_taken_over_from() {
    let fake = world();
    settle(&fake, &mut Memories::new()).await;
    let (wanted, writes) = (essence(&fake), fake.writes());
    assert!(writes > 20, "{writes} writes");
    secrets_agree(&fake);

    for n in 0..writes {
        let fake = world();
        fake.limit(Some(n));
        let mut memories = Memories::new();
        while fake.round(&mut memories).await && fake.writes() < n {}
        fake.limit(None);
        settle(&fake, &mut Memories::new()).await;
        assert_eq!(essence(&fake), wanted, "dead after {n} writes");
        secrets_agree(&fake);
    }
}

#[tokio::test]
async fn any_one_lost_object_comes_back_as_it_was() {
    let fake = world();
    let mut memories = Memories::new();
    settle(&fake, &mut memories).await;
    let (wanted, password) = (essence(&fake), secret(&fake, "demo-auth")["password"].clone());
    let ca = secret(&fake, "demo-tls")["ca.crt"].clone();
    for path in wanted.keys().filter(|p| *p != CLUSTER) {
        fake.remove(path);
        settle(&fake, &mut memories).await;
        assert_eq!(essence(&fake), wanted, "{path}");
        // Also by an operator that remembers nothing.
        fake.remove(path);
        memories = Memories::new();
        settle(&fake, &mut memories).await;
        assert_eq!(essence(&fake), wanted, "{path}");
        secrets_agree(&fake);
        assert_eq!(secret(&fake, "demo-auth")["password"], password, "{path}");
        assert_eq!(secret(&fake, "demo-tls")["ca.crt"], ca, "{path}");
    }
}

#[tokio::test]
async fn settled_cluster_costs_no_write() {
    let fake = world();
    let mut memories = Memories::new();
    settle(&fake, &mut memories).await;
    let before = fake.writes();
    for _ in 0..5 {
        assert!(fake.round(&mut memories).await);
    }
    assert_eq!(fake.writes(), before);
}
