//! One node: a network, mount and process namespace with containerd, a kubelet and kube-proxy in it.
//!
//! The namespaces hang on one process, the node's init. Killing it is a power loss: the kernel kills everything in its
//! process namespace, pods included, and drops all mounts with its mount namespace. So nothing has to be hunted down.
//! It is a shell, because it must reap the orphans that containerd's shims leave.
//!
//! `/var/lib/kubelet` is a fixed path in the kubelet (device plugins), so each node binds a folder of its own over it.

use super::cgroup;
use super::layout::{BRIDGE, DNS_SERVICE, HOST, Node, PODS, SERVICES, pki};
use crate::clock::eventually_blocking;
use crate::failure::{Context, Result};
use crate::{image, sh, tools};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Folders on the host that a node covers with its own.
const COVERED: &[&str] =
    &["/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers", RUN];

/// Where containerd's shims and runc keep their sockets and state.
const RUN: &str = "/run/containerd";

/// Makes the node's wire, namespaces and files, and starts containerd. Needs no API server.
pub(super) fn create(node: Node) -> Result {
    for covered in COVERED {
        fs::create_dir_all(covered)?;
        fs::create_dir_all(inner(node, covered))?;
    }
    for number in 1..=super::layout::VOLUMES_PER_NODE {
        fs::create_dir_all(node.volume(number))?;
    }
    write_configs(node)?;
    wire(node)?;
    power_on(node)
}

/// Starts the node's init and containerd, as a machine that boots.
pub(super) fn power_on(node: Node) -> Result {
    cgroup::create(node)?;
    // What a real node has in /run is gone after a boot.
    for run in [node.folder().join("run"), inner(node, RUN)] {
        fs::remove_dir_all(&run).ok();
        fs::create_dir_all(&run)?;
    }
    let binds = COVERED
        .iter()
        .map(|covered| format!("mount --bind {} {covered}\n", inner(node, covered).display()));
    let script = format!(
        "set -e\ntrap '' TERM INT HUP\n{}mount --make-rshared /var/lib/kubelet\nip link set lo up\n\
         touch {}\nsleep infinity &\nwait\n",
        binds.collect::<String>(),
        ready_file(node).display(),
    );
    fs::remove_file(ready_file(node)).ok();
    sh::daemon(
        &node.folder(),
        "init",
        Command::new("nsenter").arg(format!("--net=/run/netns/{}", node.link())).args([
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
            "bash",
            "-c",
            &script,
        ]),
    )?;
    eventually_blocking("init of a node", Duration::from_secs(10), || {
        crate::ensure!(ready_file(node).exists(), "{} is not ready", node.name());
        Ok(())
    })?;
    let config = node.folder().join("containerd.toml");
    start(
        node,
        "containerd",
        &["containerd".to_owned(), "--config".to_owned(), config.display().to_string()],
    )?;
    eventually_blocking("containerd", Duration::from_secs(20), || {
        ctr(node, &["version"])?;
        Ok(())
    })
}

/// Kills everything on the node at once.
pub(super) fn power_off(node: Node) -> Result {
    sh::kill_daemon(&node.folder().join("init.pid"))?;
    eventually_blocking("end of all processes of a node", Duration::from_secs(20), || {
        let left = cgroup::processes(node);
        crate::ensure!(left.is_empty(), "{}: {left:?}", node.name());
        Ok(())
    })?;
    cgroup::clear(node);
    Ok(())
}

/// Starts the kubelet and kube-proxy: the node registers itself.
pub(super) fn start_kubernetes(node: Node) -> Result {
    start_kubelet(node)?;
    let config = node.folder().join("kube-proxy.json").display().to_string();
    let program = tools::KUBERNETES.program("kube-proxy")?.display().to_string();
    start(node, "kube-proxy", &[program, "--config".to_owned(), config])
}

pub(super) fn start_kubelet(node: Node) -> Result {
    let file = |name: &str| node.folder().join(name).display().to_string();
    let program = tools::KUBERNETES.program("kubelet")?.display().to_string();
    let kubeconfig = pki().join(format!("{}.kubeconfig", node.name())).display().to_string();
    start(
        node,
        "kubelet",
        &[
            program,
            format!("--config={}", file("kubelet.json")),
            format!("--kubeconfig={kubeconfig}"),
            format!("--hostname-override={}", node.name()),
            format!("--node-ip={}", node.address()),
            format!(
                "--node-labels=topology.kubernetes.io/zone={},topology.kubernetes.io/region=here",
                node.zone()
            ),
        ],
    )
}

/// Stops the kubelet alone: the API hears nothing, the pods go on.
pub(super) fn stop_kubelet(node: Node) -> Result {
    let inner_pid =
        fs::read_to_string(node.folder().join("kubelet.inner")).context("kubelet of a node")?;
    let kill = ["kill".to_owned(), "-KILL".to_owned(), inner_pid.trim().to_owned()];
    sh::run(Command::new("nsenter").args(enter(node, &["--pid"])?).args(kill))?;
    Ok(())
}

pub(super) fn has_power(node: Node) -> bool {
    sh::daemon_pid(&node.folder().join("init.pid")).is_some()
}

/// The process on the host that entered the node ends with the kubelet.
pub(super) fn kubelet_runs(node: Node) -> bool {
    sh::daemon_pid(&node.folder().join("kubelet.pid")).is_some()
}

pub(super) fn cut(node: Node) -> Result {
    sh!("ip", "link", "set", node.link(), "down")?;
    Ok(())
}

pub(super) fn heal(node: Node) -> Result {
    sh!("ip", "link", "set", node.link(), "up")?;
    routes_to(node)
}

/// Runs a shell's commands in the node's network.
pub(super) fn in_network(node: Node, script: &str) -> Result {
    let network = format!("--net=/run/netns/{}", node.link());
    sh::run(Command::new("nsenter").arg(network).args(["sh", "-ec", script]))?;
    Ok(())
}

/// Loads an image archive into the node's containerd.
pub(super) fn load(node: Node, archive: &std::path::Path) -> Result {
    ctr(node, &["images", "import", &archive.display().to_string()])?;
    Ok(())
}

pub(super) fn ctr(node: Node, arguments: &[&str]) -> Result<String> {
    sh::run(
        Command::new("ctr")
            .args(["--address", &node.socket(), "--namespace", "k8s.io"])
            .args(arguments),
    )
}

/// A command that runs in the node's network, with the machine's own files: a client beside the pods.
pub(super) fn command_in_network(node: Node, program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", node.link())).arg(program);
    command
}

/// Takes the node down for good: processes, network, cgroups. Its folder goes with the state folder.
pub(super) fn remove(node: Node) -> Result {
    power_off(node)?;
    sh!("ip", "link", "del", node.link()).ok();
    sh!("ip", "netns", "del", node.link()).ok();
    cgroup::remove(node);
    for covered in COVERED {
        // Only if empty: then it was made as a place to mount on.
        fs::remove_dir(covered).ok();
    }
    Ok(())
}

fn inner(node: Node, covered: &str) -> PathBuf {
    node.folder().join("fs").join(covered.trim_start_matches('/').replace('/', "-"))
}

fn ready_file(node: Node) -> PathBuf {
    node.folder().join("init.ready")
}

/// Starts a program inside the node's namespaces, its process id there in `NAME.inner`.
fn start(node: Node, name: &str, command: &[String]) -> Result {
    let inner = node.folder().join(format!("{name}.inner"));
    let mut entered = Command::new("nsenter");
    entered
        .args(enter(node, &["--net", "--mount", "--pid"])?)
        .args(["sh", "-c", "echo $$ >\"$0\"; exec \"$@\""])
        .arg(inner)
        .args(command);
    sh::daemon(&node.folder(), name, &mut entered)?;
    Ok(())
}

fn enter(node: Node, namespaces: &[&str]) -> Result<Vec<String>> {
    let outer = sh::daemon_pid(&node.folder().join("init.pid"))
        .context(format!("{} has power", node.name()))?;
    let init = sh::children(outer).first().copied().context("init of a node")?;
    let mut arguments = vec!["--target".to_owned(), init.to_string()];
    arguments.extend(namespaces.iter().map(|name| (*name).to_owned()));
    arguments.push("--".to_owned());
    Ok(arguments)
}

/// The node's wire into the bridge, its address, and the ways to all pods.
fn wire(node: Node) -> Result {
    let (link, address) = (node.link(), node.address());
    sh!("ip", "netns", "add", link)?;
    sh!("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", link)?;
    sh!("ip", "link", "set", link, "master", BRIDGE, "up")?;
    let mut script = format!(
        "ip link set lo up; ip addr add {address}/24 dev eth0; ip link set eth0 up; ip route add default via {HOST};\n\
         echo 1 >/proc/sys/net/ipv4/ip_forward;\n\
         for f in all default eth0; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done;\n"
    );
    for other in Node::all().filter(|other| *other != node) {
        script += &format!("ip route add {} via {};\n", other.pods(), other.address());
    }
    in_network(node, &script)?;
    routes_to(node)
}

/// The host's routes to the node's pods; they vanish with the link.
fn routes_to(node: Node) -> Result {
    sh!("ip", "route", "replace", node.pods(), "via", node.address())?;
    Ok(())
}

fn write_configs(node: Node) -> Result {
    let folder = node.folder();
    let json =
        |name: &str, value: serde_json::Value| fs::write(folder.join(name), value.to_string());
    fs::write(folder.join("resolv.conf"), "")?;
    fs::write(folder.join("containerd.toml"), containerd_config(node)?)?;
    fs::create_dir_all(folder.join("cni"))?;
    // Point to point, not a bridge: then all traffic is routed, and Service rules see all of it.
    json(
        "cni/10-larder.conflist",
        json!({"cniVersion": "0.4.0", "name": "larder", "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local", "ranges": [[{"subnet": node.pods()}]], "routes": [{"dst": "0.0.0.0/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]}),
    )?;
    json(
        "kubelet.json",
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": pki().join("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": format!("unix://{}", node.socket()),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": node.cgroup(),
            "failCgroupV1": false,
            "failSwapOn": false,
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": "cluster.local",
            "resolvConf": folder.join("resolv.conf"),
            "enforceNodeAllocatable": ["pods"],
            "localStorageCapacityIsolation": false,
            // A full disk of the machine must not evict pods, nor delete images that no registry has.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "oomScoreAdj": 0,
            "nodeStatusUpdateFrequency": "4s",
            "nodeLeaseDurationSeconds": 10,
            "syncFrequency": "10s",
            "serializeImagePulls": false,
            "readOnlyPort": 0,
            "maxPods": 60,
        }),
    )?;
    json(
        "kube-proxy.json",
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": pki().join("proxy.kubeconfig")},
            "clusterCIDR": PODS,
            "hostnameOverride": node.name(),
            "oomScoreAdj": 0,
            // The sysctls behind these are not writable in a namespace.
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        }),
    )?;
    Ok(())
}

fn containerd_config(node: Node) -> Result<String> {
    let folder = node.folder().display().to_string();
    let plugins = tools::cni_plugins().context("CNI plugins")?.display().to_string();
    let restricted = !may_raise_priority();
    // Overlays cannot be stacked: where the folder itself is on one, layers are copied.
    let snapshotter = match sh!("stat", "-f", "-c", "%T", folder)?.trim() {
        "overlayfs" => "native",
        _ => "overlayfs",
    };
    Ok(format!(
        r#"version = 2
root = "{folder}/containerd"
state = "{folder}/run"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = {restricted}
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  max_container_log_line_size = 16384
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
        socket = node.socket(),
        pause = image::PAUSE,
    ))
}

/// CAP_SYS_RESOURCE (24): without it nothing may be given a lower OOM score, and runc dies of trying.
fn may_raise_priority() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|caps| caps >> 24 & 1 == 1)
}

/// The bridge between host and nodes, and the host's way to Services through a node.
pub(super) fn create_bridge() -> Result {
    sh!("ip", "link", "add", BRIDGE, "type", "bridge")?;
    sh!("ip", "addr", "add", format!("{HOST}/24"), "dev", BRIDGE)?;
    // Rules that others set for forwarding on this machine are not for this bridge.
    fs::write(format!("/sys/class/net/{BRIDGE}/bridge/nf_call_iptables"), "0").ok();
    sh!("ip", "link", "set", BRIDGE, "up")?;
    Ok(())
}

/// Sends the host's traffic for Services through a node.
pub(super) fn route_services(through: Node) -> Result {
    sh!("ip", "route", "replace", SERVICES, "via", through.address())?;
    Ok(())
}
