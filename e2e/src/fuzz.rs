//! `cargo e2e fuzz`: the engine's fuzz targets under libFuzzer, which follows what was reached.
//!
//! ```text
//! engine/tests/fuzz/corpus/T --> target/fuzz/corpus/T/ -- search --> merged, small ones first --> corpus/T
//! (a line for each input)         (grows, is not kept)  +- failed --> made smaller --> found/T
//! ```
//!
//! The tests of the engine read both files again, so that a failure found here fails there until it is mended.

#[path = "../../engine/tests/fuzz/corpus.rs"]
mod corpus;

use crate::clock;
use crate::failure::{Context, Result};
use crate::{sh, tools};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The compiler's counters of what was reached, and what comparisons were made with.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
];
/// What of a target's corpus is kept in the repository, bytes of the file.
const KEPT_BYTES_MAX: usize = 8 << 10;
/// Longest input, bytes.
const INPUT_BYTES_MAX: usize = 4096;
/// An input that takes longer than this has failed, seconds.
const INPUT_SECONDS_MAX: u32 = 20;
/// An input that takes more than this has failed, MiB.
const MEMORY_MB_MAX: u32 = 3072;
/// How long a failure is made smaller, seconds.
const SHRINK_SECONDS: u64 = 20;
/// A script's nested calls lie on the stack of who runs it, KiB.
const STACK_KB: u32 = 64 << 10;

/// Searches each of these targets for so long, all of them where none is named.
pub fn fuzz(names: &[String], seconds: u64) -> Result {
    let program = build()?;
    let all = sh::run(Command::new(&program).env("LARDER_FUZZ_TARGET", "list"))?;
    let is_wanted = |name: &&str| {
        names.is_empty() || names.iter().any(|wanted| wanted == "all" || wanted == name)
    };
    for name in names.iter().filter(|name| *name != "all") {
        let is_known = all.lines().any(|known| known == name);
        crate::ensure!(
            is_known,
            "{name}: no target; there are {}",
            all.lines().collect::<Vec<_>>().join(", ")
        );
    }
    let mut failed = Vec::new();
    for name in all.lines().filter(is_wanted) {
        let target = Target::lay_out(&program, name)?;
        let begun = clock::now();
        let log = target.search(seconds)?;
        let found = target.take_failures()?;
        let kept = target.keep()?;
        println!(
            "{name:18} {:>9} inputs, {:>6} places reached, {kept} kept, {found} failed, {}",
            last_word(&log, "stat::number_of_executed_units:").unwrap_or("?"),
            last_word(&log, "cov:").unwrap_or("?"),
            clock::seconds(begun.elapsed()),
        );
        if found > 0 {
            failed.push(name);
        }
    }
    crate::ensure!(
        failed.is_empty(),
        "failures in {}: as lines in engine/tests/fuzz/found/, which `cargo test -p engine --test fuzz` tries again",
        failed.join(", ")
    );
    Ok(())
}

/// The word behind the last mark.
fn last_word<'l>(log: &'l str, mark: &str) -> Option<&'l str> {
    log.rsplit_once(mark)?.1.split_whitespace().next()
}

/// Builds the engine with counters, apart from everything else that is built.
fn build() -> Result<PathBuf> {
    let about = sh::run(Command::new("rustc").arg("-vV"))?;
    // Named, so that what runs at compile time goes without counters.
    let host =
        about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc's host")?;
    let folder = tools::project().join("target/fuzz");
    let mut cargo = tools::nice(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "engine-fuzz", "--features", "libfuzzer"]);
    cargo.args(["--profile", "fuzz", "--target", host, "--target-dir"]).arg(&folder);
    sh::show(cargo.env("RUSTFLAGS", FLAGS.join(" ")).current_dir(tools::project()))?;
    Ok(folder.join(host).join("fuzz/larder-fuzz"))
}

struct Target<'t> {
    program: &'t Path,
    name: &'t str,
    /// Where it works: nothing in it is kept but by `keep` and `take_failures`.
    folder: PathBuf,
}

impl Target<'_> {
    /// A target's folders, with what the repository has of inputs.
    fn lay_out<'t>(program: &'t Path, name: &'t str) -> Result<Target<'t>> {
        let folder = tools::project().join("target/fuzz/work").join(name);
        let target = Target { program, name, folder };
        for part in ["corpus", "failed", "merged"] {
            fs::create_dir_all(target.folder.join(part))?;
        }
        for stale in target.inputs("failed")? {
            fs::remove_file(stale)?;
        }
        for (number, input) in corpus::read(&target.file("corpus"))?.iter().enumerate() {
            fs::write(target.folder.join(format!("corpus/kept-{number}")), input)?;
        }
        let mut lay = target.command(&["-runs=0"]);
        lay.env("LARDER_FUZZ_SEEDS", target.folder.join("corpus"));
        sh::run(&mut lay)?;
        Ok(target)
    }

    /// The file in the repository.
    fn file(&self, kind: &str) -> PathBuf {
        tools::project().join("engine/tests/fuzz").join(kind).join(self.name)
    }

    fn inputs(&self, part: &str) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.folder.join(part))?;
        Ok(entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>()?)
    }

    /// libFuzzer on this target.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = tools::nice("sh");
        let run = format!("ulimit -s {STACK_KB} && exec \"$0\" \"$@\"");
        command.arg("-c").arg(run).arg(self.program).args(args);
        command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
        command.arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"));
        command.env("LARDER_FUZZ_TARGET", self.name).current_dir(&self.folder);
        command.stdin(Stdio::null());
        command
    }

    /// What libFuzzer said. That an input failed is told by what lies in `failed`.
    fn run(&self, command: &mut Command) -> Result<String> {
        let log = self.folder.join("log");
        let file = fs::File::create(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        command.status().context(self.name)?;
        Ok(String::from_utf8_lossy(&fs::read(&log)?).into_owned())
    }

    fn search(&self, seconds: u64) -> Result<String> {
        let (time, longest) =
            (format!("-max_total_time={seconds}"), format!("-max_len={INPUT_BYTES_MAX}"));
        let prefix = "-artifact_prefix=failed/";
        let args =
            [&time, &longest, prefix, "-print_final_stats=1", "-use_value_profile=1", "corpus"];
        self.run(&mut self.command(&args))
    }

    /// Makes failures smaller and writes them where the tests find them; how many.
    fn take_failures(&self) -> Result<usize> {
        let failures = self.inputs("failed")?;
        let mut found = corpus::read(&self.file("found"))?;
        for failure in &failures {
            let name = failure.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut input = fs::read(failure)?;
            if name.starts_with("crash-") {
                let small = self.folder.join("small");
                fs::remove_file(&small).ok();
                let time = format!("-max_total_time={SHRINK_SECONDS}");
                let into = format!("-exact_artifact_path={}", small.display());
                let mut shrink = self.command(&["-minimize_crash=1", &time, &into]);
                self.run(shrink.arg(failure))?;
                input = fs::read(&small).unwrap_or(input);
            }
            println!("{}: {name}: b\"{}\"", self.name, input.escape_ascii());
            if !found.contains(&input) {
                found.push(input);
            }
        }
        if !failures.is_empty() {
            corpus::write(&self.file("found"), &found)?;
        }
        Ok(failures.len())
    }

    /// Of all inputs a few that together reach all that is reached, the large ones left out where they are too many.
    fn keep(&self) -> Result<usize> {
        for stale in self.inputs("merged")? {
            fs::remove_file(stale)?;
        }
        self.run(&mut self.command(&[
            "-set_cover_merge=1",
            "-use_counters=0",
            "merged",
            "corpus",
        ]))?;
        let read = |path: &PathBuf| fs::read(path);
        let mut inputs: Vec<Vec<u8>> =
            self.inputs("merged")?.iter().map(read).collect::<std::io::Result<_>>()?;
        inputs.sort_by_key(|input| (input.len(), input.clone()));
        let mut bytes = 0;
        inputs.retain(|input| {
            bytes += input.escape_ascii().count() + 1;
            bytes <= KEPT_BYTES_MAX
        });
        corpus::write(&self.file("corpus"), &inputs)?;
        Ok(inputs.len())
    }
}
