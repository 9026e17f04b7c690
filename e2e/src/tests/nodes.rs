//! The cluster itself: what the other tests take for granted.

use crate::clock::eventually;
use crate::failure::{Context, Result};
use crate::image;
use crate::provider::Wire;
use crate::world::{MANAGER, Room};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

const READY: Duration = Duration::from_secs(60);

pub(super) async fn pods_reach_each_other_by_name(room: Arc<Room>) -> Result {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 8080}]},
    });
    let services: Api<Service> = Api::namespaced(room.world.client.clone(), &room.namespace);
    services.patch("web", &PatchParams::apply(MANAGER), &Patch::Apply(service)).await?;
    let names = ["web-0", "web-1", "web-2"];
    for name in names {
        probe(&room, name, Value::Null).await?;
    }
    let pods = room.world.pods(&room.namespace);
    let mut nodes = BTreeSet::new();
    for name in names {
        nodes.insert(running(&room, name).await?);
    }
    crate::ensure!(nodes.len() == names.len(), "the pods are on {nodes:?} only");
    for from in names {
        for to in names {
            let host = format!("{to}.web.{}.svc.cluster.local", room.namespace);
            eventually("one pod reaches another", Duration::from_secs(15), || async {
                let answer = exec(&room, from, &["/probe", "get", &host, "8080"])?;
                crate::ensure!(answer.trim() == to, "{from} asked {host} and got {answer:?}");
                Ok(())
            })
            .await?;
        }
    }
    crate::ensure!(pods.get_opt("web-0").await?.is_some(), "web-0 is gone");
    Ok(())
}

pub(super) async fn volumes_bind_and_keep_data(room: Arc<Room>) -> Result {
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(room.world.client.clone(), &room.namespace);
    claims.patch("data", &PatchParams::apply(MANAGER), &Patch::Apply(claim)).await?;
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    probe(&room, "writer", volumes.clone()).await?;
    let first = running(&room, "writer").await?;
    exec(&room, "writer", &["/probe", "write", "/data/file", "kept"])?;
    room.world.fault(|provider| {
        provider.kubectl(&["-n", &room.namespace, "delete", "pod", "writer", "--now"])
    })?;
    probe(&room, "reader", volumes).await?;
    let second = running(&room, "reader").await?;
    crate::ensure!(first == second, "the volume moved from {first} to {second}");
    let text = exec(&room, "reader", &["/probe", "read", "/data/file"])?;
    crate::ensure!(text.trim() == "kept", "the volume says {text:?}");
    Ok(())
}

pub(super) async fn faults_are_made_and_undone(room: Arc<Room>) -> Result {
    probe(&room, "victim", Value::Null).await?;
    let node = running(&room, "victim").await?;
    let before = address(&room, "victim").await?;
    answers(before, true).await?;

    room.world.fault(|provider| provider.node_cut(&node))?;
    answers(before, false).await?;
    room.world.fault(|provider| provider.node_heal(&node))?;
    answers(before, true).await?;

    for wire in [Wire::Deaf, Wire::Mute, Wire::Lossy(100)] {
        room.world.fault(|provider| provider.node_impair(&node, wire))?;
        answers(before, false).await?;
        room.world.fault(|provider| provider.node_heal(&node))?;
        answers(before, true).await?;
    }

    room.world.fault(|provider| provider.api_stop())?;
    crate::ensure!(
        room.world.pods(&room.namespace).get("victim").await.is_err(),
        "the API server still answers"
    );
    answers(before, true).await?;
    room.world.fault(|provider| provider.api_start())?;

    room.world.fault(|provider| provider.kubelet_stop(&node))?;
    answers(before, true).await?;
    room.world.fault(|provider| provider.kubelet_start(&node))?;

    let pod = room.world.pods(&room.namespace).get("victim").await?;
    let containers = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    let container = containers
        .first()
        .and_then(|container| container.container_id.clone())
        .context("container")?;
    room.world.fault(|provider| provider.container_kill(&node, &container))?;
    answers(before, false).await?;
    answers(before, true).await?;

    room.world.fault(|provider| provider.node_power_off(&node))?;
    answers(before, false).await?;
    room.world.fault(|provider| provider.node_power_on(&node))?;
    eventually("the pod is back at another address", Duration::from_secs(90), || async {
        let now = address(&room, "victim").await?;
        crate::ensure!(now != before, "it is still {now}");
        answers(now, true).await
    })
    .await
}

async fn address(room: &Room, name: &str) -> Result<SocketAddr> {
    let pod = room.world.pods(&room.namespace).get(name).await?;
    let ip = pod.status.and_then(|status| status.pod_ip).context("address of the pod")?;
    Ok(SocketAddr::new(ip.parse()?, 8080))
}

/// Waits until a pod answers, or does not.
async fn answers(address: SocketAddr, wanted: bool) -> Result {
    eventually("a pod answers as expected", Duration::from_secs(30), || async {
        let connect =
            tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await;
        let answered = matches!(connect, Ok(Ok(_)));
        crate::ensure!(answered == wanted, "{address} answers: {answered}");
        Ok(())
    })
    .await
}

/// A pod of the probe image, apart from the others; `/data` is there if it has volumes.
async fn probe(room: &Room, name: &str, volumes: Value) -> Result {
    let mounts = volumes.is_array().then(|| json!([{"name": "data", "mountPath": "/data"}]));
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "hostname": name,
            "subdomain": "web",
            "terminationGracePeriodSeconds": 0,
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}},
            }],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "probe",
                "image": image::PROBE,
                "args": ["serve", "8080"],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        },
    });
    let pods = room.world.pods(&room.namespace);
    pods.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(pod)).await.context(name)?;
    Ok(())
}

/// Waits until a pod runs; returns its node.
async fn running(room: &Room, name: &str) -> Result<String> {
    let pods: Api<Pod> = room.world.pods(&room.namespace);
    eventually("pod runs", READY, || async {
        let pod = pods.get(name).await?;
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        crate::ensure!(phase == "Running", "{name} is {phase}");
        pod.spec.and_then(|spec| spec.node_name).context("node")
    })
    .await
}

fn exec(room: &Room, pod: &str, command: &[&str]) -> Result<String> {
    let mut arguments = vec!["-n", &room.namespace, "exec", pod, "--"];
    arguments.extend(command);
    room.world.fault(|provider| provider.kubectl(&arguments))
}
