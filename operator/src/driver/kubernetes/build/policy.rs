//! The NetworkPolicy: clients reach the clients' ports, only members and the operator reach the bus.

use serde_json::json;

use super::labels::CLUSTER;
use super::{BUS_PORT, Build, Kind, METRICS_PORT, Object, PORT};
use crate::desired::{MEMCACHED_PORT, PLAIN_PORT};

/// The bus is mutually authenticated anyway; the policy keeps strangers from even knocking.
pub(super) fn policy(build: &Build) -> Object {
    let mut open = vec![PORT, METRICS_PORT];
    open.extend(build.desired.serves_plain().then_some(PLAIN_PORT));
    open.extend(build.desired.serves_memcached().then_some(MEMCACHED_PORT));
    let open: Vec<_> = open.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
    let body = json!({
        "spec": {
            "podSelector": {"matchLabels": {CLUSTER: build.name()}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": open},
                {
                    "from": [
                        {"podSelector": {"matchLabels": {CLUSTER: build.name()}}},
                        {
                            "namespaceSelector": {},
                            "podSelector": {
                                "matchLabels": {"app.kubernetes.io/name": "larder-operator"},
                            },
                        },
                    ],
                    "ports": [{"port": BUS_PORT, "protocol": "TCP"}],
                },
            ],
        },
    });
    build.object(Kind::NetworkPolicy, build.name().to_owned(), true, body)
}
