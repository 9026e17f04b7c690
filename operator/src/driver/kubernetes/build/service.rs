//! The Services: one to begin at, one for reads, one per shard's primary, and one for DNS names.

use serde_json::{Value, json};

use super::labels::{CLUSTER, ROLE, SHARD};
use super::{BUS_PORT, Build, Kind, METRICS_PORT, Object, PORT};
use crate::desired::{MEMCACHED_PORT, PLAIN_PORT};

pub(super) fn services(build: &Build) -> Vec<Object> {
    let mut services = vec![members(build), any(build), read(build)];
    services.extend((0..build.shards).map(|shard| primary(build, shard)));
    services
}

/// The headless Service: each pod has a DNS name in it, ready or not, because a member has to find the
/// others in order to become ready.
fn members(build: &Build) -> Object {
    let body = json!({
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": {CLUSTER: build.name()},
            "ports": [
                port(build.client_port_name(), PORT),
                port("bus", BUS_PORT),
                port("metrics", METRICS_PORT),
            ],
        },
    });
    build.object(Kind::Service, build.members_service(), true, body)
}

/// Any member with data: where a cluster client begins, and one that follows nothing stays.
fn any(build: &Build) -> Object {
    let selector = json!({CLUSTER: build.name(), "app.kubernetes.io/component": "data"});
    let mut object = service(build, build.name().to_owned(), selector);
    add_forwarding(build, &mut object);
    object
}

/// The ports where members forward: not to replicas alone, who would forward all that they are asked.
fn add_forwarding(build: &Build, object: &mut Object) {
    let Some(ports) = object.json["spec"]["ports"].as_array_mut() else { return };
    if build.desired.serves_plain() {
        ports.push(port("plain", PLAIN_PORT));
    }
    if build.desired.serves_memcached() {
        ports.push(port("memcached", MEMCACHED_PORT));
    }
}

/// Replicas, or any member where there are none.
fn read(build: &Build) -> Object {
    let mut selector = json!({CLUSTER: build.name(), "app.kubernetes.io/component": "data"});
    if build.desired.replicas > 0 {
        selector[ROLE] = json!("replica");
    }
    service(build, format!("{}-read", build.name()), selector)
}

/// The primary of one shard: the label moves with the council's word.
fn primary(build: &Build, shard: u16) -> Object {
    let selector = json!({CLUSTER: build.name(), SHARD: shard.to_string(), ROLE: "primary"});
    let mut object = service(build, format!("{}-{shard}-primary", build.name()), selector);
    add_forwarding(build, &mut object);
    object
}

fn service(build: &Build, name: String, selector: Value) -> Object {
    let body =
        json!({"spec": {"selector": selector, "ports": [port(build.client_port_name(), PORT)]}});
    build.object(Kind::Service, name, true, body)
}

fn port(name: &str, port: u16) -> Value {
    json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP"})
}
