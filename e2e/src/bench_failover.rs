//! `larder bench failover` as a user starts it: what it prints, what it ends with, and what it leaves behind.

use crate::failure::{Context, Result};
use crate::local::Scene;
use crate::tools;
use serde_json::json;
use tokio::process::Command;

/// Two kills and one primary that is stopped: a row each, with all gaps in order and nothing lost.
pub(crate) async fn local_bench_failover_tells_gaps_and_losses(scene: Scene) -> Result {
    // With Async a primary that is killed may take its last write with it, and the bench fails as it should.
    scene.wish(&json!({
        "shards": 1, "replicasPerShard": 2, "memory": "64Mi", "durability": "Quorum",
    }))?;
    for (fault, times) in [("kill", 2), ("stop", 1)] {
        let table = bench(&scene, fault, times).await?;
        let cells: Vec<&str> = table
            .lines()
            .nth(2)
            .context("a row")?
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let [word, faults, p50, p99, max, _, writes, lost] = cells[..] else {
            crate::fail!("not a row of eight cells: {cells:?}");
        };
        println!("      {fault}: write gap {p50} ms at p50, {max} at most");
        crate::ensure!((word, faults) == (fault, times.to_string().as_str()), "{cells:?}");
        let gaps: [u64; 3] = [p50.parse()?, p99.parse()?, max.parse()?];
        crate::ensure!(gaps.is_sorted() && gaps[1] == gaps[2], "gaps of {gaps:?} ms");
        // One before and one after each fault.
        crate::ensure!(writes.parse::<usize>()? == 2 * times, "{writes} writes");
        crate::ensure!(lost == "0", "{lost} of {writes} writes lost");
    }
    Ok(())
}

async fn bench(scene: &Scene, fault: &str, times: usize) -> Result<String> {
    let temporary = tempfile::tempdir()?;
    let output = Command::new(tools::project().join("target/debug/larder"))
        .args(["bench", "failover", "--fault", fault, "--times", &times.to_string(), "-f"])
        .arg(scene.manifest())
        .env("TMPDIR", temporary.path())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    crate::ensure!(output.status.success(), "{fault}: {}: {said}", output.status);
    let left = std::fs::read_dir(temporary.path())?.count();
    crate::ensure!(left == 0, "{fault}: {left} files are left of its cluster");
    Ok(String::from_utf8(output.stdout)?)
}
