//! kind, for people with Docker: three workers in containers.
//!
//! On Linux the containers' addresses can be reached from here, and with a route per worker so can the pods'.

use super::{Fault, Provider, Wire};
use crate::failure::{Context, Result};
use crate::{own, sh, tools};
use serde_json::json;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "larder-e2e";
const CONTROL_PLANE: &str = "larder-e2e-control-plane";

pub(super) struct Kind;

impl Provider for Kind {
    fn name(&self) -> &'static str {
        "kind"
    }

    fn up(&self) -> Result {
        crate::ensure!(sh::find_program("kind").is_some(), "kind is not installed");
        self.down()?;
        let config = json!({
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": [{"role": "control-plane"}, {"role": "worker"}, {"role": "worker"}, {"role": "worker"}],
        });
        let mut create = Command::new("kind");
        create.args([
            "create",
            "cluster",
            "--name",
            NAME,
            "--wait",
            "180s",
            "--config",
            "-",
            "--kubeconfig",
        ]);
        sh::feed(create.arg(self.kubeconfig()), &config.to_string())?;
        for line in self.kubectl(&["get", "nodes", "-o", PODS_AND_ADDRESS])?.lines() {
            if let Some((pods, address)) = line.split_once(' ') {
                // Without the right to set routes, tests that reach for pods are skipped.
                sh!("ip", "route", "replace", pods, "via", address).ok();
            }
        }
        Ok(())
    }

    fn down(&self) -> Result {
        sh!("kind", "delete", "cluster", "--name", NAME)?;
        Ok(())
    }

    fn kubeconfig(&self) -> PathBuf {
        tools::cache().unwrap_or_default().join("kind.kubeconfig")
    }

    fn load_image(&self, archive: &Path) -> Result {
        sh!("kind", "load", "image-archive", "--name", NAME, archive)?;
        Ok(())
    }

    fn cannot(&self, _: Fault) -> Option<String> {
        None
    }

    fn pods_unreachable(&self) -> Option<String> {
        super::existing::unreachable_pods(self)
    }

    fn node_cut(&self, node: &str) -> Result {
        in_node(node, &["ip", "link", "set", "eth0", "down"])
    }

    fn node_impair(&self, node: &str, wire: Wire) -> Result {
        in_node(node, &["sh", "-ec", &wire.script()])
    }

    fn node_heal(&self, node: &str) -> Result {
        in_node(node, &["sh", "-ec", &Wire::mend()])?;
        in_node(node, &["ip", "link", "set", "eth0", "up"])?;
        let gateway = sh!(
            "docker",
            "network",
            "inspect",
            "kind",
            "-f",
            "{{(index .IPAM.Config 0).Gateway}}"
        )?;
        in_node(node, &["ip", "route", "replace", "default", "via", gateway.trim()])
    }

    fn node_power_off(&self, node: &str) -> Result {
        sh!("docker", "kill", node)?;
        Ok(())
    }

    fn node_power_on(&self, node: &str) -> Result {
        sh!("docker", "start", node)?;
        Ok(())
    }

    fn kubelet_stop(&self, node: &str) -> Result {
        in_node(node, &["systemctl", "stop", "kubelet"])
    }

    fn kubelet_start(&self, node: &str) -> Result {
        in_node(node, &["systemctl", "start", "kubelet"])
    }

    fn api_stop(&self) -> Result {
        in_node(
            CONTROL_PLANE,
            &["mv", "/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/"],
        )?;
        in_node(
            CONTROL_PLANE,
            &["sh", "-c", "crictl stop -t 0 $(crictl ps -q --name kube-apiserver)"],
        )
    }

    fn api_start(&self) -> Result {
        in_node(
            CONTROL_PLANE,
            &["mv", "/etc/kubernetes/kube-apiserver.yaml", "/etc/kubernetes/manifests/"],
        )
    }

    fn container_kill(&self, node: &str, container: &str) -> Result {
        let id = container.trim_start_matches("containerd://");
        in_node(node, &["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id])
    }

    fn command_on_node(&self, node: &str, program: &OsStr) -> Result<Command> {
        let pid = sh!("docker", "inspect", "-f", "{{.State.Pid}}", node)?;
        let mut command = Command::new("nsenter");
        command.args(["--target", pid.trim(), "--net"]).arg(program);
        Ok(command)
    }

    fn client_command(&self, program: &OsStr) -> Result<Command> {
        let address = self.kubectl(&[
            "-n",
            "kube-system",
            "get",
            "pods",
            "-l",
            "k8s-app=kube-dns",
            "-o",
            POD_ADDRESS,
        ])?;
        let server = address.split_whitespace().next().context("address of a DNS pod")?;
        own::command_with_dns(server, program)
    }

    fn recycle_volumes(&self) -> Result {
        Ok(())
    }
}

const PODS_AND_ADDRESS: &str =
    "jsonpath={range .items[*]}{.spec.podCIDR} {.status.addresses[0].address}{\"\\n\"}{end}";
const POD_ADDRESS: &str = "jsonpath={.items[*].status.podIP}";

fn in_node(node: &str, command: &[&str]) -> Result {
    sh::run(Command::new("docker").args(["exec", node]).args(command))?;
    Ok(())
}
