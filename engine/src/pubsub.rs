//! Channels, patterns and shard channels, and who listens to them on this member.
//!
//! A shard channel belongs to the slot of its name: it is heard only on members of the shard that owns the slot.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::resp::Reply;
use crate::session::ClientInfo;
use crate::topology::slot_of;

type Listeners = HashMap<Vec<u8>, Vec<Arc<ClientInfo>>>;

#[derive(Default)]
pub struct PubSub {
    channels: RwLock<Listeners>,
    patterns: RwLock<Listeners>,
    shards: RwLock<Listeners>,
    listeners: AtomicUsize,
}

impl PubSub {
    pub fn subscribe(&self, channel: &[u8], client: &Arc<ClientInfo>) {
        self.add(&self.channels, channel, client);
    }

    pub fn psubscribe(&self, pattern: &[u8], client: &Arc<ClientInfo>) {
        self.add(&self.patterns, pattern, client);
    }

    pub fn unsubscribe(&self, channel: &[u8], client: &Arc<ClientInfo>) {
        self.remove(&self.channels, channel, client);
    }

    pub fn punsubscribe(&self, pattern: &[u8], client: &Arc<ClientInfo>) {
        self.remove(&self.patterns, pattern, client);
    }

    pub fn ssubscribe(&self, channel: &[u8], client: &Arc<ClientInfo>) {
        self.add(&self.shards, channel, client);
    }

    pub fn sunsubscribe(&self, channel: &[u8], client: &Arc<ClientInfo>) {
        self.remove(&self.shards, channel, client);
    }

    fn add(&self, to: &RwLock<Listeners>, name: &[u8], client: &Arc<ClientInfo>) {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let mut to = to.write().unwrap_or_else(PoisonError::into_inner);
        to.entry(name.to_vec()).or_default().push(client.clone());
    }

    fn remove(&self, from: &RwLock<Listeners>, name: &[u8], client: &Arc<ClientInfo>) {
        let mut from = from.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(clients) = from.get_mut(name) {
            if let Some(i) = clients.iter().position(|c| c.id == client.id) {
                clients.remove(i);
                self.listeners.fetch_sub(1, Ordering::Relaxed);
            }
            if clients.is_empty() {
                from.remove(name);
            }
        }
    }

    /// Gives a message to everyone who listens; `deliver` gets the client and the encoded push.
    /// Returns how many got it.
    pub fn publish(
        &self,
        channel: &[u8],
        message: &[u8],
        mut deliver: impl FnMut(&Arc<ClientInfo>, Arc<[u8]>),
    ) -> usize {
        if self.listeners.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut receivers = 0;
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(clients) = channels.get(channel) {
            let parts: [&[u8]; 3] = [b"message", channel, message];
            receivers += send(&parts, clients, &mut deliver);
        }
        drop(channels);
        let patterns = self.patterns.read().unwrap_or_else(PoisonError::into_inner);
        for (pattern, clients) in patterns.iter() {
            if crate::glob::matches(pattern, channel) {
                let parts: [&[u8]; 4] = [b"pmessage", pattern, channel, message];
                receivers += send(&parts, clients, &mut deliver);
            }
        }
        receivers
    }

    /// Every subscription: the channel or pattern, whether it is a pattern, and whose it is.
    pub fn each_subscription(&self, mut look: impl FnMut(&[u8], bool, &Arc<ClientInfo>)) {
        let maps = [(&self.channels, false), (&self.patterns, true), (&self.shards, false)];
        for (subscriptions, is_pattern) in maps {
            let subscriptions = subscriptions.read().unwrap_or_else(PoisonError::into_inner);
            for (name, clients) in subscriptions.iter() {
                clients.iter().for_each(|client| look(name, is_pattern, client));
            }
        }
    }

    /// The same for a shard channel, which no pattern matches.
    pub fn spublish(
        &self,
        channel: &[u8],
        message: &[u8],
        mut deliver: impl FnMut(&Arc<ClientInfo>, Arc<[u8]>),
    ) -> usize {
        if self.listeners.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let Some(clients) = shards.get(channel) else { return 0 };
        let parts: [&[u8]; 3] = [b"smessage", channel, message];
        send(&parts, clients, &mut deliver)
    }

    /// Shard channels that are listened to although their slot is not (or no longer) served here, with who does.
    pub fn foreign_shards(
        &self,
        is_served: impl Fn(u16) -> bool,
    ) -> Vec<(Vec<u8>, Arc<ClientInfo>)> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let foreign = shards.iter().filter(|(channel, _)| !is_served(slot_of(channel)));
        foreign
            .flat_map(|(channel, clients)| clients.iter().map(|c| (channel.clone(), c.clone())))
            .collect()
    }

    /// Channels with listeners that match a pattern.
    pub fn channels(&self, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
        names(&self.channels, pattern)
    }

    pub fn shard_channels(&self, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
        names(&self.shards, pattern)
    }

    pub fn listeners_of(&self, channel: &[u8]) -> usize {
        count(&self.channels, channel)
    }

    pub fn shard_listeners_of(&self, channel: &[u8]) -> usize {
        count(&self.shards, channel)
    }

    pub fn patterns(&self) -> usize {
        self.patterns.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn channel_count(&self) -> usize {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn shard_channel_count(&self) -> usize {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn names(of: &RwLock<Listeners>, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
    let of = of.read().unwrap_or_else(PoisonError::into_inner);
    let fits = |name: &Vec<u8>| pattern.is_none_or(|p| crate::glob::matches(p, name));
    let mut found: Vec<_> = of.keys().filter(|name| fits(name)).cloned().collect();
    found.sort();
    found
}

fn count(of: &RwLock<Listeners>, name: &[u8]) -> usize {
    of.read().unwrap_or_else(PoisonError::into_inner).get(name).map_or(0, Vec::len)
}

/// One message to each of the clients, in the form that each has chosen; gives how many there are.
fn send(
    parts: &[&[u8]],
    clients: &[Arc<ClientInfo>],
    deliver: &mut impl FnMut(&Arc<ClientInfo>, Arc<[u8]>),
) -> usize {
    let mut encoded = Encoded::new(parts);
    clients.iter().for_each(|client| deliver(client, encoded.bytes_for(client)));
    clients.len()
}

/// A push encoded once for each protocol that somebody wants it in.
struct Encoded<'a> {
    parts: &'a [&'a [u8]],
    made: [Option<Arc<[u8]>>; 2],
}

impl<'a> Encoded<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Encoded<'a> {
        Encoded { parts, made: [None, None] }
    }

    fn bytes_for(&mut self, client: &ClientInfo) -> Arc<[u8]> {
        let resp3 = client.resp3.load(Ordering::Relaxed);
        self.made[usize::from(resp3)]
            .get_or_insert_with(|| {
                let mut reply = Reply::new(Vec::new(), resp3);
                reply.push(self.parts.len());
                self.parts.iter().for_each(|part| reply.bulk(part));
                reply.out.into()
            })
            .clone()
    }
}
