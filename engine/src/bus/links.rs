//! The connections of this member's bus that are there now, as CLUSTER LINKS shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::WeakSender;

use crate::council::message::Message;
use crate::topology::MemberId;

/// Addresses at which members were heard that are kept at most.
const ADDRESSES_MAX: usize = 4096;

/// One connection to another member, which carries one direction.
#[derive(Clone)]
pub struct LinkFacts {
    pub peer: MemberId,
    /// The other end's.
    pub address: IpAddr,
    /// This member dialled, and sends.
    pub sends: bool,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// Of the frame that is being written.
    frame_bytes: Arc<AtomicUsize>,
    /// What waits to be sent.
    queue: Option<WeakSender<Message>>,
}

impl LinkFacts {
    /// Bytes that wait to be sent, of the frame under way and of the messages behind it.
    pub fn waiting_bytes(&self) -> usize {
        let queue = self.queue.as_ref().and_then(WeakSender::upgrade);
        let waiting = queue.map_or(0, |queue| queue.max_capacity() - queue.capacity());
        self.frame_bytes.load(Ordering::Relaxed) + waiting * size_of::<Message>()
    }
}

#[derive(Default)]
struct Known {
    next: u64,
    links: BTreeMap<u64, LinkFacts>,
    /// Where each member had its end of a connection, the last time that there was one.
    addresses: BTreeMap<MemberId, IpAddr>,
}

/// All of them; clones are of the same.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<Known>>);

impl Links {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn all(&self) -> Vec<LinkFacts> {
        self.known().links.values().cloned().collect()
    }

    /// Where a member is that there is a connection to now.
    pub fn connected_at(&self, peer: &MemberId) -> Option<IpAddr> {
        let known = self.known();
        known.links.values().find(|link| link.peer == *peer).map(|link| link.address)
    }

    /// Where a member was when there was a connection to it.
    pub(super) fn heard_at(&self, peer: &MemberId) -> Option<IpAddr> {
        self.known().addresses.get(peer).copied()
    }

    /// A connection that another member has made.
    pub(super) fn heard(&self, peer: MemberId, address: IpAddr) -> Listed {
        self.list(peer, address, None)
    }

    /// A connection that this member has made, to send what is queued.
    pub(super) fn made(
        &self,
        peer: MemberId,
        address: IpAddr,
        queue: WeakSender<Message>,
    ) -> Listed {
        self.list(peer, address, Some(queue))
    }

    fn list(&self, peer: MemberId, address: IpAddr, queue: Option<WeakSender<Message>>) -> Listed {
        let facts = LinkFacts {
            peer: peer.clone(),
            address,
            sends: queue.is_some(),
            created_ms: crate::clock::unix_ms(),
            frame_bytes: Arc::default(),
            queue,
        };
        let frame_bytes = facts.frame_bytes.clone();
        let mut known = self.known();
        let id = known.next;
        known.next += 1;
        known.links.insert(id, facts);
        known.addresses.insert(peer, address);
        if known.addresses.len() > ADDRESSES_MAX {
            // Members that left under their own IDs; one too many costs a question to DNS.
            known.addresses.pop_first();
        }
        drop(known);
        Listed { links: self.clone(), id, frame_bytes }
    }
}

/// A connection is listed as long as this is kept.
pub(super) struct Listed {
    links: Links,
    id: u64,
    frame_bytes: Arc<AtomicUsize>,
}

impl Listed {
    /// Bytes of the frame that is being written; 0: none is.
    pub(super) fn writes(&self, bytes: usize) {
        self.frame_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.links.known().links.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_listed_as_long_as_it_is_there() {
        let links = Links::default();
        let (queue, _messages) = tokio::sync::mpsc::channel(8);
        let (there, elsewhere) = (IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3]));
        let made = links.made("b".into(), there, queue.downgrade());
        let heard = links.heard("c".into(), elsewhere);
        made.writes(100);
        let all = links.all();
        let facts: Vec<_> =
            all.iter().map(|l| (l.peer.as_str(), l.sends, l.waiting_bytes())).collect();
        assert_eq!(facts, [("b", true, 100), ("c", false, 0)]);
        drop(made);
        assert_eq!(links.all().len(), 1);
        assert_eq!(links.connected_at(&"b".into()), None);
        assert_eq!(links.connected_at(&"c".into()), Some(elsewhere));
        drop(heard);
        assert!(links.all().is_empty());
        assert_eq!(links.connected_at(&"c".into()), None);
        assert_eq!(links.heard_at(&"c".into()), Some(elsewhere), "it may be there still");
    }
}
