//! Each CEL rule accepts what it should and refuses the rest, with its own message.

use kube::core::cel::Validator;
use serde_json::{Value, json};

fn schema() -> Value {
    let crd = crds::schema::crd();
    let version = &crd.spec.versions[0];
    serde_json::to_value(version.schema.as_ref().unwrap().open_api_v3_schema.as_ref()).unwrap()
}

fn cluster(spec: Value) -> Value {
    json!({
        "apiVersion": "larder.dev/v1alpha1",
        "kind": "CacheCluster",
        "metadata": {"name": "demo"},
        "spec": spec,
    })
}

/// Spec with three shards and these fields on top.
fn spec(fields: Value) -> Value {
    let mut spec = json!({"shards": 3});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

fn messages(object: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(&schema(), object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|e| e.message).collect(),
    }
}

fn accepted(fields: Value) {
    let found = messages(&cluster(spec(fields.clone())), None);
    assert!(found.is_empty(), "{fields}: {found:?}");
}

fn refused(fields: Value, message: &str) {
    let found = messages(&cluster(spec(fields.clone())), None);
    assert!(found.len() == 1 && found[0].contains(message), "{fields}: {found:?}");
}

#[test]
fn names_are_dns_labels_of_at_most_forty_characters() {
    let named = |name: &str| {
        let mut object = cluster(spec(json!({})));
        object["metadata"]["name"] = json!(name);
        messages(&object, None)
    };
    for good in ["demo", "a", "a-1", &"a".repeat(40)] {
        assert_eq!(named(good), Vec::<String>::new(), "{good}");
    }
    for bad in ["0demo", "a.b", "demo-", &"a".repeat(41)] {
        let found = named(bad);
        assert!(found.len() == 1 && found[0].contains("at most 40 characters"), "{bad}: {found:?}");
    }
    for bad in ["a-members", "a-read", "a-0-primary"] {
        let found = named(bad);
        assert!(found.len() == 1 && found[0].contains("must not end in"), "{bad}: {found:?}");
    }
}

#[test]
fn memory_is_at_least_sixteen_mebibytes() {
    accepted(json!({"memory": "16Mi"}));
    accepted(json!({"memory": "1.5Gi"}));
    refused(json!({"memory": "1Mi"}), "at least 16Mi");
    refused(json!({"memory": "100"}), "at least 16Mi");
}

#[test]
fn quorum_is_refused_with_what_to_use_instead() {
    accepted(json!({"durability": "Async"}));
    accepted(json!({"durability": "Quorum"}));
}

#[test]
fn memory_limit_leaves_room_beside_the_data() {
    accepted(json!({"memory": "100Mi", "resources": {"limits": {"memory": "200Mi"}}}));
    accepted(json!({"memory": "100Mi", "resources": {"limits": {"memory": 209_715_200}}}));
    accepted(json!({"memory": "100Mi", "resources": {"limits": {"cpu": "1"}}}));
    accepted(json!({"resources": {"requests": {"memory": "1Mi"}}}));
    refused(
        json!({"memory": "100Mi", "resources": {"limits": {"memory": "100Mi"}}}),
        "resources.limits.memory must be larger than memory",
    );
}

#[test]
fn volume_holds_what_memory_holds() {
    accepted(json!({"memory": "1Gi", "persistence": {"aof": {}, "volume": {"size": "1Gi"}}}));
    refused(
        json!({"memory": "1Gi", "persistence": {"aof": {}, "volume": {"size": "512Mi"}}}),
        "persistence.volume.size must be at least memory",
    );
}

#[test]
fn volume_needs_something_that_is_written() {
    accepted(json!({"persistence": {}}));
    accepted(json!({"persistence": {"aof": {"fsync": "always"}}}));
    accepted(json!({"persistence": {"rdb": {}, "volume": {"size": "1Gi"}}}));
    refused(json!({"persistence": {"volume": {"size": "1Gi"}}}), "needs aof or rdb");
}

#[test]
fn volumes_stay_as_they_were_made() {
    let with = |volume: Value| cluster(spec(json!({"persistence": {"aof": {}, "volume": volume}})));
    let without = cluster(spec(json!({"persistence": {"aof": {}}})));
    let old = with(json!({"size": "1Gi", "storageClassName": "fast"}));

    assert!(messages(&old, Some(&old)).is_empty());
    let keep = with(json!({"size": "1Gi", "storageClassName": "fast", "onDelete": "Delete"}));
    assert!(messages(&keep, Some(&old)).is_empty(), "onDelete may change");

    let found = messages(&with(json!({"size": "2Gi", "storageClassName": "fast"})), Some(&old));
    assert!(found.len() == 1 && found[0].contains("volumes do not grow yet"), "{found:?}");
    let same = with(json!({"size": "1024Mi", "storageClassName": "fast"}));
    assert!(messages(&same, Some(&old)).is_empty(), "the same size in other words");
    for class in [json!({"size": "1Gi", "storageClassName": "slow"}), json!({"size": "1Gi"})] {
        let found = messages(&with(class), Some(&old));
        assert!(found.len() == 1 && found[0].contains("cannot be changed later"), "{found:?}");
    }
    for (new, old) in [(&without, &old), (&old, &without)] {
        let found = messages(new, Some(old));
        assert!(found.len() == 1 && found[0].contains("cannot be added or removed"), "{found:?}");
    }
}

#[test]
fn snapshots_are_at_least_a_second_apart() {
    let save =
        |after: &str| json!({"persistence": {"rdb": {"save": [{"after": after, "changes": 1}]}}});
    accepted(save("900s"));
    accepted(save("1h30m"));
    refused(save("500ms"), "at least 1s");
}

#[test]
fn config_holds_directives_that_are_not_the_operators() {
    accepted(json!({"config": {"notify-keyspace-events": "Ex", "maxmemory-samples": "10"}}));
    refused(json!({"config": {"Maxmemory Samples": "10"}}), "lower case letters");
    refused(json!({"config": {"databases": "16\nrequirepass x"}}), "a value is one line");
    for owned in [
        "port",
        "dir",
        "include",
        "requirepass",
        "maxmemory",
        "maxmemory-policy",
        "appendonly",
        "save",
        "replicaof",
        "cluster-enabled",
        "cluster-announce-ip",
        "protected-mode",
        "larder-name",
    ] {
        let mut config = json!({});
        config[owned] = json!("1");
        refused(json!({"config": config}), "are set by Larder");
    }
}

#[test]
fn auth_is_a_secret_or_disabled_but_not_both() {
    accepted(json!({"auth": {}}));
    accepted(json!({"auth": {"secretName": "mine", "secretKey": "pw"}}));
    accepted(json!({"auth": {"disabled": true}}));
    accepted(json!({"auth": {"secretName": "mine", "disabled": false}}));
    refused(json!({"auth": {"secretName": "mine", "disabled": true}}), "contradict each other");
}

#[test]
fn labels_and_annotations_leave_our_prefixes_alone() {
    accepted(json!({"labels": {"team": "web"}, "annotations": {"a.b/c": "d"}}));
    refused(json!({"labels": {"larder.dev/role": "primary"}}), "belong to Larder");
    refused(json!({"labels": {"app.kubernetes.io/name": "x"}}), "belong to Larder");
    refused(json!({"annotations": {"larder.dev/x": "y"}}), "belongs to Larder");
}

#[test]
fn failure_timeout_is_between_300ms_and_60s() {
    for good in ["300ms", "1s", "1m"] {
        accepted(json!({"failureTimeout": good}));
    }
    for bad in ["299ms", "61s", "1h"] {
        refused(json!({"failureTimeout": bad}), "between 300ms and 60s");
    }
}

/// What a change from one spec to another is answered with; `formed`: the cluster is there.
fn change(old: Value, new: Value, formed: bool) -> Vec<String> {
    let object = |fields| {
        let mut object = cluster(spec(fields));
        if formed {
            object["status"] = json!({"clusterId": "c1"});
        }
        object
    };
    messages(&object(new), Some(&object(old)))
}

fn refused_change(old: Value, new: Value, message: &str) {
    let found = change(old.clone(), new.clone(), true);
    assert!(found.len() == 1 && found[0].contains(message), "{old} to {new}: {found:?}");
}

#[test]
fn shards_may_become_more_and_fewer() {
    for formed in [false, true] {
        for shards in [1, 2, 3, 4, 500] {
            let found = change(json!({"shards": 3}), json!({"shards": shards}), formed);
            assert!(found.is_empty(), "{shards}: {found:?}");
        }
    }
}

#[test]
fn auth_stays_as_it_is() {
    let (given, other) = (json!({"secretName": "mine"}), json!({"secretName": "other"}));
    let auth = |auth: &Value| json!({"auth": auth});
    assert!(change(auth(&given), auth(&given), true).is_empty());
    assert!(change(json!({}), json!({"memory": "1Gi"}), true).is_empty());
    for (old, new) in [
        (auth(&given), auth(&other)),
        (auth(&given), json!({"auth": {"secretName": "mine", "secretKey": "pw"}})),
        (auth(&given), json!({})),
        (json!({}), auth(&given)),
        (json!({}), json!({"auth": {"disabled": true}})),
        (json!({"auth": {"disabled": true}}), json!({"auth": {"disabled": false}})),
    ] {
        refused_change(old, new, "auth cannot be changed");
    }
}

/// A primary that was restarted with a longer lease than the leader waits for would go on
/// acknowledging writes while another one is appointed.
#[test]
fn failure_timeout_stays_as_it_is() {
    let of = |timeout: &str| json!({"failureTimeout": timeout});
    assert!(change(of("1s"), of("1s"), true).is_empty());
    refused_change(of("1s"), of("2s"), "failureTimeout cannot be changed");
}

#[test]
fn secret_of_the_user_is_none_of_those_that_larder_makes() {
    accepted(json!({"auth": {"secretName": "demo"}}));
    accepted(json!({"auth": {"secretName": "other-auth"}}));
    for ours in ["demo-auth", "demo-tls", "demo-operator-tls"] {
        refused(json!({"auth": {"secretName": ours}}), "auth.secretName must not be");
    }
}

#[test]
fn key_of_a_secret_is_said_only_with_the_secret() {
    accepted(json!({"auth": {"secretKey": "password"}}));
    accepted(json!({"auth": {"secretName": "mine", "secretKey": "pw"}}));
    refused(json!({"auth": {"secretKey": "pw"}}), "auth.secretKey names a key of");
}

#[test]
fn tls_stays_and_clients_show_certificates_of_a_ca_that_is_given() {
    let tls = |tls: Value| json!({"tls": tls});
    accepted(tls(json!({})));
    accepted(tls(json!({"clientAuth": "None"})));
    accepted(tls(json!({"secretName": "mine", "clientAuth": "Required"})));
    for auth in ["Optional", "Required"] {
        refused(tls(json!({"clientAuth": auth})), "tls.clientAuth needs tls.secretName");
    }
    for ours in ["demo-auth", "demo-tls", "demo-operator-tls"] {
        refused(tls(json!({"secretName": ours})), "tls.secretName must not be");
    }
    for ours in ["tls-port", "tls-cert-file", "tls-auth-clients", "tls-replication"] {
        refused(json!({"config": {ours: "1"}}), "what tls says");
    }
    accepted(json!({"tls": {}, "config": {"tls-protocols": "TLSv1.3"}}));
    let given = |auth: &str| tls(json!({"secretName": "mine", "clientAuth": auth}));
    assert!(change(given("None"), given("Required"), true).is_empty());
    for (old, new) in [
        (json!({}), tls(json!({}))),
        (tls(json!({})), json!({})),
        (tls(json!({})), given("None")),
        (given("None"), tls(json!({"secretName": "other"}))),
    ] {
        refused_change(old, new, "tls and tls.secretName cannot be changed");
    }
}

#[test]
fn memcached_has_an_item_size_of_some_sense() {
    accepted(json!({"shards": 3, "memcached": {"enabled": true}}));
    accepted(json!({"shards": 1, "memcached": {"enabled": true, "itemSizeMax": "8Mi"}}));
    accepted(json!({"memcached": {"enabled": false}}));
    for size in ["100", "2Gi"] {
        refused(
            json!({"shards": 1, "memcached": {"enabled": true, "itemSizeMax": size}}),
            "memcached.itemSizeMax must be between",
        );
    }
    for ours in ["memcached-port", "memcached-item-size-max", "memcached-flush"] {
        refused(json!({"config": {ours: "1"}}), "memcached-port");
    }
}

/// Every rule of the CRD compiles, and has a message of its own.
#[test]
fn every_rule_has_a_message() {
    fn walk(schema: &Value, count: &mut usize) {
        match schema {
            Value::Object(map) => {
                if let Some(Value::Array(rules)) = map.get("x-kubernetes-validations") {
                    for rule in rules {
                        assert!(rule["message"].as_str().is_some_and(|m| !m.is_empty()), "{rule}");
                        *count += 1;
                    }
                }
                map.values().for_each(|v| walk(v, count));
            }
            Value::Array(items) => items.iter().for_each(|v| walk(v, count)),
            _ => {}
        }
    }
    let mut count = 0;
    walk(&schema(), &mut count);
    assert_eq!(count, 35, "a new rule needs a test here");
}

#[test]
fn a_bound_of_staleness_is_a_time_that_a_replica_can_know() {
    ["10ms", "1s500ms", "24h"].into_iter().for_each(|t| accepted(json!({"maxStaleness": t})));
    for time in ["9ms", "25h"] {
        refused(json!({"maxStaleness": time}), "maxStaleness must be between 10ms and 24h");
    }
}

#[test]
fn the_least_in_sync_needs_quorum_and_as_many_members_and_stays() {
    let quorum =
        |min: i32| json!({"durability": "Quorum", "replicasPerShard": 1, "minInSync": min});
    accepted(quorum(1));
    accepted(quorum(2));
    refused(quorum(3), "at most replicasPerShard + 1");
    refused(json!({"minInSync": 1}), "needs durability: Quorum");
    let without = cluster(spec(json!({"durability": "Quorum", "replicasPerShard": 1})));
    for (old, new) in [(quorum(1), quorum(2)), (quorum(1), without["spec"].clone())] {
        let found = messages(&cluster(spec(new)), Some(&cluster(spec(old))));
        assert!(found.len() == 1 && found[0].contains("minInSync cannot be changed"), "{found:?}");
    }
}

#[test]
fn primaries_are_handed_back_at_a_time_of_the_day_that_there_is() {
    let window = |start: &str, duration: &str| json!({"balance": {"window": {"start": start, "duration": duration}}});
    accepted(window("02:30", "2h"));
    accepted(window("23:59", "24h"));
    accepted(json!({"balance": {"primaries": "Manual", "request": "after the repair"}}));
    refused(window("02:30", "59s"), "between 1m and 24h");
    refused(window("02:30", "25h"), "between 1m and 24h");
    let window = json!({"start": "02:30", "duration": "2h"});
    refused(
        json!({"balance": {"primaries": "Manual", "window": window}}),
        "needs balance.primaries: Automatic",
    );
}

#[test]
fn what_clients_meet_while_slots_move_has_a_bound_that_the_engine_takes() {
    let bound = |time: &str| json!({"balance": {"maxMoveLatency": time}});
    ["0s", "1ms", "10s"].into_iter().for_each(|t| accepted(bound(t)));
    refused(bound("10001ms"), "balance.maxMoveLatency must be between 0s and 10s");
}

#[test]
fn a_rollout_is_given_time_in_bounds() {
    accepted(json!({"rollout": {"canaryPause": "5m", "readyWithin": "1h"}}));
    refused(json!({"rollout": {"canaryPause": "500ms"}}), "between 1s and 24h");
    refused(json!({"rollout": {"readyWithin": "9s"}}), "between 10s and 24h");
}

#[test]
fn a_rollout_is_stopped_by_what_is_seen_in_a_pause() {
    accepted(json!({"rollout": {"canaryPause": "5m", "maxErrorRate": "0.5%", "maxLag": "16Mi"}}));
    for (field, value) in [("maxErrorRate", "1%"), ("maxLag", "1Mi")] {
        refused(json!({"rollout": {field: value}}), "need rollout.canaryPause");
    }
    let points = crds::quantity::basis_points;
    for (text, expected) in
        [("0%", 0), ("1%", 100), ("0.5%", 50), ("0.25%", 25), ("0.05%", 5), ("100%", 10_000)]
    {
        assert_eq!(points(text), Some(expected), "{text}");
    }
    for text in ["", "%", "1", "1.%", ".5%", "0.255%", "-1%", "+1%", "100.01%", "1 %"] {
        assert_eq!(points(text), None, "{text}");
    }
}
