//! Installs Larder with its own chart and the real helm, as a user does.

use crate::failure::Result;
use crate::provider::Provider;
use crate::{image, sh, tools};
use std::path::PathBuf;
use std::process::Command;

pub const NAMESPACE: &str = "larder-system";
pub const RELEASE: &str = "larder";

/// The archive with the images under test, built when the sources changed.
pub fn images() -> Result<PathBuf> {
    let file = tools::project().join("target/larder-images.tar");
    image::product(&file)?;
    Ok(file)
}

pub fn helm(provider: &dyn Provider, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(tools::HELM.program("helm")?);
    // Plugins, repositories and caches of the user have no say here.
    let home = tools::cache()?.join("helm-home");
    for (name, folder) in
        [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        command.env(name, home.join(folder));
    }
    sh::run(command.arg("--kubeconfig").arg(provider.kubeconfig()).args(arguments))
}

/// Installs or upgrades the chart and waits until the operator is ready.
pub fn chart(provider: &dyn Provider) -> Result {
    let chart = tools::project().join("charts/larder").display().to_string();
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
    ];
    arguments.extend(["--wait", "--timeout", "120s"]);
    let values = image_values();
    for value in &values {
        arguments.extend(["--set", value]);
    }
    helm(provider, &arguments)?;
    Ok(())
}

pub fn remove(provider: &dyn Provider) -> Result {
    helm(
        provider,
        &["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "60s"],
    )?;
    Ok(())
}

/// Where the images come from: loaded into the nodes, or a registry that the user names.
fn image_values() -> Vec<String> {
    let repository =
        std::env::var("LARDER_IMAGE_REPOSITORY").unwrap_or_else(|_| "larder.local".to_owned());
    let tag = env!("CARGO_PKG_VERSION");
    vec![
        format!("image.repository={repository}/operator"),
        format!("image.tag={tag}"),
        format!("engine.image.repository={repository}/engine"),
        format!("engine.image.tag={tag}"),
    ]
}
