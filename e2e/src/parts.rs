//! The one test command: named parts, run in order, each timed.

use crate::clients::{self, CLIENTS, Client};
use crate::clock::{self, seconds};
use crate::failure::{Context, Result};
use crate::figures;
use crate::provider::{self, Provider};
use crate::tests::{self, Need, TESTS, Tally, Test};
use crate::world::World;
use crate::{install, local, sh, tools};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// A part of the tests: its name on the command line, what it does, and how.
pub struct Part {
    pub name: &'static str,
    pub about: &'static str,
    run: fn(&Options) -> Result<Tally>,
}

/// Seeds of the simulation in the test command; a developer asks for more with `LARDER_SEEDS`.
const SEEDS: &str = "300";

pub const PARTS: &[Part] = &[
    Part { name: "fmt", about: "formatting", run: fmt },
    Part { name: "clippy", about: "lints, warnings denied", run: clippy },
    Part { name: "deny", about: "bans, licences and sources of dependencies", run: deny },
    Part { name: "unit", about: "cargo test of the workspace, house rules included", run: unit },
    Part {
        name: "simulate",
        about: "the council under the deterministic simulator",
        run: simulate,
    },
    Part { name: "local", about: "end to end on local processes", run: local_tests },
    Part {
        name: "clients",
        about: "real clients of ten libraries, and tools that watch servers",
        run: real_clients,
    },
    Part { name: "kube", about: "end to end on a real Kubernetes", run: kube_tests },
];

pub struct Options {
    /// Parts or single tests; none is all parts.
    pub names: Vec<String>,
    /// Leave the cluster up afterwards, and use one that is up.
    pub keep: bool,
    /// Take Larder as it is installed: build no images, install no chart.
    pub installed: bool,
    /// How often each test is run.
    pub times: usize,
}

/// Runs what was asked for and prints `N passed, N failed` last.
pub fn test(options: &Options) -> Result<ExitCode> {
    for name in &options.names {
        let known = PARTS.iter().any(|part| part.name == name)
            || TESTS.iter().any(|test| test.name == name)
            || local::TESTS.iter().any(|test| test.name == name)
            || CLIENTS.iter().any(|client| client.name == name);
        crate::ensure!(known, "{name}: neither a part nor a test; `cargo e2e list` shows all");
    }
    let mut total = Tally::default();
    let mut times = Vec::new();
    for part in PARTS {
        let by_test = !options.names.is_empty()
            && match part.name {
                "kube" => !options.chosen_kube().is_empty(),
                "local" => !options.chosen_local().is_empty(),
                "clients" => !options.chosen_clients().is_empty(),
                _ => false,
            };
        if !(options.whole(part.name) || by_test) {
            continue;
        }
        println!("== {}: {}", part.name, part.about);
        let start = clock::now();
        let tally = (part.run)(options).unwrap_or_else(|failure| {
            println!("FAIL  {}: {failure}", part.name);
            Tally { failed: 1, ..Tally::default() }
        });
        times.push((part.name, start.elapsed(), tally));
        total.add(tally);
    }
    println!();
    print!("{}", figures::table());
    for (name, took, tally) in &times {
        let state = if tally.failed == 0 { "passed" } else { "FAILED" };
        println!("{name:10} {:>9}  {state}", seconds(*took));
    }
    let all: Duration = times.iter().map(|(_, took, _)| *took).sum();
    println!("{:10} {:>9}", "total", seconds(all));
    if total.skipped > 0 {
        println!("{} skipped, see above for the reasons", total.skipped);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn whole(&self, part: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == part)
    }

    /// The tests of a part that were asked for, by its name or their own.
    fn chosen<T>(
        &self,
        part: &str,
        all: &'static [T],
        name: fn(&T) -> &'static str,
    ) -> Vec<&'static T> {
        let is_named = |test: &&T| self.names.iter().any(|wanted| wanted == name(test));
        let chosen: Vec<_> = all.iter().filter(|test| self.whole(part) || is_named(test)).collect();
        chosen.repeat(self.times)
    }

    fn chosen_kube(&self) -> Vec<&'static Test> {
        self.chosen("kube", TESTS, |test| test.name)
    }

    fn chosen_local(&self) -> Vec<&'static local::Test> {
        self.chosen("local", local::TESTS, |test| test.name)
    }

    fn chosen_clients(&self) -> Vec<&'static Client> {
        self.chosen("clients", CLIENTS, |client| client.name)
    }
}

fn fmt(_: &Options) -> Result<Tally> {
    command(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy(_: &Options) -> Result<Tally> {
    command(cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn deny(_: &Options) -> Result<Tally> {
    let mut deny = Command::new(tools::cargo_deny()?);
    deny.current_dir(tools::project());
    deny.args(["--log-level", "error", "--config", ".cargo/deny.toml"]);
    command(deny.args(["check", "bans", "licenses", "sources"]))
}

fn unit(_: &Options) -> Result<Tally> {
    // The servers that ours is compared with are among them.
    tools::packages()?;
    command(cargo().args(["test", "--quiet", "--workspace"]))
}

fn simulate(_: &Options) -> Result<Tally> {
    let seeds = std::env::var("LARDER_SEEDS").unwrap_or_else(|_| SEEDS.to_owned());
    command(
        cargo()
            .args(["test", "--quiet", "-p", "engine", "--test", "council_sim"])
            .env("LARDER_SEEDS", seeds),
    )
}

fn local_tests(options: &Options) -> Result<Tally> {
    tools::packages()?;
    // All of it: a part of the workspace would build its dependencies anew, with other features.
    sh::show(cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
    Ok(runtime()?.block_on(local::run(&options.chosen_local())))
}

fn real_clients(options: &Options) -> Result<Tally> {
    sh::show(cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
    runtime()?.block_on(clients::run(&options.chosen_clients()))
}

fn kube_tests(options: &Options) -> Result<Tally> {
    let provider = provider::choose()?;
    println!("provider: {}", provider.name());
    let _alone = provider.lock()?;
    let chosen = options.chosen_kube();
    let bare = chosen.iter().all(|test| test.needs.contains(&Need::Bare));
    let archive =
        if bare || options.installed { None } else { Some(timed("images", install::images)?) };
    if !(options.keep && provider.is_up()) {
        timed("up", || provider.up())?;
    }
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let work = async {
            if let Some(archive) = &archive {
                timed("images loaded", || provider.load_image(archive))?;
                timed("chart installed", || install::chart(provider.as_ref()))?;
            }
            let world = World::open(provider::choose()?).await?;
            Ok(tests::run(&world, &chosen).await)
        };
        tokio::select! {
            result = work => result,
            _ = tokio::signal::ctrl_c() => Err(crate::failure::Failure::new("interrupted")),
        }
    });
    if options.keep {
        println!("left up: KUBECONFIG={}", provider.kubeconfig().display());
        return result;
    }
    let mut tally = result.as_ref().map(|tally| *tally).unwrap_or_default();
    // The way back is a part of what is tested: after the chart is gone, nothing of it is left.
    if result.is_ok() && options.whole("kube") {
        match uninstall(provider.as_ref()) {
            Ok(()) => {
                println!("pass  chart_uninstalls_without_a_trace");
                tally.passed += 1;
            }
            Err(failure) => {
                println!("FAIL  chart_uninstalls_without_a_trace: {failure}");
                tally.failed += 1;
            }
        }
    }
    timed("down", || provider.down())?;
    result.map(|_| tally)
}

fn uninstall(provider: &dyn Provider) -> Result {
    install::remove(provider)?;
    // Its pods end in good order after their owner is gone: well before they would be killed.
    clock::eventually_blocking("end of what the chart made", Duration::from_secs(15), || {
        let left = provider.kubectl(&[
            "get",
            "clusterroles,clusterrolebindings,all,secrets,serviceaccounts,roles,rolebindings",
            "--all-namespaces",
            "--selector",
            "app.kubernetes.io/instance=larder",
            "--output",
            "name",
        ])?;
        crate::ensure!(left.trim().is_empty(), "left behind: {}", left.trim().replace('\n', ", "));
        Ok(())
    })
}

fn timed<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = clock::now();
    let result = work().context(name)?;
    println!("{name}: {}", seconds(start.elapsed()));
    Ok(result)
}

/// A command that is one test.
fn command(command: &mut Command) -> Result<Tally> {
    sh::show(command)?;
    Ok(Tally { passed: 1, ..Tally::default() })
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(tools::project());
    command
}

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    // More threads than cores: some of them wait in a fault while the writers go on.
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(6).enable_all().build()?)
}
