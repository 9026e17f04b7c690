//! How long PING and INFO take while a server is busy: idle, with all the requests that it can serve, and with a long script;
//! and what connections cost that do nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use operator::bench::quantiles::Quantiles;

use super::load::{self, Load};
use super::peers::{self, Peer};
use super::replies::Replies;
use super::server::Server;
use super::wire::{Dialect, Encoder, Workload};
use super::{Error, Options, clock, table};

/// Between two questions.
const PACE: Duration = Duration::from_millis(2);
/// The longest wait for an answer: Redis answers nobody before a script has run for five seconds.
const PATIENCE: Duration = Duration::from_secs(20);
const SCRIPT: &str = "local n = 0 while true do n = n + 1 end";
/// Requests that are under way on each connection of the load.
const PIPELINE: usize = 16;
/// Connections that do nothing.
const IDLE: usize = 10_000;
/// How long they have done so when they are weighed.
const REST: Duration = Duration::from_secs(3);
/// All of them, and those of the server's own.
const CLIENTS_MAX: &str = "20000";

#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Nothing,
    Load,
    Script,
}

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let options = &options.or_peers(&["larder", "valkey"]);
    let (peers, missing) = peers::find(options)?;
    peers::print(&peers, &missing);
    println!(
        "\nPING and INFO, one after the other every {} ms for {} s, {} round(s), {} server thread(s), beside {} connections of GET with \
         {PIPELINE} requests each, and beside a script that does not end.\n",
        PACE.as_millis(),
        options.seconds,
        options.rounds,
        options.threads,
        options.connections,
    );
    let mut rows = Vec::new();
    for (with, beside) in
        [(With::Nothing, "nothing"), (With::Load, "full load"), (With::Script, "a script")]
    {
        for peer in peers.iter().filter(|peer| peer.dialect == Dialect::Resp) {
            let mut took = [Vec::new(), Vec::new()];
            for round in 0..options.rounds {
                beside_it(options, peer, with, round, &mut took)?;
            }
            for (name, took) in ["PING", "INFO"].into_iter().zip(&took) {
                let spread = Quantiles::of(took.iter().copied());
                let at = |percent| format!("{:.2}", spread.at(percent).unwrap_or_default());
                let head = [beside.to_owned(), peer.name.to_owned(), name.to_owned()];
                let tail = [took.len().to_string(), at(50), at(99), at(100)];
                rows.push(head.into_iter().chain(tail).collect());
            }
        }
    }
    table::print(&["beside", "peer", "request", "asked", "p50 ms", "p99 ms", "max ms"], &rows);
    idle(options, &peers)
}

/// Asks a new server for a while; milliseconds of each answer are added.
fn beside_it(
    options: &Options,
    peer: &Peer,
    with: With,
    round: usize,
    took: &mut [Vec<f64>; 2],
) -> Result<(), Error> {
    let server = Server::start(peer, options.threads, None, &[])?;
    let encoder = Encoder::new(peer.dialect, Workload::Get, options.value, None, options.ratio);
    let load = Load::of(options, server.addr, peer.dialect, encoder, PIPELINE, round);
    let mut prober = connect(server.addr)?;
    let mut script = connect(server.addr)?;
    thread::scope(|scope| {
        let beside = scope.spawn(|| match with {
            With::Load => load::run(&load, || server.cpu()).map(|_| ()),
            With::Nothing | With::Script => Ok(()),
        });
        if with == With::Script {
            let request =
                format!("*3\r\n$4\r\nEVAL\r\n${}\r\n{SCRIPT}\r\n$1\r\n0\r\n", SCRIPT.len());
            script.write_all(request.as_bytes()).map_err(Error::io("send a script"))?;
        }
        thread::sleep(Duration::from_secs_f64(options.warmup));
        let start = clock::now();
        while start.elapsed().as_secs_f64() < options.seconds {
            for (request, took) in ["PING\r\n", "INFO\r\n"].into_iter().zip(&mut *took) {
                let asked = clock::now();
                ask(&mut prober, request)?;
                took.push(asked.elapsed().as_secs_f64() * 1e3);
                thread::sleep(PACE);
            }
        }
        beside.join().map_err(|_| Error::Refused("the load panicked".into()))?
    })
}

fn connect(addr: SocketAddr) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(addr).map_err(Error::io("connect"))?;
    stream.set_nodelay(true).map_err(Error::io("no delay"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(Error::io("time limit"))?;
    Ok(stream)
}

/// Asks, and awaits the reply.
fn ask(stream: &mut TcpStream, request: &str) -> Result<(), Error> {
    stream.write_all(request.as_bytes()).map_err(Error::io("ask"))?;
    let (mut replies, mut input, mut filled) = (Replies::new(Dialect::Resp), [0; 16 * 1024], 0);
    loop {
        let got = stream
            .read(&mut input[filled..])
            .map_err(Error::io(format!("answer to {request:?}")))?;
        if got == 0 {
            return Err(Error::Refused(format!("the server closed after {request:?}")));
        }
        filled += got;
        let (taken, ended) = replies.feed(&input[..filled]);
        if ended > 0 {
            return Ok(());
        }
        input.copy_within(taken..filled, 0);
        filled -= taken;
    }
}

/// Resident bytes of connections that have asked once and do nothing since.
fn idle(options: &Options, peers: &[Peer]) -> Result<(), Error> {
    println!(
        "\nRSS of {IDLE} connections that have had one PING each, after {} s.\n",
        REST.as_secs()
    );
    let mut rows = Vec::new();
    for peer in peers.iter().filter(|peer| peer.dialect == Dialect::Resp) {
        let more = ["--maxclients", CLIENTS_MAX].map(str::to_owned);
        let server = Server::start(peer, options.threads, None, &more)?;
        let before = server.rss()?;
        let mut connections = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            let mut one = connect(server.addr)?;
            ask(&mut one, "PING\r\n")?;
            connections.push(one);
        }
        // Buffers that were given back are so by the servers' own timers.
        thread::sleep(REST);
        let bytes = server.rss()?.saturating_sub(before) as f64 / IDLE as f64;
        rows.push(vec![peer.name.to_owned(), format!("{bytes:.0}")]);
    }
    table::print(&["peer", "bytes per connection"], &rows);
    Ok(())
}
