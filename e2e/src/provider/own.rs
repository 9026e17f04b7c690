//! The harness's own nodes, see `crate::own`: every fault can be made.

use super::{Fault, Provider, Wire};
use crate::failure::Result;
use crate::own;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) struct Own;

impl Provider for Own {
    fn name(&self) -> &'static str {
        "own nodes"
    }

    fn lock(&self) -> Result<Option<File>> {
        own::lock().map(Some)
    }

    fn up(&self) -> Result {
        match own::impossible() {
            None => own::up(),
            Some(why) => crate::fail!("{why}"),
        }
    }

    fn down(&self) -> Result {
        own::down()
    }

    fn kubeconfig(&self) -> PathBuf {
        own::layout::kubeconfig()
    }

    fn load_image(&self, archive: &Path) -> Result {
        own::load_image(archive)
    }

    fn cannot(&self, _: Fault) -> Option<String> {
        None
    }

    fn pods_unreachable(&self) -> Option<String> {
        None
    }

    fn node_cut(&self, node: &str) -> Result {
        own::node_cut(node)
    }

    fn node_impair(&self, node: &str, wire: Wire) -> Result {
        own::node_impair(node, &wire.script())
    }

    fn node_heal(&self, node: &str) -> Result {
        own::node_heal(node, &Wire::mend())
    }

    fn node_power_off(&self, node: &str) -> Result {
        own::node_power_off(node)
    }

    fn node_power_on(&self, node: &str) -> Result {
        own::node_power_on(node)
    }

    fn kubelet_stop(&self, node: &str) -> Result {
        own::kubelet_stop(node)
    }

    fn kubelet_start(&self, node: &str) -> Result {
        own::kubelet_start(node)
    }

    fn api_stop(&self) -> Result {
        own::api_stop()
    }

    fn api_start(&self) -> Result {
        own::api_start()
    }

    fn container_kill(&self, node: &str, container: &str) -> Result {
        own::kill_container(node, container)
    }

    fn command_on_node(&self, node: &str, program: &OsStr) -> Result<Command> {
        own::command_on_node(node, program)
    }

    fn client_command(&self, program: &OsStr) -> Result<Command> {
        own::client_command(program)
    }

    fn recycle_volumes(&self) -> Result {
        own::recycle_volumes()?;
        Ok(())
    }

    fn repair(&self) -> Result {
        own::repair(&Wire::mend())
    }
}
