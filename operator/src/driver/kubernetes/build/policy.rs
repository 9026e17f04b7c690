//! The NetworkPolicy: clients reach the client port, only members and the operator reach the bus.

use serde_json::json;

use super::labels::CLUSTER;
use super::{BUS_PORT, Build, Kind, METRICS_PORT, Object, PORT};

/// The bus is mutually authenticated anyway; the policy keeps strangers from even knocking.
pub(super) fn policy(build: &Build) -> Object {
    let body = json!({
        "spec": {
            "podSelector": {"matchLabels": {CLUSTER: build.name()}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [
                    {"port": PORT, "protocol": "TCP"},
                    {"port": METRICS_PORT, "protocol": "TCP"},
                ]},
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
