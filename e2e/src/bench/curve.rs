//! Server CPU per operation as one thing grows and the rest stays: keys, values, connections, members of a collection.
//!
//! ```text
//! for each curve: servers -> for each point: fill up to it -> rounds over all servers, as in `speed` -> a table, and a plot
//! ```
//!
//! Servers go on from point to point where only keys or members are added; with other values they begin anew.

use std::fs;

use clap::ValueEnum as _;

use super::fill::fill;
use super::load::Load;
use super::machine::Machine;
use super::peers::{self, Peer};
use super::plot::{Chart, Series};
use super::points::{Curve, Setting, filler, short, short_bytes};
use super::server::{Server, pin_self};
use super::speed::{Sample, visit};
use super::table::{self, Spread};
use super::wire::{Dialect, Encoder, Workload};
use super::{Error, Options};

/// Who is compared, where nobody says who.
const PEERS: [&str; 2] = ["larder", "valkey"];
/// Connections that a server is told to allow: more than any point has.
const CLIENTS_MAX: &str = "12000";

/// One point: what was measured of each peer.
struct Row {
    at: u64,
    samples: Vec<Vec<Sample>>,
}

/// One workload at one depth, over the points.
struct Table {
    workload: Workload,
    pipeline: usize,
    rows: Vec<Row>,
}

/// Servers, one for each peer, and what they hold.
struct Held {
    servers: Vec<Server>,
    value: usize,
    filled: u64,
}

struct Bench<'a> {
    options: &'a Options,
    peers: Vec<Peer>,
    core: Option<usize>,
}

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let (peers, missing) = peers::find(&options.or_peers(&PEERS))?;
    if let Some(other) = peers.iter().find(|peer| peer.dialect != Dialect::Resp) {
        let text = format!("curve compares servers that speak RESP, and {} does not", other.name);
        return Err(Error::Refused(text));
    }
    if peers.is_empty() {
        return Err(Error::Refused("no server to measure was found".into()));
    }
    let core = (options.pins() && pin_self(1)).then_some(0);
    let bench = Bench { options, peers, core };
    bench.print_settings(&missing);
    for &curve in &options.curves {
        for workloads in curve.workloads(&options.workloads) {
            bench.measure(curve, &workloads)?;
        }
    }
    Ok(())
}

impl Bench<'_> {
    fn measure(&self, curve: Curve, workloads: &[Workload]) -> Result<(), Error> {
        let options = self.options;
        let rest = self.rest();
        let depths = options.pipelines(&[curve.pipeline()]);
        let tables = workloads.iter().flat_map(|&workload| {
            depths.iter().map(move |&pipeline| Table { workload, pipeline, rows: vec![] })
        });
        let mut tables: Vec<Table> = tables.collect();
        let (mut held, mut left_out) = (None, Vec::new());
        for at in curve.points(options.keys) {
            let setting = curve.setting(at, rest);
            // Those that hold other values are ended first: their memory is wanted.
            held = held.filter(|held: &Held| held.value == setting.value);
            let filled = held.as_ref().map_or(0, |held| held.filled);
            if let Some(why) = setting.obstacle(filled, self.peers.len(), &Machine::now()?) {
                left_out.push(format!("{} {}: {why}", name(curve, at), curve.axis()));
                continue;
            }
            let held = match &mut held {
                Some(held) => held,
                none => none.insert(self.start(setting.value)?),
            };
            self.fill(held, workloads, setting)?;
            for table in &mut tables {
                table.rows.push(self.point(at, &held.servers, setting, table)?);
            }
        }
        for table in &tables {
            self.report(curve, table)?;
        }
        left_out.iter().for_each(|why| println!("\nLeft out: {why}."));
        Ok(())
    }

    /// What holds for all that does not grow.
    fn rest(&self) -> Setting {
        let Options { value, connections, .. } = *self.options;
        Setting { keys: self.options.keys(), value, connections }
    }

    fn start(&self, value: usize) -> Result<Held, Error> {
        let more = ["--maxclients", CLIENTS_MAX].map(str::to_owned);
        let start = |peer| Server::start(peer, self.options.threads, self.core, &more);
        let servers = self.peers.iter().map(start).collect::<Result<_, Error>>()?;
        Ok(Held { servers, value, filled: 0 })
    }

    /// Adds the keys, or members, that are not there yet.
    fn fill(&self, held: &mut Held, workloads: &[Workload], to: Setting) -> Result<(), Error> {
        let mut fillers: Vec<Workload> = Vec::new();
        for filler in workloads.iter().map(|&workload| filler(workload)) {
            if !fillers.contains(&filler) {
                fillers.push(filler);
            }
        }
        for (peer, server) in self.peers.iter().zip(&held.servers) {
            for &filler in &fillers {
                let encoder = Encoder::new(peer.dialect, filler, to.value, None, (0, 1));
                fill(server.addr, peer.dialect, &encoder, held.filled..to.keys)
                    .map_err(|error| Error::Refused(format!("{}: {error}", peer.name)))?;
            }
        }
        held.filled = held.filled.max(to.keys);
        Ok(())
    }

    fn point(
        &self,
        at: u64,
        servers: &[Server],
        setting: Setting,
        table: &Table,
    ) -> Result<Row, Error> {
        let count = self.peers.len();
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); count];
        for round in 0..self.options.rounds {
            for nth in (0..count).map(|step| (round + step) % count) {
                let (peer, server) = (&self.peers[nth], &servers[nth]);
                let ratio = self.options.ratio;
                let encoder =
                    Encoder::new(peer.dialect, table.workload, setting.value, None, ratio);
                let Setting { keys, connections, .. } = setting;
                let load = Load {
                    keys,
                    connections,
                    ..Load::of(
                        self.options,
                        server.addr,
                        peer.dialect,
                        encoder,
                        table.pipeline,
                        round,
                    )
                };
                samples[nth].push(visit(peer, server, &load)?);
            }
        }
        Ok(Row { at, samples })
    }

    fn print_settings(&self, missing: &[peers::Missing]) {
        let Options { threads, connections, value, rounds, seconds, .. } = self.options;
        let rest = self.rest();
        println!(
            "Server CPU per operation: {threads} server thread(s), {rounds} rounds of {seconds} s, {} client thread(s), {}. \
             Where they do not grow: {} keys of 16 bytes ({} while values grow), {value}-byte values, {connections} \
             connections, all of them busy. Members: of one hash (HSET over fields that are there), sorted set (ZADD of \
             another score), set (SADD of members that are there), list (LINDEX of any element).",
            self.options.client_threads,
            if self.core.is_some() {
                "server on core 0 and client on core 1"
            } else {
                "not pinned"
            },
            short(rest.keys),
            short(Curve::Value.setting(0, rest).keys),
        );
        println!("Medians of the rounds (smallest-largest); ratios are taken within a round.\n");
        peers::print(&self.peers, missing);
    }

    fn report(&self, curve: Curve, table: &Table) -> Result<(), Error> {
        let title = format!("{}, pipeline {}", table.workload.name(), table.pipeline);
        println!("\n### {}: {title}\n", curve.axis());
        let (head, rows) = self.cells(curve, table);
        table::print(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
        let Some(folder) = &self.options.plots else { return Ok(()) };
        fs::create_dir_all(folder).map_err(Error::io(format!("make {}", folder.display())))?;
        let workload = table.workload.to_possible_value();
        let workload = workload.as_ref().map_or("", |value| value.get_name());
        let file = folder.join(format!("{}-{workload}-{}.svg", curve.name(), table.pipeline));
        let svg = self.chart(curve, table, &title).svg();
        fs::write(&file, svg).map_err(Error::io(format!("write {}", file.display())))?;
        println!("\nPlot: {}", file.display());
        Ok(())
    }

    fn cells(&self, curve: Curve, table: &Table) -> (Vec<String>, Vec<Vec<String>>) {
        let names = || self.peers.iter().map(|peer| peer.name);
        let against = names().position(|name| name == self.options.baseline);
        let compared =
            |nth: &usize| against.is_some_and(|against| against != *nth && self.peers.len() > 1);
        let mut head = vec![curve.axis().to_owned()];
        head.extend(names().map(|name| format!("{name} CPU us/op")));
        for nth in (0..self.peers.len()).filter(compared) {
            let name = self.peers[nth].name;
            head.push(format!("{name} ops per CPU s / {}", self.options.baseline));
        }
        head.extend(names().map(|name| format!("{name} kops/s")));
        let row = |row: &Row| {
            let mut cells = vec![name(curve, row.at)];
            cells.extend(row.samples.iter().map(|all| table::show(cpu(all), 2)));
            for nth in (0..self.peers.len()).filter(compared) {
                let base = against.map_or(&[][..], |against| row.samples[against].as_slice());
                let pairs = row.samples[nth].iter().zip(base);
                let ratio = Spread::of(pairs.map(|(own, base)| base.cpu_us / own.cpu_us));
                cells.push(table::show(ratio, 2));
            }
            cells.extend(row.samples.iter().map(|all| {
                let kops = Spread::of(all.iter().map(|sample| sample.kops));
                kops.map_or_else(|| "-".into(), |kops| format!("{:.1}", kops.median))
            }));
            cells
        };
        (head, table.rows.iter().map(row).collect())
    }

    fn chart(&self, curve: Curve, table: &Table, title: &str) -> Chart {
        let series = self.peers.iter().enumerate().map(|(nth, peer)| {
            let point = |row: &Row| Some((row.at as f64, cpu(&row.samples[nth])?));
            Series { name: peer.name.into(), points: table.rows.iter().filter_map(point).collect() }
        });
        Chart {
            title: format!("{title}: server CPU per operation"),
            x_label: curve.axis().into(),
            y_label: "CPU us per operation".into(),
            places: table.rows.iter().map(|row| (row.at as f64, name(curve, row.at))).collect(),
            series: series.collect(),
        }
    }
}

fn cpu(samples: &[Sample]) -> Option<Spread> {
    Spread::of(samples.iter().map(|sample| sample.cpu_us))
}

/// A point as tables and plots name it.
fn name(curve: Curve, at: u64) -> String {
    if curve == Curve::Value { short_bytes(at) } else { short(at) }
}
