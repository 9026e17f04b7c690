//! The connections of this member's bus that are there now, as CLUSTER LINKS shows them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::WeakSender;

use crate::council::message::Message;
use crate::topology::MemberId;

/// One connection to another member, which carries one direction.
#[derive(Clone)]
pub struct LinkFacts {
    pub peer: MemberId,
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

    /// A connection that another member has made.
    pub(super) fn heard(&self, peer: MemberId) -> Listed {
        self.list(peer, None)
    }

    /// A connection that this member has made, to send what is queued.
    pub(super) fn made(&self, peer: MemberId, queue: WeakSender<Message>) -> Listed {
        self.list(peer, Some(queue))
    }

    fn list(&self, peer: MemberId, queue: Option<WeakSender<Message>>) -> Listed {
        let facts = LinkFacts {
            peer,
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
        let made = links.made("b".into(), queue.downgrade());
        let heard = links.heard("c".into());
        made.writes(100);
        let all = links.all();
        let facts: Vec<_> =
            all.iter().map(|l| (l.peer.as_str(), l.sends, l.waiting_bytes())).collect();
        assert_eq!(facts, [("b", true, 100), ("c", false, 0)]);
        drop(made);
        assert_eq!(links.all().len(), 1);
        drop(heard);
        assert!(links.all().is_empty());
    }
}
