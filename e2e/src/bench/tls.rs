//! What TLS costs: the same load on the plain and on the TLS port of each server, in turns.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::{ClientConfig, RootCertStore};

use super::load::Load;
use super::peers::{self, Missing, Peer};
use super::server::{Server, pin_self};
use super::speed::{self, Sample, prefill, visit};
use super::stream::SERVER_NAME;
use super::table::{self, Spread};
use super::wire::{Dialect, Encoder, Workload};
use super::{Error, Options};
use crate::tools;

/// Who is compared, where nobody says who: of the peers only Debian's package has TLS.
const PEERS: [&str; 3] = ["larder", "valkey", "redis-7.0"];
/// Plain, and by TLS.
const WAYS: usize = 2;

/// A certificate, as servers read it from files and as the client trusts it.
struct Certificate {
    dir: tempfile::TempDir,
    client: Arc<ClientConfig>,
}

struct Running {
    peer: Peer,
    server: Server,
    tls: SocketAddr,
}

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let (peers, mut missing) = peers::find(&options.or_peers(&PEERS))?;
    let certificate = Certificate::new()?;
    let pins = options.pins() && pin_self(1);
    let core = pins.then_some(0);
    let mut able = Vec::new();
    for peer in peers {
        match certificate.start(options, &peer, core) {
            Ok(_) => able.push(peer),
            Err(error) => missing.push(Missing { name: peer.name, why: error.to_string() }),
        }
    }
    speed::print_settings(options, &able, &missing, pins, "closed loop, TLS 1.3 with AES-256-GCM");
    for &workload in &options.workloads {
        for pipeline in options.pipelines(&[1, 16, 50]) {
            let mut running = Vec::new();
            for peer in &able {
                let (server, tls) = certificate.start(options, peer, core)?;
                prefill(options, peer, &server, workload, options.keys())?;
                running.push(Running { peer: peer.clone(), server, tls });
            }
            let mut samples: Vec<[Vec<Sample>; WAYS]> = vec![Default::default(); running.len()];
            let turns = running.len() * WAYS;
            for round in 0..options.rounds {
                for turn in (0..turns).map(|step| (round + step) % turns) {
                    let (at, way) = (turn / WAYS, turn % WAYS);
                    let load =
                        certificate.load(options, &running[at], way, workload, pipeline, round);
                    samples[at][way].push(visit(&running[at].peer, &running[at].server, &load)?);
                }
            }
            println!("\n### {}, pipeline {pipeline}\n", workload.name());
            report(&running, &samples);
        }
    }
    Ok(())
}

impl Certificate {
    fn new() -> Result<Self, Error> {
        let refused =
            |error: &dyn std::fmt::Display| Error::Refused(format!("certificate: {error}"));
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])
            .map_err(|error| refused(&error))?;
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        for (name, text) in [(CERT, made.cert.pem()), (KEY, made.signing_key.serialize_pem())] {
            fs::write(dir.path().join(name), text).map_err(Error::io(format!("write {name}")))?;
        }
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).map_err(|error| refused(&error))?;
        // One suite alone, so that all servers work with the same.
        let suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384];
        let provider =
            rustls::crypto::CryptoProvider { cipher_suites: suites, ..default_provider() };
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { dir, client: Arc::new(client) })
    }

    /// Starts a peer that serves both ways, and says where it does so by TLS.
    fn start(
        &self,
        options: &Options,
        peer: &Peer,
        core: Option<usize>,
    ) -> Result<(Server, SocketAddr), Error> {
        if peer.dialect != Dialect::Resp {
            return Err(Error::Refused("only servers that speak RESP are measured by TLS".into()));
        }
        let port = tools::free_port().map_err(Error::io("bind"))?;
        let server =
            Server::start(peer, options.threads, core, &directives(port, self.dir.path()))?;
        Ok((server, SocketAddr::from(([127, 0, 0, 1], port))))
    }

    fn load(
        &self,
        options: &Options,
        running: &Running,
        way: usize,
        workload: Workload,
        pipeline: usize,
        round: usize,
    ) -> Load {
        let Running { peer, server, tls } = running;
        let encoder = Encoder::new(peer.dialect, workload, options.value, None, options.ratio);
        let load = Load::of(options, server.addr, peer.dialect, encoder, pipeline, round);
        match way {
            0 => load,
            _ => Load { addr: *tls, tls: Some(self.client.clone()), ..load },
        }
    }
}

const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

fn directives(port: u16, dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let pairs = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", file(CERT)),
        ("--tls-key-file", file(KEY)),
        ("--tls-ca-cert-file", file(CERT)),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

fn report(running: &[Running], samples: &[[Vec<Sample>; WAYS]]) {
    let row = |(each, [plain, tls]): (&Running, &[Vec<Sample>; WAYS])| {
        let spread =
            |samples: &[Sample], pick: fn(&Sample) -> f64| Spread::of(samples.iter().map(pick));
        let ratio = |pick: fn(&Sample) -> f64| {
            Spread::of(tls.iter().zip(plain).map(|(tls, plain)| pick(tls) / pick(plain)))
        };
        let added = tls.iter().zip(plain).map(|(tls, plain)| tls.cpu_us - plain.cpu_us);
        vec![
            each.peer.name.to_owned(),
            table::show(spread(plain, |sample| sample.cpu_us), 2),
            table::show(spread(tls, |sample| sample.cpu_us), 2),
            table::show(Spread::of(added), 2),
            table::show(ratio(|sample| sample.cpu_us), 2),
            table::show(spread(plain, |sample| sample.kops), 1),
            table::show(spread(tls, |sample| sample.kops), 1),
            table::show(spread(plain, |sample| sample.p99_us), 0),
            table::show(spread(tls, |sample| sample.p99_us), 0),
        ]
    };
    let head = [
        "peer",
        "CPU us/op plain",
        "TLS",
        "TLS - plain",
        "TLS / plain",
        "kops/s plain",
        "TLS",
        "p99 us plain",
        "TLS",
    ];
    let rows: Vec<_> = running.iter().zip(samples).map(row).collect();
    table::print(&head, &rows);
}
