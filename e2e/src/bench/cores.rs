//! What more cores would do: locks that were not free, counted in the server, and a model of the lines that cores share.

mod model;

use super::peers::{self, Peer};
use super::server::{Server, pin_self};
use super::speed::{load_for, prefill, visit};
use super::table;
use super::wire::Workload;
use super::{Error, Options};
use model::{Costs, Way};

/// Event loops that share this machine's cores while locks are counted.
const LOOPS: [usize; 3] = [2, 4, 8];
/// Cores of the model.
const CORES: [usize; 6] = [1, 2, 4, 8, 16, 32];
const MODEL_REQUESTS: u64 = 40_000;
const WORKLOADS: [Workload; 2] = [Workload::Get, Workload::Set];

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let (peers, _) = peers::find(&options.or_peers(&["larder"]))?;
    let Some(larder) = peers.first() else {
        return Err(Error::Refused("there is no larder-server to count in".into()));
    };
    let pipeline = options.pipelines(&[16])[0];
    println!(
        "Locks of slots that were not free, pipeline {pipeline}, {} connections:\n",
        options.connections
    );
    let mut rows = Vec::new();
    for workload in WORKLOADS {
        for loops in LOOPS {
            rows.push(count(options, larder, workload, loops, pipeline)?);
        }
    }
    table::print(&["workload", "loops", "requests", "waits", "of a million requests"], &rows);
    let request = one_core(options, larder, pipeline)?;
    let Options { held_ns, line_ns, journal_ns, .. } = *options;
    println!(
        "\nModel: a request takes as long as on one core here (GET {} ns, SET {} ns), {held_ns} ns of it under its slot's lock; a \
         line that another core wrote last {line_ns} ns; the journal's lock {journal_ns} ns.\n",
        request[0], request[1]
    );
    let rows: Vec<Vec<String>> = CORES
        .into_iter()
        .flat_map(|cores| {
            let costs = |request, journal| Costs { request, held: held_ns, line: line_ns, journal };
            [
                ("GET", costs(request[0], 0)),
                ("SET", costs(request[1], 0)),
                ("SET, journal", costs(request[1], journal_ns)),
            ]
            .map(|(name, costs)| model_row(name, cores, &costs, pipeline))
        })
        .collect();
    let head = [
        "workload",
        "cores",
        "million/s",
        "of the cores' sum",
        "lines ahead",
        "of the cores' sum",
        "waits per million",
        "lines fetched per request",
    ];
    table::print(&head, &rows);
    Ok(())
}

/// Requests of one kind to so many loops, and how often they found a lock held.
fn count(
    options: &Options,
    larder: &Peer,
    workload: Workload,
    loops: usize,
    pipeline: usize,
) -> Result<Vec<String>, Error> {
    const FACTS: [&str; 2] = ["total_commands_processed", "larder_slot_lock_waits"];
    let server = filled(options, larder, workload, loops, None)?;
    let before = server.facts(FACTS)?;
    visit(larder, &server, &load_for(options, larder, &server, workload, pipeline, 0))?;
    let after = server.facts(FACTS)?;
    let [requests, waits] = [after[0] - before[0], after[1] - before[1]];
    let share = waits as f64 * 1e6 / requests.max(1) as f64;
    Ok(vec![
        workload.name().into(),
        loops.to_string(),
        requests.to_string(),
        waits.to_string(),
        format!("{share:.1}"),
    ])
}

/// What a GET and a SET cost on one core of this machine, nanoseconds.
fn one_core(options: &Options, larder: &Peer, pipeline: usize) -> Result<[u64; 2], Error> {
    let core = (options.pins() && pin_self(1)).then_some(0);
    let mut costs = [0; 2];
    for (cost, workload) in costs.iter_mut().zip(WORKLOADS) {
        let server = filled(options, larder, workload, 1, core)?;
        let load = load_for(options, larder, &server, workload, pipeline, 0);
        *cost = (visit(larder, &server, &load)?.cpu_us * 1000.0) as u64;
    }
    Ok(costs)
}

/// A server with what the workload asks for.
fn filled(
    options: &Options,
    larder: &Peer,
    workload: Workload,
    loops: usize,
    core: Option<usize>,
) -> Result<Server, Error> {
    let server = Server::start(larder, loops, core, &[])?;
    prefill(options, larder, &server, workload, options.keys())?;
    Ok(server)
}

fn model_row(name: &str, cores: usize, costs: &Costs, batch: usize) -> Vec<String> {
    let alone = model::run(1, MODEL_REQUESTS, costs, &Way { batch, ahead: false });
    let sum = alone.requests_per_second * cores as f64;
    let [after, ahead] =
        [false, true].map(|ahead| model::run(cores, MODEL_REQUESTS, costs, &Way { batch, ahead }));
    vec![
        name.into(),
        cores.to_string(),
        format!("{:.1}", after.requests_per_second / 1e6),
        format!("{:.2}", after.requests_per_second / sum),
        format!("{:.1}", ahead.requests_per_second / 1e6),
        format!("{:.2}", ahead.requests_per_second / sum),
        format!("{:.0}", ahead.waited * 1e6),
        format!("{:.2}", ahead.fetched),
    ]
}
