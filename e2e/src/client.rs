//! A cluster client that finds its members again after anything: failovers, cut wires, new addresses.

use crate::failure::{Context, Failure, Result};
use crate::slot::slot_of;
use crate::wire::{Connection, Reply};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the client waits for anything before it tries elsewhere.
const PATIENCE: Duration = Duration::from_millis(400);
const REDIRECTS_MAX: usize = 4;

/// Where members are now, by name. Shared by clients, kept up to date by whoever can see the members.
#[derive(Clone, Default)]
pub struct AddressBook(Arc<Mutex<BTreeMap<String, SocketAddr>>>);

impl AddressBook {
    pub fn set(&self, members: BTreeMap<String, SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = members;
    }

    pub fn all(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    pub fn of(&self, member: &str) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(member).copied()
    }

    /// The name of the member at an address.
    pub fn name_at(&self, address: SocketAddr) -> Option<String> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.iter().find(|(_, known)| **known == address).map(|(name, _)| name.clone())
    }

    /// What a member announces: an IP, or a DNS name whose first label is the member's name.
    fn resolve(&self, host: &str, port: u16) -> Option<SocketAddr> {
        match host.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, port)),
            Err(_) => self.of(host.split('.').next()?),
        }
    }
}

/// A range of slots, its primary first, then its replicas.
#[derive(Clone, Debug)]
pub struct Range {
    pub first: u16,
    pub last: u16,
    pub members: Vec<SocketAddr>,
}

/// A client of one cluster.
pub struct Client {
    book: AddressBook,
    password: Option<String>,
    ranges: Vec<Range>,
    /// Slots that a MOVED reply placed elsewhere since the ranges were read.
    moved: HashMap<u16, SocketAddr>,
    connections: HashMap<SocketAddr, Connection>,
}

impl Client {
    pub fn new(book: &AddressBook, password: Option<&str>) -> Self {
        Self {
            book: book.clone(),
            password: password.map(str::to_owned),
            ranges: Vec::new(),
            moved: HashMap::new(),
            connections: HashMap::new(),
        }
    }

    /// Asks all members at once for the slots and takes the first answer that covers all of them.
    pub async fn refresh(&mut self) -> Result {
        self.moved.clear();
        let asks = self.book.all().into_iter().map(|address| {
            let (book, password) = (self.book.clone(), self.password.clone());
            Box::pin(async move {
                let mut connection =
                    Connection::open(address, password.as_deref(), PATIENCE).await?;
                let ranges = ranges(&connection.call(&["CLUSTER", "SLOTS"]).await?.ok()?, &book)?;
                let covered: usize =
                    ranges.iter().map(|range| usize::from(range.last - range.first) + 1).sum();
                crate::ensure!(covered == 16384, "{address} knows owners of {covered} slots only");
                Ok::<_, Failure>(ranges)
            })
        });
        let mut asks: Vec<_> = asks.collect();
        let mut last = Failure::new("no member is known");
        while !asks.is_empty() {
            let (answer, _, rest) = futures::future::select_all(asks).await;
            match answer {
                Ok(ranges) => {
                    self.ranges = ranges;
                    return Ok(());
                }
                Err(failure) => last = failure,
            }
            asks = rest;
        }
        Err(last)
    }

    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// That many primaries own the slots, each as many as the others, give or take one.
    pub async fn ensure_even(&mut self, shards: usize) -> Result {
        self.refresh().await?;
        let mut owned: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for range in &self.ranges {
            let primary = *range.members.first().context("a primary")?;
            *owned.entry(primary).or_default() += usize::from(range.last - range.first) + 1;
        }
        let even = owned.values().all(|slots| slots.abs_diff(16384 / shards) <= 1);
        crate::ensure!(owned.len() == shards && even, "slots by primary: {owned:?}");
        Ok(())
    }

    /// The primary of a slot, as far as is known.
    pub fn primary_of(&self, slot: u16) -> Option<SocketAddr> {
        let of_range =
            || self.ranges.iter().find(|range| (range.first..=range.last).contains(&slot));
        self.moved.get(&slot).copied().or_else(|| of_range()?.members.first().copied())
    }

    /// A command on one key, at its primary, following redirects. One attempt: the caller decides about retries.
    pub async fn call(&mut self, key: &str, arguments: &[&str]) -> Result<Reply> {
        let slot = slot_of(key.as_bytes());
        if self.primary_of(slot).is_none() {
            self.refresh().await?;
        }
        let mut address = self.primary_of(slot).context("owner of the slot")?;
        for _ in 0..REDIRECTS_MAX {
            let reply = match self.call_at(address, arguments).await {
                Ok(reply) => reply,
                Err(failure) => {
                    self.moved.remove(&slot);
                    self.refresh().await.ok();
                    return Err(failure);
                }
            };
            let Reply::Error(error) = &reply else { return Ok(reply) };
            let mut words = error.split_whitespace();
            if words.next() != Some("MOVED") {
                // READONLY, CLUSTERDOWN, LOADING and the like: not the owner any more, or not ready.
                self.refresh().await.ok();
                return Ok(reply);
            }
            let target = words.nth(1).and_then(|target| target.rsplit_once(':')).context(error)?;
            address = self.book.resolve(target.0, target.1.parse()?).context(error)?;
            self.moved.insert(slot, address);
        }
        self.refresh().await.ok();
        Err(Failure::new("redirected too often"))
    }

    /// A command at one member, whoever owns the key.
    pub async fn call_at(&mut self, address: SocketAddr, arguments: &[&str]) -> Result<Reply> {
        let kept = self.connections.remove(&address).filter(Connection::is_open);
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(address, self.password.as_deref(), PATIENCE).await?,
        };
        let reply = connection.call(arguments).await?;
        self.connections.insert(address, connection);
        Ok(reply)
    }

    /// Reads many keys, in batches per primary; a key that could not be asked for is a failure.
    pub async fn get_all(&mut self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        self.refresh().await?;
        let mut out: Vec<Option<Vec<u8>>> = vec![None; keys.len()];
        let mut at: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
        for (index, key) in keys.iter().enumerate() {
            let address = self.primary_of(slot_of(key.as_bytes())).context("owner of the slot")?;
            at.entry(address).or_default().push(index);
        }
        for (address, indexes) in at {
            let mut connection =
                Connection::open(address, self.password.as_deref(), Duration::from_secs(10))
                    .await?;
            for batch in indexes.chunks(500) {
                let requests: Vec<Vec<&str>> =
                    batch.iter().map(|index| vec!["GET", &keys[*index]]).collect();
                for (index, reply) in batch.iter().zip(connection.pipeline(&requests).await?) {
                    out[*index] = match reply.ok().context(address)? {
                        Reply::Bytes(bytes) => Some(bytes),
                        Reply::Nothing => None,
                        other => return Err(Failure::new(format!("GET answered {other:?}"))),
                    };
                }
            }
        }
        Ok(out)
    }
}

fn ranges(reply: &Reply, book: &AddressBook) -> Result<Vec<Range>> {
    let mut out = Vec::new();
    for item in reply.list() {
        let [first, last, members @ ..] = item.list() else {
            crate::fail!("CLUSTER SLOTS: {item:?}")
        };
        let slot =
            |reply: &Reply| u16::try_from(reply.number().unwrap_or(-1)).context("slot number");
        let mut addresses = Vec::new();
        for member in members {
            let [host, port, ..] = member.list() else { crate::fail!("CLUSTER SLOTS: {member:?}") };
            let port = u16::try_from(port.number().unwrap_or(-1)).context("port")?;
            let host = host.text().unwrap_or_default();
            if let Some(address) = book.resolve(&host, port) {
                addresses.push(address);
            } else if addresses.is_empty() {
                crate::fail!("a primary has no address ({host:?})");
            }
        }
        out.push(Range { first: slot(first)?, last: slot(last)?, members: addresses });
    }
    // Shards are dealt in the order of their slots, whatever order a member tells them in.
    out.sort_by_key(|range| range.first);
    Ok(out)
}
