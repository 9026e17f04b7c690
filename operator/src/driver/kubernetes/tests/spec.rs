//! What a manifest does that cannot be acted on as it is: it is told, by name, and nothing is touched.

use serde_json::{Value, json};

use super::crash::{CLUSTER, CORE, essence, secret, settle, world};
use super::fake::{Fake, Memories};

/// A cluster that was formed, and its objects are there.
async fn formed() -> (Fake, Memories) {
    let (fake, mut memories) = (world(), Memories::new());
    let mut cluster = fake.objects()[CLUSTER].clone();
    cluster["status"] = json!({"observedGeneration": 1, "clusterId": "c1", "shardCount": 2});
    fake.put(CLUSTER, cluster);
    settle(&fake, &mut memories).await;
    (fake, memories)
}

/// Changes the spec, as the next generation.
fn change(fake: &Fake, field: &str, value: Value) {
    let mut cluster = fake.objects()[CLUSTER].clone();
    let generation = cluster["metadata"]["generation"].as_i64().unwrap() + 1;
    cluster["metadata"]["generation"] = json!(generation);
    cluster["spec"][field] = value;
    fake.put(CLUSTER, cluster);
}

fn condition(fake: &Fake, type_: &str) -> Value {
    let status = fake.objects()[CLUSTER]["status"].clone();
    let all = status["conditions"].as_array().unwrap().clone();
    all.into_iter().find(|c| c["type"] == type_).unwrap_or(Value::Null)
}

#[tokio::test]
async fn what_kubernetes_or_the_engine_would_refuse_touches_nothing_and_names_the_field() {
    for (field, value, named) in [
        ("tolerations", json!([{"key": 5}]), "spec.tolerations: "),
        ("tolerations", json!([{"key": "a", "effect": "No"}]), "spec.tolerations[0].effect: "),
        (
            "affinity",
            json!({"nodeAfinity": {"x": {}}}),
            "spec.affinity.nodeAfinity: is not a field that Kubernetes knows",
        ),
        ("config", json!({"no-such": "1"}), "spec.config.no-such: is not a directive"),
        ("config", json!({"maxmemory-samples": "many"}), "spec.config.maxmemory-samples: "),
    ] {
        let (fake, mut memories) = formed().await;
        let before = essence(&fake);
        change(&fake, field, value);
        settle(&fake, &mut memories).await;
        let ready = condition(&fake, "Ready");
        assert_eq!(ready["reason"], "InvalidSpec");
        assert_eq!(ready["observedGeneration"], 2);
        assert!(ready["message"].as_str().unwrap().starts_with(named), "{ready}");
        assert_eq!(condition(&fake, "Stalled")["status"], "True");
        let plan = fake.objects()[CLUSTER]["status"]["plan"].clone();
        assert_eq!(plan["blocked"][0]["reason"], "InvalidSpec");
        let mut after = essence(&fake);
        after.insert(CLUSTER.to_owned(), before[CLUSTER].clone());
        assert_eq!(after, before, "{field}");
    }
}

#[tokio::test]
async fn manifest_that_is_put_right_goes_on() {
    let (fake, mut memories) = formed().await;
    change(&fake, "config", json!({"no-such": "1"}));
    settle(&fake, &mut memories).await;
    change(&fake, "config", json!({"maxmemory-samples": "10"}));
    settle(&fake, &mut memories).await;
    assert_eq!(condition(&fake, "Stalled"), Value::Null);
    assert_ne!(condition(&fake, "Ready")["reason"], "InvalidSpec");
    let conf = fake.objects()[&format!("{CORE}/configmaps/demo-config")].clone();
    assert!(conf["data"]["larder.conf"].as_str().unwrap().contains("maxmemory-samples 10\n"));
}

/// Nobody answers here, so that nobody tells whether the shards that are to go are empty.
#[tokio::test]
async fn fewer_shards_take_nothing_away_from_those_that_were_formed() {
    let (fake, mut memories) = formed().await;
    let before = essence(&fake);
    change(&fake, "shards", json!(1));
    settle(&fake, &mut memories).await;
    for path in before.keys() {
        assert!(fake.objects().contains_key(path), "{path}");
    }
    let budget = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/demo";
    // Four members, and the witness that one shard with a replica will have: one of them may go.
    assert_eq!(fake.objects()[budget]["spec"]["minAvailable"], 4);
}

#[tokio::test]
async fn object_of_somebody_else_is_not_taken_over() {
    for path in [format!("{CORE}/services/demo"), format!("{CORE}/secrets/demo-tls")] {
        let (fake, mut memories) = (world(), Memories::new());
        let name = path.rsplit('/').next().unwrap();
        let theirs =
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"theirs": 1}});
        fake.put(&path, theirs);
        let before = fake.objects()[&path].clone();
        assert!(!fake.round(&mut memories).await);
        assert_eq!(fake.objects()[&path], before);
        let ready = condition(&fake, "Ready");
        assert_eq!(ready["reason"], "NameTaken");
        assert!(ready["message"].as_str().unwrap().contains(name), "{ready}");
        fake.remove(&path);
        settle(&fake, &mut memories).await;
        assert_ne!(condition(&fake, "Ready")["reason"], "NameTaken");
    }
}

#[tokio::test]
async fn object_that_lost_its_label_gets_it_back() {
    for path in [format!("{CORE}/services/demo"), format!("{CORE}/secrets/demo-auth")] {
        let (fake, memories) = formed().await;
        drop(memories);
        let before = essence(&fake);
        let mut bare = fake.objects()[&path].clone();
        bare["metadata"]["labels"] = json!({});
        fake.put(&path, bare);
        let mut memories = Memories::new();
        // A Secret is only labelled in the first round, and read in the next one.
        fake.round(&mut memories).await;
        settle(&fake, &mut memories).await;
        assert_eq!(essence(&fake), before, "{path}");
    }
}

#[tokio::test]
async fn refused_object_holds_up_no_repair_of_a_formed_cluster() {
    let (fake, mut memories) = formed().await;
    let policy = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/demo";
    let pod = format!("{CORE}/pods/demo-0-0");
    fake.forbid("networkpolicies");
    fake.remove(policy);
    fake.remove(&pod);
    assert!(fake.round(&mut memories).await);
    assert!(fake.objects().contains_key(&pod));
    let plan = fake.objects()[CLUSTER]["status"]["plan"].clone();
    let told = plan["blocked"].as_array().unwrap().iter().any(|b| b["reason"] == "RoundFailed");
    assert!(told, "{plan}");
}

#[tokio::test]
async fn volumes_follow_the_labels_and_the_owner_of_the_manifest() {
    let (fake, mut memories) = formed().await;
    let claim = || fake.objects()[&format!("{CORE}/persistentvolumeclaims/demo-0-0-data")].clone();
    change(&fake, "labels", json!({"team": "web"}));
    settle(&fake, &mut memories).await;
    assert_eq!(claim()["metadata"]["labels"]["team"], "web");
    change(&fake, "labels", json!({"tier": "hot"}));
    settle(&fake, &mut memories).await;
    assert_eq!(claim()["metadata"]["labels"]["team"], Value::Null);
    assert_eq!(claim()["metadata"]["labels"]["tier"], "hot");
    assert_eq!(claim()["metadata"]["ownerReferences"], Value::Null);
    let volume = json!({"size": "1Gi", "onDelete": "Delete"});
    change(&fake, "persistence", json!({"aof": {}, "volume": volume}));
    settle(&fake, &mut memories).await;
    assert_eq!(claim()["metadata"]["ownerReferences"][0]["uid"], "u-1");
}

#[tokio::test]
async fn missing_secret_of_the_user_is_named_and_waited_for() {
    let fake = world();
    let mut cluster = fake.objects()[CLUSTER].clone();
    cluster["spec"]["auth"] = json!({"secretName": "mine"});
    fake.put(CLUSTER, cluster);
    let mut memories = Memories::new();
    assert!(!fake.round(&mut memories).await);
    let status = fake.objects()[CLUSTER]["status"].clone();
    assert!(status.to_string().contains("SecretMissing"), "{status}");
    let given = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "mine", "namespace": "shop"},
        "data": {"password": k8s_openapi::ByteString(b"open sesame".to_vec())},
    });
    fake.put(&format!("{CORE}/secrets/mine"), given);
    settle(&fake, &mut memories).await;
    let auth = secret(&fake, "demo-auth");
    assert_eq!(auth["auth.conf"], "requirepass \"open sesame\"\nmasterauth \"open sesame\"\n");
    assert_eq!(fake.objects()[CLUSTER]["status"]["authSecret"], "mine");
}
