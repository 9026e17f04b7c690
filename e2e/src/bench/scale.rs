//! Shards added and taken away while clients write: how long it takes, and how long a client waits at most.
//!
//! Each move of slots says in the source's log for how long it held the slots' clients; the writers say how long the
//! longest time without an accepted write was, retries and redirections included.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use operator::bench::PATIENCE;
use serde_json::json;

use super::cluster::{Cluster, programs, refused};
use super::table::{self, Spread};
use super::{Error, Options, clock};
use crate::client::{AddressBook, Client};
use crate::failure::{self, Context as _};
use crate::ledger::{self, Writers};
use crate::slot::slot_of;

/// Pause of a writer between two writes. There is one writer for each shard that there was at first.
const PACE: Duration = Duration::from_millis(1);
const PATIENCE_OF_A_STEP: Duration = Duration::from_secs(600);
const BATCH: usize = 500;

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let runtime = crate::parts::runtime().map_err(|why| refused(&why.to_string()))?;
    runtime.block_on(measure(options)).map_err(|why| refused(&why.to_string()))
}

fn spec(shards: usize) -> serde_json::Value {
    json!({"shards": shards, "replicasPerShard": 1, "memory": "1Gi"})
}

async fn measure(options: &Options) -> failure::Result {
    let (&first, steps) = options.shards.split_first().context("shards to begin with")?;
    let cluster = Cluster::of_spec(&programs(options)?, &spec(first))?;
    let book = AddressBook::default();
    let mut addresses = BTreeMap::new();
    for endpoint in &cluster.running.endpoints {
        addresses.insert(endpoint.clone(), endpoint.parse()?);
    }
    book.set(addresses);
    let password = cluster.running.password.as_deref();
    fill(&book, password, options).await?;
    println!(
        "{} keys of 16 bytes with values of {} bytes, shards of two members as local processes, {first} writers with {} ms \
         between writes.\n",
        options.keys(),
        options.value,
        PACE.as_millis()
    );
    let writers = Writers::start(&book, password, PACE).await?;
    let (mut rows, read) = (Vec::new(), RefCell::new(BTreeMap::new()));
    let mut from = first;
    for &to in steps {
        writers.reset_gaps();
        let start = clock::now();
        let held = RefCell::new(Vec::new());
        cluster.change(&spec(to))?;
        crate::clock::eventually("shards share the slots", PATIENCE_OF_A_STEP, || async {
            // Read again and again: the log of a member goes with the member.
            held.borrow_mut().extend(cluster.held_ms(&mut read.borrow_mut())?);
            Client::new(&book, password).ensure_even(to).await
        })
        .await?;
        let took = start.elapsed();
        writers.all_resume(PATIENCE).await?;
        let gap = writers.gaps().into_iter().max().unwrap_or_default();
        held.borrow_mut().extend(cluster.held_ms(&mut read.borrow_mut())?);
        let held = held.into_inner();
        rows.push(vec![
            format!("{from} to {to}"),
            format!("{:.1}", took.as_secs_f64()),
            held.len().to_string(),
            table::show(Spread::of(held.iter().copied()), 0),
            gap.as_millis().to_string(),
        ]);
        from = to;
    }
    let ledgers = writers.stop().await;
    let loss = ledger::check(&book, password, &ledgers).await?;
    let failures: usize = ledgers.iter().map(|ledger| ledger.failures).sum();
    let missing = missing(&book, password, options).await?;
    table::print(
        &["shards", "seconds", "moves", "held ms: median (least-most)", "longest write gap ms"],
        &rows,
    );
    println!(
        "\n{} writes acknowledged meanwhile, {} lost; {failures} attempts failed; {missing} of the {} keys missing.",
        loss.acknowledged,
        loss.lost.len(),
        options.keys()
    );
    Ok(())
}

fn key(number: u64) -> String {
    format!("key:{number:012}")
}

/// Batches of keys by the primary of their slots.
fn by_primary(
    client: &Client,
    keys: u64,
) -> failure::Result<BTreeMap<std::net::SocketAddr, Vec<String>>> {
    let mut all: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for key in (0..keys).map(key) {
        let primary = client.primary_of(slot_of(key.as_bytes())).context("owner of a slot")?;
        all.entry(primary).or_default().push(key);
    }
    Ok(all)
}

async fn fill(book: &AddressBook, password: Option<&str>, options: &Options) -> failure::Result {
    let mut client = Client::new(book, password);
    client.refresh().await?;
    let value = "x".repeat(options.value);
    for (address, keys) in by_primary(&client, options.keys())? {
        let mut connection = crate::wire::Connection::open(address, password, PATIENCE).await?;
        for batch in keys.chunks(BATCH) {
            let sets: Vec<Vec<&str>> = batch.iter().map(|key| vec!["SET", key, &value]).collect();
            for reply in connection.pipeline(&sets).await? {
                reply.ok()?;
            }
        }
    }
    Ok(())
}

async fn missing(
    book: &AddressBook,
    password: Option<&str>,
    options: &Options,
) -> failure::Result<usize> {
    let mut client = Client::new(book, password);
    let keys: Vec<String> = (0..options.keys()).map(key).collect();
    let values = client.get_all(&keys).await?;
    Ok(values
        .iter()
        .filter(|value| value.as_ref().is_none_or(|v| v.len() != options.value))
        .count())
}
