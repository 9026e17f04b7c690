use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::de::DeserializeOwned;

use super::*;
use crate::desired::Seat;

fn cluster(spec: Value) -> CacheCluster {
    serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1",
        "kind": "CacheCluster",
        "metadata": {"name": "demo", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

fn minimal() -> CacheCluster {
    cluster(json!({"shards": 2}))
}

fn durable() -> CacheCluster {
    cluster(json!({
        "shards": 1,
        "memory": "512Mi",
        "eviction": "AllKeysLru",
        "persistence": {
            "aof": {"fsync": "always"},
            "rdb": {"save": [{"after": "900s", "changes": 1}]},
            "volume": {"size": "2Gi", "storageClassName": "fast", "onDelete": "Delete"},
        },
        "image": "registry.example/engine:2",
        "imagePullPolicy": "IfNotPresent",
        "config": {"notify-keyspace-events": "Ex"},
        "auth": {"secretName": "mine", "secretKey": "pw"},
        "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
        "tolerations": [{"key": "cache", "operator": "Exists"}],
        "labels": {"team": "web"},
        "annotations": {"note": "yes"},
    }))
}

fn with<T>(cluster: &CacheCluster, f: impl FnOnce(&Build) -> T) -> T {
    let desired = Desired::of(cluster).unwrap();
    let settings = Settings::default();
    let shards = desired.shards;
    f(&Build { cluster, desired: &desired, settings: &settings, shards })
}

fn yaml(objects: &[Object]) -> String {
    let mut out = String::new();
    for object in objects {
        let _ = writeln!(out, "---\n{}", serde_saphyr::to_string(&object.json).unwrap().trim_end());
    }
    out
}

fn secrets() -> Secrets {
    let pair =
        |name: &str| crate::pki::Pair { cert: format!("{name} cert"), key: format!("{name} key") };
    Secrets {
        ca: pair("ca"),
        member: pair("member"),
        operator: pair("operator"),
        password: Some("se\"cret\\".into()),
    }
}

const SEAT: Seat = Seat::Data { shard: 0, index: 1 };

#[test]
fn golden_scaffold_of_a_minimal_manifest() {
    with(&minimal(), |b| insta::assert_snapshot!(yaml(&b.scaffold())));
}

#[test]
fn golden_pod_of_a_minimal_manifest() {
    with(&minimal(), |b| insta::assert_snapshot!(yaml(&[b.pod(SEAT)])));
}

#[test]
fn golden_pod_and_volume_of_a_durable_manifest() {
    with(&durable(), |b| {
        insta::assert_snapshot!(yaml(&[b.claim(SEAT).unwrap(), b.pod(SEAT)]));
    });
}

#[test]
fn golden_scaffold_of_a_durable_manifest() {
    with(&durable(), |b| insta::assert_snapshot!(yaml(&b.scaffold())));
}

#[test]
fn golden_secrets() {
    with(&minimal(), |b| insta::assert_snapshot!(yaml(&b.secrets(&secrets()))));
}

/// Reads an object through its Kubernetes type and back: what is lost on the way is misspelled.
fn reads_back<K: DeserializeOwned + serde::Serialize>(object: &Object) {
    fn within(part: &Value, whole: &Value, path: &str) {
        match (part, whole) {
            (Value::Object(part), Value::Object(whole)) => {
                for (key, value) in part {
                    let path = format!("{path}.{key}");
                    // Empty collections may be dropped, and an empty object is still there.
                    match whole.get(key) {
                        Some(found) => within(value, found, &path),
                        None => assert!(
                            value.as_array().is_some_and(Vec::is_empty)
                                || value.as_object().is_some_and(serde_json::Map::is_empty),
                            "{path} is unknown"
                        ),
                    }
                }
            }
            (Value::Array(part), Value::Array(whole)) => {
                assert_eq!(part.len(), whole.len(), "{path}");
                for (i, (part, whole)) in part.iter().zip(whole).enumerate() {
                    within(part, whole, &format!("{path}[{i}]"));
                }
            }
            (part, whole) => assert_eq!(part, whole, "{path}"),
        }
    }
    let typed: K = serde_json::from_value(object.json.clone())
        .unwrap_or_else(|e| panic!("{} {}: {e}", object.kind.as_str(), object.name));
    within(&object.json, &serde_json::to_value(&typed).unwrap(), object.kind.as_str());
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for cluster in [minimal(), durable()] {
        with(&cluster, |b| {
            let mut objects = b.scaffold();
            objects.extend(b.secrets(&secrets()));
            for seat in [SEAT, Seat::Witness { index: 0 }] {
                objects.push(b.pod(seat));
                objects.extend(b.claim(seat));
            }
            for object in &objects {
                match object.kind {
                    Kind::Secret => reads_back::<Secret>(object),
                    Kind::ConfigMap => reads_back::<ConfigMap>(object),
                    Kind::Service => reads_back::<Service>(object),
                    Kind::PodDisruptionBudget => reads_back::<PodDisruptionBudget>(object),
                    Kind::NetworkPolicy => reads_back::<NetworkPolicy>(object),
                    Kind::PersistentVolumeClaim => reads_back::<PersistentVolumeClaim>(object),
                    Kind::Pod => reads_back::<Pod>(object),
                }
                let labels = &object.json["metadata"]["labels"];
                assert_eq!(labels[CLUSTER], "demo", "{}", object.name);
            }
        });
    }
}

#[test]
fn password_is_on_no_command_line_and_in_no_config_map() {
    with(&minimal(), |b| {
        let secrets = secrets();
        let password = secrets.password.as_deref().unwrap();
        let mut objects = b.scaffold();
        objects.push(b.pod(SEAT));
        for object in &objects {
            assert!(!object.json.to_string().contains(password), "{}", object.name);
        }
        // The file that is included has it as one quoted argument.
        let auth = b.secrets(&secrets).into_iter().find(|o| o.name == "demo-auth").unwrap();
        let auth: Secret = serde_json::from_value(auth.json).unwrap();
        let conf = auth.data.unwrap()["auth.conf"].0.clone();
        assert_eq!(
            String::from_utf8(conf).unwrap(),
            "requirepass \"se\\\"cret\\\\\"\nmasterauth \"se\\\"cret\\\\\"\n"
        );
    });
}

#[test]
fn no_pod_mounts_a_key_of_the_ca() {
    with(&minimal(), |b| {
        let pod = b.pod(SEAT).json.to_string();
        assert!(!pod.contains("ca.key") && !pod.contains("operator-tls"), "{pod}");
    });
}

fn by_tls(tls: Value) -> CacheCluster {
    cluster(json!({"shards": 1, "tls": tls, "memcached": {"enabled": true}}))
}

#[test]
fn golden_config_of_a_cluster_by_tls() {
    with(&by_tls(json!({"secretName": "mine", "clientAuth": "Required"})), |b| {
        insta::assert_snapshot!(yaml(&[config_map::config_map(b)]));
    });
}

#[test]
fn a_certificate_that_is_given_is_mounted_and_one_of_ours_has_the_services_names() {
    with(&by_tls(json!({"secretName": "mine"})), |b| {
        let pod = b.pod(SEAT);
        reads_back::<Pod>(&pod);
        let sources = &pod.json["spec"]["volumes"][1]["projected"]["sources"];
        assert_eq!(sources[2]["secret"]["name"], "mine");
        assert_eq!(sources[2]["secret"]["items"][1]["path"], "client-tls/tls.crt");
        let port = &pod.json["spec"]["containers"][0]["ports"][0];
        assert_eq!(*port, json!({"name": "resp-tls", "containerPort": 6379, "protocol": "TCP"}));
        for object in b.scaffold().iter().filter(|o| o.kind == Kind::Service) {
            assert_eq!(
                object.json["spec"]["ports"][0]["targetPort"], "resp-tls",
                "{}",
                object.name
            );
        }
        assert!(!b.secrets(&secrets()).iter().any(|o| o.kind == Kind::ConfigMap));
        assert!(!b.member_names().contains(&"demo".to_owned()));
    });
    with(&by_tls(json!({})), |b| {
        let names = b.member_names();
        for name in ["demo", "demo-read.shop", "*.shop.svc", "*.shop.svc.cluster.local"] {
            assert!(names.contains(&name.to_owned()), "{name}: {names:?}");
        }
        let objects = b.secrets(&secrets());
        let ca = objects.iter().find(|o| o.kind == Kind::ConfigMap).unwrap();
        assert_eq!(
            (ca.name.as_str(), &ca.json["data"]),
            ("demo-ca", &json!({"ca.crt": "ca cert"}))
        );
        reads_back::<ConfigMap>(ca);
        let conf = config_map::config_map(b).json.to_string();
        assert!(conf.contains("tls-cert-file /etc/larder/tls/tls.crt"), "{conf}");
        // The key of the CA stays where no pod and no client sees it.
        assert!(!b.pod(SEAT).json.to_string().contains("ca.key"));
    });
}

#[test]
fn memcached_is_reached_at_any_member_and_at_each_primary() {
    let ports = |object: &Object| {
        let ports = object.json["spec"]["ports"].as_array().into_iter().flatten();
        ports.map(|p| p["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let on = cluster(json!({"shards": 2, "memcached": {"enabled": true, "itemSizeMax": "8Mi"}}));
    with(&on, |b| {
        let objects = b.scaffold();
        let with_port: Vec<_> = objects
            .iter()
            .filter(|o| o.kind == Kind::Service && ports(o).contains(&"memcached".to_owned()))
            .map(|o| o.name.as_str())
            .collect();
        assert_eq!(with_port, ["demo", "demo-0-primary", "demo-1-primary"]);
        let of = |kind| objects.iter().find(|o| o.kind == kind).unwrap().json.to_string();
        assert!(of(Kind::NetworkPolicy).contains("11211"));
        let conf = of(Kind::ConfigMap);
        for line in
            ["memcached-port 11211", "memcached-item-size-max 8388608", "memcached-flush yes"]
        {
            assert!(conf.contains(line), "{line}: {conf}");
        }
        let pod = b.pod(SEAT);
        let port = &pod.json["spec"]["containers"][0]["ports"][3];
        assert_eq!(*port, json!({"name": "memcached", "containerPort": 11211, "protocol": "TCP"}));
        reads_back::<Pod>(&pod);
    });
    let off = cluster(json!({"shards": 1, "memcached": {"enabled": false}}));
    with(&off, |b| {
        let all: String = b.scaffold().iter().map(|o| o.json.to_string()).collect();
        assert!(!all.contains("11211") && !all.contains("memcached"));
    });
}

#[test]
fn clients_that_follow_nothing_have_a_port_at_any_member() {
    let on = cluster(json!({"shards": 2, "plain": {}}));
    with(&on, |b| {
        let objects = b.scaffold();
        let with_port: Vec<_> = objects
            .iter()
            .filter(|o| o.kind == Kind::Service && o.json.to_string().contains("6380"))
            .map(|o| o.name.as_str())
            .collect();
        assert_eq!(with_port, ["demo", "demo-0-primary", "demo-1-primary"]);
        let of = |kind| objects.iter().find(|o| o.kind == kind).unwrap().json.to_string();
        assert!(of(Kind::NetworkPolicy).contains("6380"));
        assert!(of(Kind::ConfigMap).contains("larder-plain-port 6380"));
        let pod = b.pod(SEAT);
        let port = &pod.json["spec"]["containers"][0]["ports"][3];
        assert_eq!(*port, json!({"name": "plain", "containerPort": 6380, "protocol": "TCP"}));
        reads_back::<Pod>(&pod);
    });
    let off = cluster(json!({"shards": 2, "plain": {"enabled": false}}));
    with(&off, |b| {
        let all: String = b.scaffold().iter().map(|o| o.json.to_string()).collect();
        assert!(!all.contains("6380") && !all.contains("plain-port"));
    });
}

#[test]
fn template_changes_with_what_takes_a_restart_and_with_nothing_else() {
    let template = |cluster: &CacheCluster| {
        with(cluster, |b| b.pod(SEAT).json["metadata"]["annotations"][TEMPLATE].clone())
    };
    let base = template(&minimal());
    for (field, value, restarts) in [
        ("shards", json!(3), false),
        ("replicasPerShard", json!(2), false),
        ("config", json!({"notify-keyspace-events": "Ex"}), false),
        ("eviction", json!("AllKeysLru"), false),
        ("config", json!({"databases": "4"}), true),
        ("memcached", json!({"enabled": false}), false),
        ("image", json!("other:1"), true),
        ("failureTimeout", json!("2s"), true),
        ("memory", json!("512Mi"), true),
    ] {
        let mut spec = json!({"shards": 2});
        spec[field] = value.clone();
        assert_eq!(template(&cluster(spec)) != base, restarts, "{field}: {value}");
    }
}

#[test]
fn pods_of_any_seat_pass_the_restricted_security_standard() {
    with(&durable(), |b| {
        for seat in [SEAT, Seat::Witness { index: 0 }] {
            let spec = &b.pod(seat).json["spec"];
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for container in spec["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
                assert_eq!(context["readOnlyRootFilesystem"], true);
            }
        }
    });
}

#[test]
fn budget_counts_members_and_not_shards() {
    with(&cluster(json!({"shards": 3, "replicasPerShard": 1})), |b| {
        assert_eq!(budget::budget(b).json["spec"]["minAvailable"], 5);
    });
    // Two members with data and a witness.
    with(&cluster(json!({"shards": 1, "replicasPerShard": 1})), |b| {
        assert_eq!(budget::budget(b).json["spec"]["minAvailable"], 2);
    });
    with(&cluster(json!({"shards": 1, "replicasPerShard": 0})), |b| {
        assert_eq!(budget::budget(b).json["spec"]["minAvailable"], 0);
    });
}

#[test]
fn volumes_are_owned_only_when_they_go_with_the_cluster() {
    let owners = |on_delete: &str| {
        let volume = json!({"size": "1Gi", "onDelete": on_delete});
        let spec = json!({"shards": 1, "persistence": {"aof": {}, "volume": volume}});
        with(&cluster(spec), |b| b.claim(SEAT).unwrap().json["metadata"]["ownerReferences"].clone())
    };
    assert_eq!(owners("Keep"), Value::Null);
    assert_eq!(owners("Delete")[0]["uid"], "u-1");
}
