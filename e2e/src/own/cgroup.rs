//! A cgroup per node, under which its kubelet puts all pods: in every v1 hierarchy, or in the one of v2.

use super::layout::Node;
use crate::failure::Result;
use std::fs;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

/// Whether this machine has the unified hierarchy only.
pub(super) fn is_v2() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").is_file()
}

/// The hierarchies to make folders in. Named symbolic links (`cpu -> cpu,cpuacct`) are the same hierarchy twice.
fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        return vec![PathBuf::from(MOUNT)];
    }
    let entries = fs::read_dir(MOUNT).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Makes the node's folder everywhere.
pub(super) fn create(node: Node) -> Result {
    for hierarchy in hierarchies() {
        let mut folder = hierarchy.clone();
        for part in node.cgroup().split('/').filter(|part| !part.is_empty()) {
            if is_v2() {
                enable_controllers(&folder);
            }
            let parent = folder.clone();
            folder.push(part);
            fs::create_dir_all(&folder)?;
            // A v1 cpuset without CPUs and memory takes no process, and new ones start empty.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !is_v2() && parent.join(file).is_file() {
                    fs::write(folder.join(file), fs::read_to_string(parent.join(file))?.trim())?;
                }
            }
        }
    }
    Ok(())
}

fn enable_controllers(folder: &Path) {
    let available = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        // One that cannot be enabled is one that the kubelet will complain about by name.
        fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}

/// Processes that are still in the node's cgroups.
pub(super) fn processes(node: Node) -> Vec<u32> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        walk(&hierarchy.join(node.cgroup().trim_start_matches('/')), &mut |folder| {
            let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(
                list.split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok())
                    .filter(|pid| *pid != 0),
            );
        });
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Removes what is below the node's cgroups: left over from containers that were killed with their node.
pub(super) fn clear(node: Node) {
    for hierarchy in hierarchies() {
        let root = hierarchy.join(node.cgroup().trim_start_matches('/'));
        walk(&root, &mut |folder| {
            if folder != root {
                fs::remove_dir(folder).ok();
            }
        });
    }
}

/// Removes the node's cgroups, and the common parent once it is empty.
pub(super) fn remove(node: Node) {
    clear(node);
    for hierarchy in hierarchies() {
        let root = hierarchy.join(node.cgroup().trim_start_matches('/'));
        fs::remove_dir(&root).ok();
        if let Some(parent) = root.parent() {
            fs::remove_dir(parent).ok();
        }
    }
}

/// Visits folders, children before their parents.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(folder);
}
