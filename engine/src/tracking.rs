//! CLIENT TRACKING: which clients cache which keys, and are told when they change.
//!
//! A client that tracks is remembered with the keys that it reads, or (BCAST) with prefixes of keys. Whoever changes a key
//! sends an `invalidate` to those clients and forgets them for that key. Reads register, and changes look up, under the
//! key's lock: a client that read an old value is always told.
//!
//! The table is bounded by `tracking-table-max-keys`: keys that are too many are forgotten, and their clients told as if
//! they had changed. IDs of clients that are gone stay in it until then.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use smallvec::SmallVec;

use crate::keyspace::hash_key;
use crate::resp::Reply;
use crate::server::Shared;
use crate::session::ClientInfo;
use crate::topology::slot_of;

/// Parts of the table, each under a lock of its own.
const PARTS: usize = 64;
/// The channel that clients in RESP2 hear of changes on.
const CHANNEL: &[u8] = b"__redis__:invalidate";
/// Keys that one read makes room for, at most, beside its own.
const FORGOTTEN_PER_READ: usize = 64;

type Readers = HashMap<Vec<u8>, SmallVec<[u64; 2]>>;

/// How a client tracks.
#[derive(Clone, Default)]
pub struct Mode {
    pub bcast: bool,
    pub opt_in: bool,
    pub opt_out: bool,
    pub no_loop: bool,
    /// The client that is told in its place; 0: itself.
    pub redirect: u64,
    /// That client was gone when it should have been told.
    pub broken: bool,
    /// Of BCAST; no two of them fit the same key.
    pub prefixes: Vec<Vec<u8>>,
}

/// Which of a client's reads are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Remembers {
    #[default]
    Nothing,
    Reads,
    /// Those behind CLIENT CACHING YES.
    OptIn,
    /// All but those behind CLIENT CACHING NO.
    OptOut,
}

impl Mode {
    /// The client is told of keys that it has read, when `by` changes them.
    fn hears_of_reads(&self, client: u64, by: u64) -> bool {
        let is_own = self.no_loop && client == by;
        !self.bcast && !is_own
    }

    pub fn remembers(&self) -> Remembers {
        match self {
            Mode { bcast: true, .. } => Remembers::Nothing,
            Mode { opt_in: true, .. } => Remembers::OptIn,
            Mode { opt_out: true, .. } => Remembers::OptOut,
            _ => Remembers::Reads,
        }
    }
}

pub struct Tracking {
    clients: AtomicUsize,
    parts: Box<[Mutex<Readers>]>,
    /// Keys in the table, and clients of all of them.
    keys: AtomicUsize,
    items: AtomicUsize,
    prefixes: RwLock<BTreeMap<Vec<u8>, Vec<Arc<ClientInfo>>>>,
    /// Part of the table where room is made next.
    hand: AtomicUsize,
}

impl Default for Tracking {
    fn default() -> Tracking {
        Tracking {
            clients: AtomicUsize::new(0),
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            prefixes: RwLock::default(),
            hand: AtomicUsize::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tracking {
    /// Some client tracks: changed keys must be told.
    #[inline]
    pub fn any(&self) -> bool {
        self.clients.load(Ordering::Relaxed) > 0
    }

    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Keys in the table, clients of all of them, prefixes.
    pub fn sizes(&self) -> [usize; 3] {
        let prefixes = self.prefixes.read().unwrap_or_else(PoisonError::into_inner).len();
        [self.keys.load(Ordering::Relaxed), self.items.load(Ordering::Relaxed), prefixes]
    }

    fn part(&self, key: &[u8]) -> &Mutex<Readers> {
        &self.parts[hash_key(key) as usize % PARTS]
    }

    /// Switches tracking on for a client, or changes how it tracks.
    pub fn on(&self, client: &Arc<ClientInfo>, mode: Mode) {
        // In the order in which `invalidate` takes them.
        let mut prefixes = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = lock(&client.tracking);
        let known = old.as_ref().map_or(0, |m| m.prefixes.len());
        if old.is_none() {
            self.clients.fetch_add(1, Ordering::AcqRel);
        }
        for prefix in &mode.prefixes[known..] {
            prefixes.entry(prefix.clone()).or_default().push(client.clone());
        }
        *old = Some(mode);
    }

    pub fn off(&self, client: &ClientInfo) {
        let Some(mode) = lock(&client.tracking).take() else { return };
        self.clients.fetch_sub(1, Ordering::AcqRel);
        let mut all = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
        for prefix in mode.prefixes {
            if let Some(clients) = all.get_mut(&prefix) {
                clients.retain(|c| c.id != client.id);
                if clients.is_empty() {
                    all.remove(&prefix);
                }
            }
        }
    }

    /// A client has read a key, whose lock the caller holds.
    fn remember(&self, key: &[u8], client: u64) {
        let mut part = lock(self.part(key));
        if !part.contains_key(key) {
            self.keys.fetch_add(1, Ordering::Relaxed);
            part.insert(key.to_vec(), SmallVec::new());
        }
        if let Some(readers) = part.get_mut(key)
            && !readers.contains(&client)
        {
            readers.push(client);
            self.items.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted(&self, readers: SmallVec<[u64; 2]>) -> SmallVec<[u64; 2]> {
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.items.fetch_sub(readers.len(), Ordering::Relaxed);
        readers
    }

    fn forget(&self, key: &[u8]) -> SmallVec<[u64; 2]> {
        let readers = lock(self.part(key)).remove(key);
        readers.map_or_else(SmallVec::new, |readers| self.counted(readers))
    }

    /// Takes some key out of the table.
    fn forget_any(&self) -> Option<(Vec<u8>, SmallVec<[u64; 2]>)> {
        let from = self.hand.fetch_add(1, Ordering::Relaxed);
        (0..PARTS).find_map(|step| {
            let mut part = lock(&self.parts[(from + step) % PARTS]);
            let key = part.keys().next()?.clone();
            let readers = part.remove(&key)?;
            Some((key, self.counted(readers)))
        })
    }

    /// Takes out the keys that are chosen.
    fn forget_all(&self, is_chosen: impl Fn(&[u8]) -> bool) -> Vec<(Vec<u8>, SmallVec<[u64; 2]>)> {
        let mut gone = Vec::new();
        for part in &self.parts {
            let mut part = lock(part);
            let keys: Vec<Vec<u8>> = part.keys().filter(|key| is_chosen(key)).cloned().collect();
            for key in keys {
                if let Some(readers) = part.remove(&key) {
                    gone.push((key, self.counted(readers)));
                }
            }
        }
        gone
    }
}

impl Shared {
    /// A client has read keys, whose locks the caller holds.
    #[cold]
    pub fn remember_reads<'k>(&self, keys: impl Iterator<Item = &'k [u8]>, client: u64) {
        for key in keys {
            self.tracking.remember(key, client);
        }
        let max = self.config.tracking_keys_max();
        for _ in 0..FORGOTTEN_PER_READ {
            if max == 0 || self.tracking.keys.load(Ordering::Relaxed) <= max {
                break;
            }
            let Some((key, readers)) = self.tracking.forget_any() else { break };
            self.tell_readers(&key, &readers, 0);
        }
    }

    /// Keys have changed, by the client `by`; the caller holds their locks.
    #[cold]
    pub fn invalidate(&self, changed: &[(u16, Vec<u8>)], by: u64) {
        let mut keys: Vec<&[u8]> = changed.iter().map(|(_, key)| key.as_slice()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in &keys {
            let readers = self.tracking.forget(key);
            self.tell_readers(key, &readers, by);
        }
        let prefixes = self.tracking.prefixes.read().unwrap_or_else(PoisonError::into_inner);
        for (prefix, clients) in prefixes.iter() {
            let fit: Vec<&[u8]> = keys.iter().copied().filter(|k| k.starts_with(prefix)).collect();
            for client in clients.iter().filter(|_| !fit.is_empty()) {
                let mut mode = lock(&client.tracking);
                if let Some(mode) = mode.as_mut().filter(|m| !(m.no_loop && client.id == by)) {
                    match self.acl.restricted_user_of(client) {
                        None => self.send_invalid(client, mode, Some(&fit)),
                        // Names of keys, too, are for those who may read them.
                        Some(user) => {
                            let mut read = fit.clone();
                            read.retain(|key| user.reads_key(key));
                            if !read.is_empty() {
                                self.send_invalid(client, mode, Some(&read));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Whole databases have changed: nothing that anybody caches is true any more.
    pub fn invalidate_all(&self) {
        if !self.tracking.any() {
            return;
        }
        self.tracking.forget_all(|_| true);
        for client in self.clients.all() {
            if let Some(mode) = lock(&client.tracking).as_mut() {
                self.send_invalid(&client, mode, None);
            }
        }
    }

    /// Keys whose slots are served elsewhere now will not be heard of here any more.
    pub fn invalidate_foreign(&self) {
        if self.tracking.any() {
            let foreign = self.tracking.forget_all(|key| !self.hears_shard(slot_of(key)));
            foreign.iter().for_each(|(key, readers)| self.tell_readers(key, readers, 0));
        }
    }

    fn tell_readers(&self, key: &[u8], readers: &[u64], by: u64) {
        for id in readers {
            let Some(client) = self.clients.get(*id) else { continue };
            let mut mode = lock(&client.tracking);
            if let Some(mode) = mode.as_mut().filter(|m| m.hears_of_reads(*id, by)) {
                self.send_invalid(&client, mode, Some(&[key]));
            }
        }
    }

    /// Sends keys, or that nothing is valid, to a client or to the one that hears it in its place.
    fn send_invalid(&self, client: &ClientInfo, mode: &mut Mode, keys: Option<&[&[u8]]>) {
        let redirected = (mode.redirect != 0).then(|| self.clients.get(mode.redirect));
        let target = match &redirected {
            None => client,
            Some(Some(target)) => target,
            Some(None) => {
                mode.broken = true;
                if client.resp3.load(Ordering::Relaxed) {
                    let mut reply = Reply::new(Vec::new(), true);
                    reply.push(2);
                    reply.bulk(b"tracking-redir-broken");
                    reply.int(mode.redirect as i64);
                    self.deliver(client, reply.out.into(), None);
                }
                return;
            }
        };
        let resp3 = target.resp3.load(Ordering::Relaxed);
        let mut reply = Reply::new(Vec::new(), resp3);
        if resp3 {
            reply.push(2);
            reply.bulk(b"invalidate");
        } else if redirected.is_some() && target.listens_to() > 0 {
            reply.array(3);
            reply.bulk(b"message");
            reply.bulk(CHANNEL);
        } else {
            // Who speaks RESP2 cannot be told on the connection that it asks on.
            return;
        }
        match keys {
            Some(keys) => {
                reply.array(keys.len());
                keys.iter().for_each(|key| reply.bulk(key));
            }
            None => reply.null(),
        }
        self.deliver(target, reply.out.into(), None);
    }
}
