//! Channels and patterns, and who listens to them on this member.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::resp::Reply;
use crate::session::ClientInfo;

type Listeners = HashMap<Vec<u8>, Vec<Arc<ClientInfo>>>;

#[derive(Default)]
pub struct PubSub {
    channels: RwLock<Listeners>,
    patterns: RwLock<Listeners>,
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
            let mut encoded = Encoded::new(&parts);
            for client in clients {
                deliver(client, encoded.bytes_for(client));
                receivers += 1;
            }
        }
        drop(channels);
        let patterns = self.patterns.read().unwrap_or_else(PoisonError::into_inner);
        for (pattern, clients) in patterns.iter() {
            if crate::glob::matches(pattern, channel) {
                let parts: [&[u8]; 4] = [b"pmessage", pattern, channel, message];
                let mut encoded = Encoded::new(&parts);
                for client in clients {
                    deliver(client, encoded.bytes_for(client));
                    receivers += 1;
                }
            }
        }
        receivers
    }

    /// Every subscription: the channel or pattern, whether it is a pattern, and whose it is.
    pub fn each_subscription(&self, mut look: impl FnMut(&[u8], bool, &Arc<ClientInfo>)) {
        for (subscriptions, is_pattern) in [(&self.channels, false), (&self.patterns, true)] {
            let subscriptions = subscriptions.read().unwrap_or_else(PoisonError::into_inner);
            for (name, clients) in subscriptions.iter() {
                clients.iter().for_each(|client| look(name, is_pattern, client));
            }
        }
    }

    /// Channels with listeners that match a pattern.
    pub fn channels(&self, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        let fits = |name: &Vec<u8>| pattern.is_none_or(|p| crate::glob::matches(p, name));
        let mut found: Vec<_> = channels.keys().filter(|c| fits(c)).cloned().collect();
        found.sort();
        found
    }

    pub fn listeners_of(&self, channel: &[u8]) -> usize {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        channels.get(channel).map_or(0, Vec::len)
    }

    pub fn patterns(&self) -> usize {
        self.patterns.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn channel_count(&self) -> usize {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).len()
    }
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
