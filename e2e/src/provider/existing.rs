//! Whatever cluster `KUBECONFIG` names: nothing of it is ours, so no fault is made outside of pods.
//!
//! Its nodes must be able to pull the images: `LARDER_IMAGE_REPOSITORY` says from where, see `tests::install`.

use super::{Fault, Provider, Wire};
use crate::failure::{Context, Result};
use crate::own;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(super) struct Existing {
    kubeconfig: PathBuf,
}

impl Existing {
    pub(super) fn from_environment() -> Result<Self> {
        Ok(Self { kubeconfig: std::env::var_os("KUBECONFIG").context("KUBECONFIG")?.into() })
    }
}

const WHY: &str = "the nodes of an existing cluster are not ours to break";

impl Provider for Existing {
    fn name(&self) -> &'static str {
        "existing cluster"
    }

    fn up(&self) -> Result {
        self.kubectl(&["get", "--raw", "/readyz"])?;
        Ok(())
    }

    fn down(&self) -> Result {
        Ok(())
    }

    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    fn load_image(&self, archive: &Path) -> Result {
        let told = std::env::var_os("LARDER_IMAGE_REPOSITORY").is_some();
        crate::ensure!(
            told,
            "push the images of {} to a registry and name it in LARDER_IMAGE_REPOSITORY",
            archive.display()
        );
        Ok(())
    }

    fn cannot(&self, _: Fault) -> Option<String> {
        Some(WHY.to_owned())
    }

    fn pods_unreachable(&self) -> Option<String> {
        unreachable_pods(self)
    }

    fn node_cut(&self, _: &str) -> Result {
        crate::fail!("{WHY}")
    }

    fn node_impair(&self, _: &str, _: Wire) -> Result {
        crate::fail!("{WHY}")
    }

    fn node_heal(&self, _: &str) -> Result {
        crate::fail!("{WHY}")
    }

    fn node_power_off(&self, _: &str) -> Result {
        crate::fail!("{WHY}")
    }

    fn node_power_on(&self, _: &str) -> Result {
        crate::fail!("{WHY}")
    }

    fn kubelet_stop(&self, _: &str) -> Result {
        crate::fail!("{WHY}")
    }

    fn kubelet_start(&self, _: &str) -> Result {
        crate::fail!("{WHY}")
    }

    fn api_stop(&self) -> Result {
        crate::fail!("{WHY}")
    }

    fn api_start(&self) -> Result {
        crate::fail!("{WHY}")
    }

    fn container_kill(&self, _: &str, _: &str) -> Result {
        crate::fail!("{WHY}")
    }

    fn command_on_node(&self, _: &str, _: &OsStr) -> Result<Command> {
        crate::fail!("{WHY}")
    }

    fn client_command(&self, program: &OsStr) -> Result<Command> {
        let path = "jsonpath={.items[*].status.podIP}";
        let address = self.kubectl(&[
            "-n",
            "kube-system",
            "get",
            "pods",
            "-l",
            "k8s-app=kube-dns",
            "-o",
            path,
        ])?;
        own::command_with_dns(
            address.split_whitespace().next().context("address of a DNS pod")?,
            program,
        )
    }

    fn recycle_volumes(&self) -> Result {
        Ok(())
    }
}

/// Tries a DNS pod: every cluster has one.
pub(super) fn unreachable_pods(provider: &dyn Provider) -> Option<String> {
    let path = "jsonpath={.items[*].status.podIP}";
    let list = provider.kubectl(&[
        "-n",
        "kube-system",
        "get",
        "pods",
        "-l",
        "k8s-app=kube-dns",
        "-o",
        path,
    ]);
    let list = match list {
        Ok(list) => list,
        Err(failure) => return Some(failure.to_string()),
    };
    let reached = list.split_whitespace().filter_map(|ip| ip.parse::<IpAddr>().ok()).any(|ip| {
        TcpStream::connect_timeout(&SocketAddr::new(ip, 53), Duration::from_secs(1)).is_ok()
    });
    (!reached).then(|| "pod addresses cannot be reached from this machine".to_owned())
}
