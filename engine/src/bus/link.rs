//! A link to one other member: dials, sends what the council has for it, dials again.
//!
//! Links carry one direction each. The queue is bounded, and what does not fit is dropped: the council
//! expects a network that loses messages. While there is no connection the queue is emptied, because
//! old news helps nobody.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::client::Connection;
use super::frame::{self, Envelope};
use super::links::{Links, Listed};
use super::names::Name;
use super::transport::{Stream, Transport};
use crate::council::message::Message;
use crate::topology::MemberId;

/// Messages that wait for one member at most.
const QUEUE_MAX: usize = 1024;
/// Between two attempts to dial: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
const DIAL_MAX: Duration = Duration::from_secs(2);
/// A write that takes longer means that nobody reads any more.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// The sending end of a link; dropping it ends the link.
pub struct Link {
    queue: mpsc::Sender<Message>,
    /// `host:port` that the link dials; another one means another link.
    pub addr: String,
}

/// Who links, and with what.
#[derive(Clone)]
pub struct Dialer {
    pub me: MemberId,
    pub over: Transport,
    /// Told when a member's host refuses the connection.
    pub refused: mpsc::Sender<MemberId>,
    /// Where links are listed while they are connected.
    pub links: Links,
}

impl Link {
    /// Starts a link on the current runtime.
    pub fn start(dialer: Dialer, peer: MemberId, addr: String) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(dialer, peer, addr.clone(), messages, queue.downgrade()));
        Self { queue, addr }
    }

    /// Queues a message, or drops it when the queue is full.
    pub fn send(&self, message: Message) {
        // Lost like any other message of a network that loses messages.
        let _ = self.queue.try_send(message);
    }
}

async fn run(
    dialer: Dialer,
    peer: MemberId,
    addr: String,
    mut messages: mpsc::Receiver<Message>,
    queue: mpsc::WeakSender<Message>,
) {
    let mut pause = PAUSE_MIN;
    let mut name = Name::new(addr.clone());
    while !messages.is_closed() {
        match timeout(DIAL_MAX, dial(&dialer, &peer, &mut name)).await {
            Ok(Ok((stream, address))) => {
                pause = PAUSE_MIN;
                while messages.try_recv().is_ok() {}
                let listed = dialer.links.made(peer.clone(), address, queue.clone());
                if let Err(error) = carry(stream, &mut messages, &listed).await {
                    tracing::debug!(%peer, %addr, %error, "a link ended");
                }
                // Dialled again at once: a process that has died refuses, and that is news.
                continue;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if dialer.refused.send(peer.clone()).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => tracing::debug!(%peer, %addr, %error, "a link cannot be made"),
            Err(_) => tracing::debug!(%peer, %addr, "a link cannot be made: no answer"),
        }
        while messages.try_recv().is_ok() {}
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn dial(dialer: &Dialer, peer: &MemberId, name: &mut Name) -> io::Result<(Stream, IpAddr)> {
    let found = name.addresses(dialer.links.heard_at(peer)).await?;
    let dialled = Connection::dial(found.addresses.as_slice(), &dialer.over, dialer.me.clone());
    let connection = dialled.await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused if !found.is_said => io::Error::other(error),
        _ => error,
    })?;
    match connection.ends {
        Some(ends) if connection.peer.as_ref() == Some(peer) => {
            Ok((connection.into_stream(), ends.remote))
        }
        // The address belongs to somebody else by now.
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "another member answers there")),
    }
}

async fn carry(
    stream: Stream,
    messages: &mut mpsc::Receiver<Message>,
    listed: &Listed,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut byte = [0u8; 1];
    loop {
        tokio::select! {
            // Nothing is ever sent this way: this ends when the other side is gone.
            gone = reader.read(&mut byte) => return gone.map(|_| ()),
            message = messages.recv() => {
                let Some(message) = message else { return Ok(()) };
                let envelope = Envelope::Council(Box::new(message));
                let bytes = frame::encode(&envelope)?;
                listed.writes(bytes.len());
                timeout(WRITE_MAX, frame::write_bytes(&mut writer, &bytes)).await??;
                listed.writes(0);
            }
        }
    }
}
