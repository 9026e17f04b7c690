//! Where everything of the harness's own cluster is: addresses, names, folders.
//!
//! ```text
//!   host  172.31.240.1   etcd, API server, controller manager, scheduler; the tests
//!     |
//!   larder0 (bridge)
//!     |-- node-1  172.31.240.11   pods 10.240.1.0/24
//!     |-- node-2  172.31.240.12   pods 10.240.2.0/24
//!     `-- node-3  172.31.240.13   pods 10.240.3.0/24      Services 10.241.0.0/16 on each
//! ```

use std::path::PathBuf;

pub const NODES: usize = 3;
pub const BRIDGE: &str = "larder0";
pub const HOST: &str = "172.31.240.1";
pub const NODE_NET: &str = "172.31.240.0/24";
pub const PODS: &str = "10.240.0.0/16";
pub const SERVICES: &str = "10.241.0.0/16";
pub const API_SERVICE: &str = "10.241.0.1";
pub const DNS_SERVICE: &str = "10.241.0.10";
pub const API_PORT: u16 = 6443;
pub const ETCD: &str = "http://127.0.0.1:12379";
pub const ETCD_PEER: &str = "http://127.0.0.1:12380";
pub const VOLUMES_PER_NODE: usize = 12;
pub const VOLUME_SIZE: &str = "10Gi";

/// The folder with everything that belongs to a running cluster. There is one per machine.
pub fn state() -> PathBuf {
    std::env::var_os("LARDER_E2E_STATE")
        .map_or_else(|| PathBuf::from("/var/tmp/larder-e2e"), PathBuf::from)
}

pub fn pki() -> PathBuf {
    state().join("pki")
}

/// Pid files and logs of what runs on the host.
pub fn host() -> PathBuf {
    state().join("host")
}

pub fn kubeconfig() -> PathBuf {
    state().join("kubeconfig")
}

pub fn api_url() -> String {
    format!("https://{HOST}:{API_PORT}")
}

/// Node `number`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub usize);

impl Node {
    pub fn all() -> impl Iterator<Item = Node> {
        (1..=NODES).map(Node)
    }

    pub fn named(name: &str) -> Option<Node> {
        Node::all().find(|node| node.name() == name)
    }

    pub fn name(self) -> String {
        format!("node-{}", self.0)
    }

    pub fn zone(self) -> String {
        format!("zone-{}", self.0)
    }

    pub fn address(self) -> String {
        format!("172.31.240.{}", 10 + self.0)
    }

    pub fn pods(self) -> String {
        format!("10.240.{}.0/24", self.0)
    }

    /// The network namespace, and also the host's end of the node's veth pair.
    pub fn link(self) -> String {
        format!("larder-n{}", self.0)
    }

    pub fn folder(self) -> PathBuf {
        state().join(format!("n{}", self.0))
    }

    pub fn socket(self) -> String {
        self.folder().join("containerd.sock").display().to_string()
    }

    pub fn cgroup(self) -> String {
        format!("/larder-e2e/n{}", self.0)
    }

    pub fn volume(self, number: usize) -> PathBuf {
        self.folder().join("volumes").join(number.to_string())
    }
}
