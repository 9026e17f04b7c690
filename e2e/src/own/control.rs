//! The control plane on the host: etcd in memory, the API server, the controller manager, the scheduler.

use super::layout::{API_PORT, ETCD, ETCD_PEER, HOST, SERVICES, host, kubeconfig, pki, state};
use crate::clock::eventually_blocking;
use crate::failure::Result;
use crate::{sh, tools};
use std::fs;
use std::process::Command;
use std::time::Duration;

pub(super) fn start_etcd() -> Result {
    let data = state().join("etcd");
    fs::create_dir_all(&data)?;
    sh!("mount", "-t", "tmpfs", "-o", "size=1g,mode=0700", "larder-e2e", data)?;
    sh::daemon(
        &host(),
        "etcd",
        Command::new(tools::ETCD.program("etcd")?)
            .args(["--unsafe-no-fsync", "--log-level", "error", "--data-dir"])
            .arg(data.join("data"))
            .args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD])
            .args(["--listen-peer-urls", ETCD_PEER, "--initial-advertise-peer-urls", ETCD_PEER])
            .args(["--initial-cluster", &format!("default={ETCD_PEER}")]),
    )?;
    Ok(())
}

pub(super) fn stop_etcd() -> Result {
    sh::kill_daemon(&host().join("etcd.pid"))?;
    let data = state().join("etcd");
    if data.is_dir() && sh!("mountpoint", "-q", data).is_ok() {
        // A killed process gives its files back in its own time.
        eventually_blocking("end of etcd's folder", Duration::from_secs(20), || {
            sh!("umount", data)?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Starts the API server; `wait_for_api` tells when it serves.
pub(super) fn start_api() -> Result {
    let file = |name: &str| pki().join(name).display().to_string();
    let flags = [
        ("advertise-address", HOST.to_owned()),
        ("bind-address", HOST.to_owned()),
        ("secure-port", API_PORT.to_string()),
        ("etcd-servers", ETCD.to_owned()),
        ("client-ca-file", file("ca.crt")),
        ("tls-cert-file", file("apiserver.crt")),
        ("tls-private-key-file", file("apiserver.key")),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
        ("service-account-key-file", file("service-accounts.pub")),
        ("service-account-signing-key-file", file("service-accounts.key")),
        ("service-cluster-ip-range", SERVICES.to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("kubelet-client-certificate", file("apiserver-kubelet.crt")),
        ("kubelet-client-key", file("apiserver-kubelet.key")),
        // Exec and logs look up the node's name otherwise, which nothing resolves.
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("event-ttl", "1h".to_owned()),
    ];
    start("kube-apiserver", &flags)
}

pub(super) fn stop_api() -> Result {
    sh::kill_daemon(&host().join("kube-apiserver.pid"))
}

pub(super) fn wait_for_api(limit: Duration) -> Result {
    eventually_blocking("API server", limit, || {
        kubectl(&["get", "--raw", "/readyz"])?;
        Ok(())
    })
}

pub(super) fn start_controllers() -> Result {
    let file = |name: &str| pki().join(name).display().to_string();
    start(
        "kube-controller-manager",
        &[
            ("kubeconfig", file("controller-manager.kubeconfig")),
            ("bind-address", HOST.to_owned()),
            ("service-account-private-key-file", file("service-accounts.key")),
            ("root-ca-file", file("ca.crt")),
            ("cluster-signing-cert-file", file("ca.crt")),
            ("cluster-signing-key-file", file("ca.key")),
            ("use-service-account-credentials", "true".to_owned()),
            ("leader-elect", "false".to_owned()),
            // A node that is gone is noticed in 20 s instead of 50: tests wait for it.
            ("node-monitor-period", "2s".to_owned()),
            ("node-monitor-grace-period", "20s".to_owned()),
        ],
    )?;
    start(
        "kube-scheduler",
        &[
            ("kubeconfig", file("scheduler.kubeconfig")),
            ("bind-address", HOST.to_owned()),
            ("leader-elect", "false".to_owned()),
        ],
    )
}

pub(super) fn stop_controllers() -> Result {
    sh::kill_daemon(&host().join("kube-controller-manager.pid"))?;
    sh::kill_daemon(&host().join("kube-scheduler.pid"))
}

fn start(program: &str, flags: &[(&str, String)]) -> Result {
    let flags = flags.iter().map(|(name, value)| format!("--{name}={value}"));
    sh::daemon(&host(), program, Command::new(tools::KUBERNETES.program(program)?).args(flags))?;
    Ok(())
}

/// kubectl against the own cluster, as its administrator.
pub fn kubectl(arguments: &[&str]) -> Result<String> {
    sh::run(
        Command::new(tools::KUBERNETES.program("kubectl")?)
            .arg("--kubeconfig")
            .arg(kubeconfig())
            .args(arguments),
    )
}

/// Applies manifests given as JSON.
pub(super) fn apply(manifests: &serde_json::Value) -> Result {
    let mut command = Command::new(tools::KUBERNETES.program("kubectl")?);
    command.arg("--kubeconfig").arg(kubeconfig()).args(["apply", "--server-side", "-f", "-"]);
    sh::feed(&mut command, &manifests.to_string())?;
    Ok(())
}
