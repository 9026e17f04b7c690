//! Writers that note every acknowledged write, so that a test can tell afterwards what was lost and how long nothing
//! was accepted.
//!
//! Each write has a key of its own and is repeated until it is acknowledged; what is in the ledger was promised.

use crate::client::{AddressBook, Client};
use crate::clock::{self, eventually};
use crate::failure::{Context, Result};
use crate::figures;
use crate::slot::slot_of;
use crate::wire::Reply;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Pause before a refused write is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// One acknowledged write.
#[derive(Clone, Debug)]
pub struct Ack {
    pub key: String,
    pub value: String,
    /// Wall-clock microseconds at which the acknowledgement arrived.
    pub at: u64,
}

/// The acknowledged writes to one shard, in order, and the longest time between two of them.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub acks: Vec<Ack>,
    gap_max: Duration,
    last: Option<Instant>,
    /// Attempts that were refused or failed.
    pub failures: usize,
    /// What the last refused or failed attempt said.
    pub last_error: Option<String>,
}

impl Ledger {
    fn acknowledge(&mut self, key: &str, value: &str) {
        let now = clock::now();
        if let Some(last) = self.last {
            self.gap_max = self.gap_max.max(now - last);
        }
        self.last = Some(now);
        self.acks.push(Ack {
            key: key.to_owned(),
            value: value.to_owned(),
            at: clock::wall_micros(),
        });
    }

    /// The longest time without an acknowledgement, the present silence included.
    pub fn gap(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |last| last.elapsed()).max(self.gap_max)
    }
}

/// Writers, one per tag. A tag fixes the slot, and so the shard.
pub struct Writers {
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    tags: Vec<String>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// What became of the acknowledged writes.
#[derive(Debug)]
pub struct Loss {
    pub acknowledged: usize,
    pub lost: Vec<Ack>,
}

/// A hash tag whose slot lies in the range.
pub fn tag_in(first: u16, last: u16, salt: &str) -> Result<String> {
    (0..100_000)
        .map(|number| format!("{{{salt}{number}}}"))
        .find(|tag| (first..=last).contains(&slot_of(tag.as_bytes())))
        .context("a tag in the range of slots")
}

impl Writers {
    /// Starts a writer for each shard; `pace` is the pause between two writes.
    pub async fn start(book: &AddressBook, password: Option<&str>, pace: Duration) -> Result<Self> {
        let mut client = Client::new(book, password);
        client.refresh().await?;
        let salt = format!("w{}-", clock::wall_micros());
        let tags = client.ranges().iter().map(|range| tag_in(range.first, range.last, &salt));
        let mut writers = Self {
            ledgers: Vec::new(),
            tags: tags.collect::<Result<_>>()?,
            stop: Arc::new(AtomicBool::new(false)),
            tasks: Vec::new(),
        };
        for tag in &writers.tags {
            let ledger = Arc::new(Mutex::new(Ledger::default()));
            writers.ledgers.push(ledger.clone());
            let client = Client::new(book, password);
            writers.tasks.push(tokio::spawn(write(
                client,
                tag.clone(),
                pace,
                ledger,
                writers.stop.clone(),
            )));
        }
        // The measure starts when every shard has taken a write.
        clock::eventually("first write to each shard", Duration::from_secs(10), || async {
            for (tag, ledger) in writers.tags.iter().zip(writers.ledgers()) {
                crate::ensure!(!ledger.acks.is_empty(), "{tag}: {:?}", ledger.last_error);
            }
            Ok(())
        })
        .await?;
        Ok(writers)
    }

    /// The tags that the writers write under, in the order of the ledgers.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Copies of the ledgers as they are now.
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.ledgers
            .iter()
            .map(|ledger| ledger.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect()
    }

    /// Forgets the gaps so far: a new measure begins.
    pub fn reset_gaps(&self) {
        for ledger in &self.ledgers {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.gap_max = Duration::ZERO;
        }
    }

    /// The longest gap of each shard since the last reset.
    pub fn gaps(&self) -> Vec<Duration> {
        self.ledgers
            .iter()
            .map(|ledger| ledger.lock().unwrap_or_else(PoisonError::into_inner).gap())
            .collect()
    }

    /// Waits until every shard acknowledges writes again, that is, has done so after this call.
    pub async fn all_resume(&self, limit: Duration) -> Result {
        let since = clock::wall_micros();
        clock::eventually("every shard accepts writes", limit, || async {
            for (tag, ledger) in self.tags.iter().zip(self.ledgers.iter()) {
                let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                let fresh = ledger.acks.last().is_some_and(|ack| ack.at > since);
                crate::ensure!(
                    fresh,
                    "{tag}: {}",
                    ledger.last_error.as_deref().unwrap_or("silence")
                );
            }
            Ok(())
        })
        .await
    }

    /// Stops writing and returns the ledgers.
    pub async fn stop(self) -> Vec<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.ok();
        }
        self.ledgers
            .iter()
            .map(|ledger| ledger.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect()
    }
}

async fn write(
    mut client: Client,
    tag: String,
    pace: Duration,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
) {
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("{tag}:{number}"), number.to_string());
        let result = client.call(&key, &["SET", &key, &value]).await;
        let accepted = matches!(&result, Ok(Reply::Text(ok)) if ok == "OK");
        {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.failures += usize::from(!accepted);
            match result {
                Ok(_) if accepted => ledger.acknowledge(&key, &value),
                Ok(other) => ledger.last_error = Some(format!("{other:?}")),
                Err(failure) => ledger.last_error = Some(failure.to_string()),
            }
        }
        number += u64::from(accepted);
        tokio::time::sleep(if accepted { pace } else { RETRY }).await;
    }
}

/// Stops the writers: no write failed, and none was lost. Tells the longest gap since the last reset.
pub async fn nothing_felt(book: &AddressBook, password: Option<&str>, writers: Writers) -> Result {
    let gap = writers.gaps().into_iter().max().unwrap_or_default();
    let ledgers = writers.stop().await;
    let loss = check(book, password, &ledgers).await?;
    let failures: usize = ledgers.iter().map(|ledger| ledger.failures).sum();
    figures::tell("longest write gap", gap);
    println!(
        "      {} writes acknowledged, {} lost, {failures} attempts failed",
        loss.acknowledged,
        loss.lost.len()
    );
    crate::ensure!(loss.lost.is_empty(), "writes were lost");
    let last = ledgers.iter().find_map(|ledger| ledger.last_error.clone()).unwrap_or_default();
    crate::ensure!(failures == 0, "{failures} attempts failed, the last one: {last}");
    Ok(())
}

/// Longest wait until everything can be read.
const READ_MAX: Duration = Duration::from_secs(30);

/// Reads every acknowledged write back.
pub async fn check(book: &AddressBook, password: Option<&str>, ledgers: &[Ledger]) -> Result<Loss> {
    let acks: Vec<&Ack> = ledgers.iter().flat_map(|ledger| &ledger.acks).collect();
    let keys: Vec<String> = acks.iter().map(|ack| ack.key.clone()).collect();
    // A member that was cut off may be asked first, and know for a moment neither its successor nor that it is none any more:
    // it refuses to answer, as it should, and a client asks again.
    let read = || async { Client::new(book, password).get_all(&keys).await };
    let values = eventually("all keys are read", READ_MAX, read).await?;
    let lost = acks
        .iter()
        .zip(&values)
        .filter(|(ack, value)| value.as_deref() != Some(ack.value.as_bytes()))
        .map(|(ack, _)| (*ack).clone())
        .collect();
    Ok(Loss { acknowledged: acks.len(), lost })
}
