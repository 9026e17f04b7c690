//! The command line: what to run, and in which world.

mod bench;
mod manifest;
mod parent;
mod plan;
mod recover;
mod reference;
mod run;
mod server;

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::Error;
use crate::driver::kubernetes;

/// A cache cluster from one manifest: on Kubernetes, or as processes of this machine.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster as local processes until Ctrl-C; started again, the data is there.
    Run(RunArgs),
    /// Print what would be done for a local cluster, and why, and do nothing.
    Plan(PlanArgs),
    /// Measure what faults cost the clients of a cluster, as local processes.
    Bench(bench::BenchArgs),
    /// Say what it costs to go on without a council that lost its majority for good; with --yes, do so.
    Recover(RecoverArgs),
    /// Run the operator for Kubernetes.
    Operator(kubernetes::Settings),
    /// Print the reference of the manifest, generated from its types, as Markdown.
    Reference,
    /// Ask a health endpoint, as `helm test` does; fails unless it answers 200.
    #[command(hide = true)]
    Probe {
        /// For example http://larder-metrics.larder-system.svc:8080/readyz
        url: String,
    },
    /// Run one member, as larder-server does.
    #[command(disable_help_flag = true)]
    Server(server::ServerArgs),
}

/// Arguments of `larder run`.
#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    manifest: ManifestArgs,
    /// json: one line when all is Ready, with endpoints and password.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The members' program, instead of this one.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Stop in good order when the process with this ID, the parent, ends.
    #[arg(long, hide = true, value_name = "PID")]
    with_parent: Option<i32>,
}

/// Arguments of `larder plan`.
#[derive(Debug, clap::Args)]
struct PlanArgs {
    #[command(flatten)]
    manifest: ManifestArgs,
}

/// Arguments of `larder recover`.
#[derive(Debug, clap::Args)]
struct RecoverArgs {
    /// Name of the CacheCluster.
    name: String,
    /// Its namespace [default: that of the context].
    #[arg(short, long)]
    namespace: Option<String>,
    /// Go on with what is left, whatever it costs.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct ManifestArgs {
    /// File with the manifest of the CacheCluster.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Folder of the cluster's members [default: .larder/NAME].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl ManifestArgs {
    fn dir(&self, cluster: &str) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| PathBuf::from(".larder").join(cluster))
    }
}

/// Runs a command line, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let is_plugin = args.first().is_some_and(|program| {
        std::path::Path::new(program).file_stem().is_some_and(|name| name == "kubectl-larder")
    });
    let mut command = Cli::command();
    if is_plugin {
        command = command.bin_name("kubectl larder");
    }
    let parsed = command.try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command {
        // The engine has threads, a log and an exit code of its own.
        Command::Server(args) => return server::server(&args),
        // It has messages and threads of its own, too.
        Command::Bench(args) => return bench::bench(&args),
        // One thread: members die with the thread that started them.
        Command::Run(args) => log_to_stderr("warn").and_then(|()| on_one_thread(run::run(args))),
        Command::Plan(args) => log_to_stderr("warn").and_then(|()| on_one_thread(plan::plan(args))),
        Command::Recover(args) => {
            log_to_stderr("warn").and_then(|()| on_one_thread(recover::recover(args)))
        }
        Command::Operator(settings) => log_as_json().and_then(|()| operator(settings)),
        Command::Probe { url } => on_one_thread(async move {
            crate::health::probe(&url).await.map_err(|e| Error::world(format!("reach {url}"), e))
        }),
        Command::Reference => {
            print!("{}", reference::markdown());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn on_one_thread(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::world("start", e))?
        .block_on(work)
}

fn operator(settings: kubernetes::Settings) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Error::world("start", e))?.block_on(async {
        let mut stop = Stop::new()?;
        kubernetes::run(settings, async move { stop.asked().await }).await
    })
}

/// The wish to stop: Ctrl-C, or SIGTERM.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, Error> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |e| Error::world("listen to signals", e);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn filter(default: &str) -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_env("LARDER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default))
}

fn log_to_stderr(default: &str) -> Result<(), Error> {
    tracing_subscriber::fmt()
        .with_env_filter(filter(default))
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|e| Error::world("start the log", e))
}

fn log_as_json() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter("info"))
        .try_init()
        .map_err(|e| Error::world("start the log", e))
}
