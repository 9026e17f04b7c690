//! The scripts of `examples/uses`, each against the cluster of one manifest, and what they say they print.

use crate::failure::{Context, Failure, Result};
use crate::local::{Local, Scene};
use crate::tools;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Longest run of one script.
const LIMIT: Duration = Duration::from_secs(60);
/// What a script prints stands behind its commands, in lines that begin so.
const PRINTS: &str = "#> ";
/// Run once more after all has been stopped and started.
const KEPT: &str = "persistence.sh";

pub(crate) async fn local_uses_run_as_they_are_written(scene: Scene) -> Result {
    let example = tools::project().join("examples/minimal.yaml");
    let local = Local::start(&example, &scene.state()).await?;
    for script in scripts()? {
        let text = fs::read_to_string(&script)?;
        let wanted: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(PRINTS)).collect();
        let printed = run(&script, &local).await?;
        compare(&script, &printed, &wanted)?;
    }
    local.stop().await?;
    let local = Local::start(&example, &scene.state()).await?;
    let printed = run(&folder().join(KEPT), &local).await?;
    let again = printed.lines().take(2).collect::<Vec<_>>();
    crate::ensure!(again == ["", "written by the first run"], "{KEPT} once more: {printed}");
    local.stop().await
}

fn folder() -> PathBuf {
    tools::project().join("examples/uses")
}

/// All of them; each stands in the page about them.
fn scripts() -> Result<Vec<PathBuf>> {
    let page = fs::read_to_string(tools::project().join("docs/uses.md"))?;
    let mut all = Vec::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        crate::ensure!(page.contains(&format!("uses/{name})")), "docs/uses.md has no {name}");
        all.push(path);
    }
    all.sort();
    crate::ensure!(!all.is_empty(), "no scripts");
    Ok(all)
}

async fn run(script: &Path, local: &Local) -> Result<String> {
    let address = *local.book.all().first().context("a member")?;
    let mut command = Command::new("sh");
    command.arg(script).env("LARDER_HOST", address.ip().to_string());
    command.env("LARDER_PORT", address.port().to_string());
    if let Some(password) = &local.password {
        command.env("REDISCLI_AUTH", password);
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, output).await;
    let output = output.map_err(|_| Failure::new(format!("{} hangs", script.display())))??;
    let error = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    crate::ensure!(status.success(), "{}: {status}: {}", script.display(), error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn compare(script: &Path, printed: &str, wanted: &[&str]) -> Result {
    let printed: Vec<&str> = printed.lines().collect();
    for n in 0..printed.len().max(wanted.len()) {
        let (is, wanted) = (printed.get(n), wanted.get(n));
        let script = script.display();
        crate::ensure!(is == wanted, "{script}: line {} is {is:?}, not {wanted:?}", n + 1);
    }
    Ok(())
}
