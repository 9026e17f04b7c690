//! Clients that write and read a few keys at once and note all that they saw, for the check of a history.
//!
//! Many clients share each key, so that a read that is too old, a write that comes back or two primaries at a time show
//! at once. In a shard each key has the same tag. An operation that failed may have happened: it has no end.

use crate::client::{AddressBook, Client};
use crate::clock;
use crate::failure::{Context, Failure, Result};
use crate::history::{self, Action, Operation};
use crate::ledger::tag_in;
use crate::wire::Reply;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

const KEYS_PER_SHARD: u64 = 3;
const CLIENTS_PER_SHARD: usize = 4;
/// Pause between two operations of a client, and before it tries again after one that failed.
const PACE: Duration = Duration::from_millis(3);
const RETRY: Duration = Duration::from_millis(20);
/// Longest wait for the last read of a key.
const LAST_READ_MAX: Duration = Duration::from_secs(20);

/// Running clients, and what they have seen.
pub struct Probes {
    password: Option<String>,
    book: AddressBook,
    tags: Vec<String>,
    seen: Arc<Mutex<Vec<Operation>>>,
    values: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Probes {
    /// Starts clients for each shard that there is now.
    pub async fn start(book: &AddressBook, password: Option<&str>) -> Result<Self> {
        let mut client = Client::new(book, password);
        client.refresh().await?;
        let salt = format!("h{}-", clock::wall_micros());
        let tags = client.ranges().iter().map(|range| tag_in(range.first, range.last, &salt));
        let mut probes = Self {
            password: password.map(str::to_owned),
            book: book.clone(),
            tags: tags.collect::<Result<_>>()?,
            seen: Arc::default(),
            values: Arc::default(),
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        for tag in probes.tags.clone() {
            for number in 0..CLIENTS_PER_SHARD {
                let client = probes.client(number as u64, tag.clone());
                probes.tasks.push(tokio::spawn(client.go_on()));
            }
        }
        Ok(probes)
    }

    fn client(&self, seed: u64, tag: String) -> Probe {
        Probe {
            client: Client::new(&self.book, self.password.as_deref()),
            tag,
            state: seed,
            seen: self.seen.clone(),
            values: self.values.clone(),
            stop: self.stop.clone(),
        }
    }

    /// The tag of each shard's keys, in the order of the slots.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// How many operations on a shard's keys have ended.
    pub fn ended(&self, tag: &str) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|one| one.key.starts_with(tag) && one.end.is_some()).count()
    }

    /// Stops, reads every key once more, and checks the whole together with what others have seen of the same keys. Prints
    /// how much it was.
    pub async fn check(mut self, others: Vec<Operation>) -> Result {
        self.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await.ok();
        }
        for (seed, tag) in (0..).zip(&self.tags) {
            let mut last = self.client(seed, tag.clone());
            for key in 0..KEYS_PER_SHARD {
                last.read_at_last(format!("{tag}{key}")).await?;
            }
        }
        let mut history =
            std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        history.extend(others);
        let unknown = history.iter().filter(|one| one.end.is_none()).count();
        println!("      history of {} operations, {unknown} of unknown end", history.len());
        history::check(&history).map_err(|why| Failure::new(format!("not linearizable: {why}")))
    }
}

/// One client of one shard.
struct Probe {
    client: Client,
    tag: String,
    state: u64,
    seen: Arc<Mutex<Vec<Operation>>>,
    values: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Probe {
    async fn go_on(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (key, reads) =
                ((self.state >> 33) % KEYS_PER_SHARD, (self.state >> 40).is_multiple_of(2));
            let value =
                (!reads).then(|| format!("v{}", self.values.fetch_add(1, Ordering::Relaxed)));
            let done = self.once(format!("{}{key}", self.tag), value).await;
            tokio::time::sleep(if done { PACE } else { RETRY }).await;
        }
    }

    /// Reads until that has happened, which is to be soon.
    async fn read_at_last(&mut self, key: String) -> Result {
        let reads = async {
            while !self.once(key.clone(), None).await {
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::time::timeout(LAST_READ_MAX, reads).await.context("last read of a key")
    }

    /// Writes the value, or reads if there is none; whether it surely happened.
    async fn once(&mut self, key: String, value: Option<String>) -> bool {
        let begin = clock::wall_micros();
        let reply = match &value {
            Some(value) => self.client.call(&key, &["SET", &key, value]).await,
            None => self.client.call(&key, &["GET", &key]).await,
        };
        let end = Some(clock::wall_micros());
        let (action, end) = outcome(value, reply, end);
        let done = end.is_some();
        let operation = Operation { key, action, begin, end };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
        done
    }
}

/// What a reply says about an operation. Refusals count as failures of unknown outcome: that is weaker, and never wrong.
pub fn outcome(
    value: Option<String>,
    reply: Result<Reply>,
    end: Option<u64>,
) -> (Action, Option<u64>) {
    match (value, reply) {
        (Some(value), Ok(Reply::Text(ok))) if ok == "OK" => (Action::Write(value), end),
        (Some(value), _) => (Action::Write(value), None),
        (None, Ok(reply @ (Reply::Bytes(_) | Reply::Nothing))) => (Action::Read(reply.text()), end),
        (None, _) => (Action::Read(None), None),
    }
}
