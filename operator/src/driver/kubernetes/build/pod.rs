//! The pod of one member: restricted, spread over nodes, the engine as its only container.

use serde_json::{Value, json};

use super::config_map::{DATA_DIR, DIR, GIVEN_TLS, config_map_name};
use super::labels::{self, CLUSTER, INDEX, SHARD, TEMPLATE};
use super::{BUS_PORT, Build, Kind, METRICS_PORT, Object, PORT, generated_auth_name, tls_name};
use crate::desired::{self, MEMCACHED_PORT, PLAIN_PORT, Seat};

/// The user that the engine runs as: nobody in particular, and not root.
const USER: u32 = 65532;
/// How long a pod stays bound to a node that does not answer: the council has long failed over, so
/// that only a new replica is waited for.
const LOST_NODE_SECONDS: u32 = 60;
const MIB: u64 = 1 << 20;
/// Tolerations that every pod has, before those of the manifest.
pub const OWN_TOLERATIONS: usize = SILENT_NODE.len();
/// What a node has that does not answer.
const SILENT_NODE: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

impl Build<'_> {
    /// The pod of a seat.
    pub fn pod(&self, seat: Seat) -> Object {
        let spec = &self.cluster.spec;
        let name = seat.name(self.name());
        let mut body = json!({
            "metadata": {"labels": labels::member(seat), "annotations": {}},
            "spec": {
                "hostname": name,
                "subdomain": self.members_service(),
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": USER,
                    "runAsGroup": USER,
                    "fsGroup": USER,
                    "fsGroupChangePolicy": "OnRootMismatch",
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "affinity": self.affinity(seat),
                "topologySpreadConstraints": self.spread(),
                "tolerations": self.tolerations(),
                "containers": [self.engine(seat)],
                "volumes": [self.data_volume(seat), self.config_volume()],
            },
        });
        super::merge(&mut body["metadata"]["labels"], json!(spec.labels));
        super::merge(&mut body["metadata"]["annotations"], json!(spec.annotations));
        let template = fingerprint(&body, &self.desired.at_start_hash());
        body["metadata"]["annotations"][TEMPLATE] = json!(template);
        self.object(Kind::Pod, name, true, body)
    }

    fn engine(&self, seat: Seat) -> Value {
        let spec = &self.cluster.spec;
        let image = spec.image.as_deref().unwrap_or(&self.settings.engine_image);
        let host = self.host("$(POD_NAME)");
        let mut container = json!({
            "name": "engine",
            "image": image,
            // The command is the image's own entry point, larder-server.
            "args": [
                format!("{DIR}/larder.conf"),
                "--larder-name", "$(POD_NAME)",
                "--larder-host", host,
                "--larder-node", "$(NODE_NAME)",
                "--cluster-announce-hostname", host,
            ],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
            "ports": [
                {"name": self.client_port_name(), "containerPort": PORT, "protocol": "TCP"},
                {"name": "bus", "containerPort": BUS_PORT, "protocol": "TCP"},
                {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
            ],
            // What it said at its end is told in the status: an engine that refuses its configuration
            // says which line.
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "livenessProbe": {
                "httpGet": {"path": "/healthz", "port": "metrics"},
                "periodSeconds": 10,
                "timeoutSeconds": 5,
                "failureThreshold": 6,
            },
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": "metrics"},
                "periodSeconds": 2,
                "timeoutSeconds": 2,
                "failureThreshold": 2,
            },
            "resources": self.resources(),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "data", "mountPath": DATA_DIR},
                {"name": "config", "mountPath": DIR, "readOnly": true},
            ],
        });
        let more = [
            ("plain", self.desired.serves_plain(), PLAIN_PORT),
            ("memcached", self.desired.serves_memcached(), MEMCACHED_PORT),
        ];
        for (name, _, port) in more.into_iter().filter(|(_, is_served, _)| *is_served) {
            if let Some(ports) = container["ports"].as_array_mut() {
                ports.push(json!({"name": name, "containerPort": port, "protocol": "TCP"}));
            }
        }
        if let (Seat::Witness { .. }, Some(args)) = (seat, container["args"].as_array_mut()) {
            args.extend([json!("--larder-witness"), json!("yes")]);
        }
        if let Some(policy) = spec.image_pull_policy {
            container["imagePullPolicy"] = json!(policy.as_str());
        }
        container
    }

    /// What the manifest says, or the data and a quarter more, and 96 MiB for code, buffers and clients.
    fn resources(&self) -> Value {
        if let Some(resources) = &self.cluster.spec.resources {
            return json!(resources);
        }
        let data = crds::quantity::bytes(&self.cluster.spec.memory).unwrap_or(256 * MIB);
        let limit = data.saturating_add(data / 4).saturating_add(96 * MIB).div_ceil(MIB);
        let memory = format!("{limit}Mi");
        json!({"requests": {"cpu": "100m", "memory": memory}, "limits": {"memory": memory}})
    }

    /// Members of a shard on different nodes and zones, then members with the same index, so that the
    /// first primaries are spread too. Preferred only: a small cluster must still be scheduled.
    fn affinity(&self, seat: Seat) -> Value {
        if let Some(affinity) = &self.cluster.spec.affinity {
            return json!(affinity);
        }
        let apart = |weight: u32, topology: &str, labels: Value| {
            json!({
                "weight": weight,
                "podAffinityTerm": {
                    "topologyKey": topology,
                    "labelSelector": {"matchLabels": labels},
                },
            })
        };
        let node = "kubernetes.io/hostname";
        let terms = match seat {
            Seat::Data { shard, index } => {
                let same_shard = json!({CLUSTER: self.name(), SHARD: shard.to_string()});
                let same_index = json!({CLUSTER: self.name(), INDEX: index.to_string()});
                vec![
                    apart(100, node, same_shard.clone()),
                    apart(50, "topology.kubernetes.io/zone", same_shard),
                    apart(30, node, same_index),
                ]
            }
            Seat::Witness { .. } => vec![apart(100, node, json!({CLUSTER: self.name()}))],
        };
        json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}})
    }

    fn spread(&self) -> Value {
        let given = &self.cluster.spec.topology_spread_constraints;
        if !given.is_empty() {
            return json!(given);
        }
        json!([{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {CLUSTER: self.name()}},
        }])
    }

    fn tolerations(&self) -> Value {
        let mut all = vec![];
        for key in SILENT_NODE {
            all.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": LOST_NODE_SECONDS,
            }));
        }
        all.extend(self.cluster.spec.tolerations.iter().map(|t| json!(t)));
        json!(all)
    }

    fn data_volume(&self, seat: Seat) -> Value {
        if self.volume().is_some() {
            let claim = json!({"claimName": self.volume_name(seat)});
            json!({"name": "data", "persistentVolumeClaim": claim})
        } else {
            json!({"name": "data", "emptyDir": {}})
        }
    }

    /// Configuration, certificate and password in one place. A password is a file, so that no list of
    /// processes shows it.
    fn config_volume(&self) -> Value {
        let item = |key: &str, path: &str| json!({"key": key, "path": path});
        let mut sources = vec![
            json!({"configMap": {
                "name": config_map_name(self),
                "items": [item("larder.conf", "larder.conf")],
            }}),
            json!({"secret": {
                "name": tls_name(self.name()),
                "items": [
                    item("ca.crt", "tls/ca.crt"),
                    item("tls.crt", "tls/tls.crt"),
                    item("tls.key", "tls/tls.key"),
                ],
            }}),
        ];
        if let Some(name) = self.given_tls() {
            let file = |key: &str| item(key, &format!("{GIVEN_TLS}/{key}"));
            sources.push(json!({"secret": {
                "name": name,
                "items": [file("ca.crt"), file("tls.crt"), file("tls.key")],
            }}));
        }
        if !self.auth_disabled() {
            sources.push(json!({"secret": {
                "name": generated_auth_name(self.name()),
                "items": [item("auth.conf", "auth/auth.conf")],
            }}));
        }
        json!({"name": "config", "projected": {"defaultMode": 0o440, "sources": sources}})
    }
}

/// The fingerprint in a pod's annotations; a pod without one is nobody's.
pub fn template_of(pod: &k8s_openapi::api::core::v1::Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(TEMPLATE).map(String::as_str)
}

/// What a pod is made from, in short: two pods with the same one need no restart.
fn fingerprint(body: &Value, at_start: &str) -> String {
    desired::hash([("pod", body.to_string().as_str()), ("at-start", at_start)].into_iter())
}
