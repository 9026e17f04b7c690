//! The harness's own Kubernetes: three nodes on this machine, nothing mocked.
//!
//! Every step is idempotent enough that `down` after an `up` that failed half-way leaves nothing behind.

mod cgroup;
mod control;
pub mod layout;
mod node;
mod objects;
mod pki;

use crate::clock::{self, eventually_blocking, seconds};
use crate::failure::{Context, Failure, Result};
use crate::{image, sh, tools};
use layout::Node;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub use control::kubectl;

/// Why this machine cannot run it, if it cannot.
pub fn impossible() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("own nodes need Linux".to_owned());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    (!root).then(|| "own nodes need root".to_owned())
}

/// Whether a cluster is up, as far as its files tell.
pub fn is_up() -> bool {
    sh::daemon_pid(&layout::host().join("kube-apiserver.pid")).is_some()
}

/// There is one such cluster per machine: whoever holds this may use it.
pub fn lock() -> Result<fs::File> {
    let file = fs::File::create(tools::cache()?.join("cluster.lock"))?;
    file.try_lock()
        .map_err(|_| Failure::new("another run of the harness uses this machine's cluster"))?;
    Ok(file)
}

/// Boots everything and waits until pods can run; each stage's time is printed.
pub fn up() -> Result {
    tools::packages()?;
    for tool in [&tools::KUBERNETES, &tools::ETCD, &tools::COREDNS] {
        tool.folder()?;
    }
    down()?;
    let start = clock::now();
    let stage = |name: &str| println!("  {:>6}  {name}", seconds(start.elapsed()));

    fs::create_dir_all(layout::host())?;
    for node in Node::all() {
        fs::create_dir_all(node.folder())?;
    }
    pki::write()?;
    node::create_bridge()?;
    let base = image::base(&layout::state())?;
    stage("certificates, bridge, base images");

    std::thread::scope(|scope| {
        let control = scope.spawn(|| {
            control::start_etcd()?;
            control::start_api()?;
            control::wait_for_api(Duration::from_secs(90))?;
            stage("API server");
            control::start_controllers()?;
            control::apply(&objects::all())?;
            stage("DNS, storage class and volumes applied");
            Ok(())
        });
        let nodes: Vec<_> = Node::all()
            .map(|node| {
                let base = &base;
                scope.spawn(move || {
                    node::create(node)?;
                    node::load(node, base)?;
                    control::wait_for_api(Duration::from_secs(90))?;
                    node::start_kubernetes(node)
                })
            })
            .collect();
        for thread in nodes.into_iter().chain([control]) {
            thread.join().unwrap_or_else(|_| Err(Failure::new("a thread of the boot panicked")))?;
        }
        Ok::<_, Failure>(())
    })?;
    stage("nodes started");
    node::route_services(Node(1))?;
    wait_ready(Duration::from_secs(120))?;
    stage("nodes Ready, DNS answers");
    Ok(())
}

/// Waits until all nodes are Ready and DNS has all its pods.
pub fn wait_ready(limit: Duration) -> Result {
    eventually_blocking("nodes and DNS", limit, || {
        let ready = "{range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status} {end}";
        let nodes = kubectl(&["get", "nodes", "-o", &format!("jsonpath={ready}")])?;
        let count = nodes.split_whitespace().filter(|status| *status == "True").count();
        crate::ensure!(count == layout::NODES, "{count} of {} nodes are Ready", layout::NODES);
        let path = "jsonpath={.status.readyReplicas}";
        let dns = kubectl(&["-n", "kube-system", "get", "deployment", "coredns", "-o", path])?;
        crate::ensure!(dns.trim() == "2", "{} of 2 DNS pods are ready", dns.trim());
        Ok(())
    })
}

/// Takes everything down that `up` made, however far it came.
pub fn down() -> Result {
    if !layout::state().is_dir() {
        return Ok(());
    }
    control::stop_controllers()?;
    control::stop_api()?;
    std::thread::scope(|scope| {
        let nodes: Vec<_> =
            Node::all().map(|node| scope.spawn(move || node::remove(node))).collect();
        for thread in nodes {
            thread.join().unwrap_or_else(|_| Err(Failure::new("a thread panicked")))?;
        }
        Ok::<_, Failure>(())
    })?;
    control::stop_etcd()?;
    sh!("ip", "link", "del", layout::BRIDGE).ok();
    fs::remove_dir_all(layout::state()).context("state folder")?;
    Ok(())
}

/// Loads an image archive into all nodes at once.
pub fn load_image(archive: &Path) -> Result {
    std::thread::scope(|scope| {
        let loads: Vec<_> =
            Node::all().map(|node| scope.spawn(move || node::load(node, archive))).collect();
        for load in loads {
            load.join().unwrap_or_else(|_| Err(Failure::new("a thread panicked")))?;
        }
        Ok(())
    })
}

/// Cuts a node's wire: its pods live on, unseen.
pub fn node_cut(name: &str) -> Result {
    let cut = find(name)?;
    // The host reaches Services through a node that stays.
    let other = Node::all().find(|node| *node != cut).context("another node")?;
    node::route_services(other)?;
    node::cut(cut)
}

/// Makes a node's wire bad, by commands in its network.
pub fn node_impair(name: &str, script: &str) -> Result {
    let bad = find(name)?;
    let other = Node::all().find(|node| *node != bad).context("another node")?;
    node::route_services(other)?;
    node::in_network(bad, script)
}

/// The wire is there again, and good: `mend` takes back what made it bad.
pub fn node_heal(name: &str, mend: &str) -> Result {
    let node = find(name)?;
    node::in_network(node, mend)?;
    node::heal(node)
}

pub fn node_power_off(name: &str) -> Result {
    let off = find(name)?;
    let other = Node::all().find(|node| *node != off).context("another node")?;
    node::route_services(other)?;
    node::power_off(off)
}

pub fn node_power_on(name: &str) -> Result {
    node::power_on(find(name)?)?;
    node::start_kubernetes(find(name)?)
}

pub fn kubelet_stop(name: &str) -> Result {
    node::stop_kubelet(find(name)?)
}

pub fn kubelet_start(name: &str) -> Result {
    node::start_kubelet(find(name)?)
}

pub fn api_stop() -> Result {
    control::stop_api()
}

pub fn api_start() -> Result {
    control::start_api()?;
    control::wait_for_api(Duration::from_secs(60))
}

/// Brings back whatever a fault took away.
pub fn repair(mend: &str) -> Result {
    if !is_up() {
        api_start()?;
    }
    for node in Node::all() {
        if !node::has_power(node) {
            node::power_on(node)?;
            node::start_kubernetes(node)?;
        }
        node::in_network(node, mend)?;
        node::heal(node)?;
        if !node::kubelet_runs(node) {
            node::start_kubelet(node)?;
        }
    }
    wait_ready(Duration::from_secs(120))
}

/// A command in a node's network: a client that stays with the node when it is cut off.
pub fn command_on_node(name: &str, program: &OsStr) -> Result<Command> {
    Ok(node::command_in_network(find(name)?, program))
}

/// Kills a pod's container by its process, as an engine that crashes.
pub fn kill_container(node_name: &str, container_id: &str) -> Result {
    let id = container_id.trim_start_matches("containerd://");
    node::ctr(find(node_name)?, &["tasks", "kill", "--signal", "SIGKILL", id])?;
    Ok(())
}

/// Plays the volume provisioner: volumes whose claim is gone are emptied and offered again.
pub fn recycle_volumes() -> Result<usize> {
    let format =
        "jsonpath={range .items[?(@.status.phase==\"Released\")]}{.metadata.name}{\"\\n\"}{end}";
    let released = kubectl(&["get", "pv", "-o", format])?;
    let mut fresh = Vec::new();
    for name in released.lines().filter(|line| !line.is_empty()) {
        let (node, number) = name.rsplit_once('-').context(name)?;
        let (node, number) = (find(node)?, number.parse().context(name)?);
        fs::remove_dir_all(node.volume(number)).ok();
        fs::create_dir_all(node.volume(number))?;
        kubectl(&["delete", "pv", name, "--wait=true"])?;
        fresh.push(objects::volume(node, number));
    }
    let count = fresh.len();
    if count > 0 {
        control::apply(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": fresh}))?;
    }
    Ok(count)
}

fn find(name: &str) -> Result<Node> {
    Node::named(name).context(format!("node {name}"))
}

/// A program on the host that resolves the cluster's names.
pub fn client_command(program: &OsStr) -> Result<Command> {
    command_with_dns(layout::DNS_SERVICE, program)
}

/// A program with another resolver, in a mount namespace of its own: the machine's stays as it is.
pub fn command_with_dns(server: &str, program: &OsStr) -> Result<Command> {
    let file = tools::cache()?.join(format!("resolv-{server}.conf"));
    fs::write(&file, format!("nameserver {server}\noptions timeout:1 attempts:2\n"))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount --bind \"$0\" \"$(readlink -f /etc/resolv.conf)\" && exec \"$@\"");
    command.arg(file).arg(program);
    Ok(command)
}
