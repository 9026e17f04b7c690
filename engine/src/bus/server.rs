//! The listening end of the bus: one port for members' links and the operator's questions.
//!
//! A connection speaks first `Hello`, then only what its certificate's role allows: a member sends
//! council messages, the operator asks. Certificates are read anew for each connection, so that they
//! can be rotated under a running member.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::frame::{self, Envelope};
use super::links::Links;
use super::tls::Peer;
use super::transport::{Stream, Transport};
use super::{Answer, Ask, Meeting, Met, VERSION};
use crate::council::message::Message;
use crate::topology::MemberId;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 1024;
/// A connection that has not said who it is by then is closed.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// What comes in, for the one task that drives the council.
pub enum Inbound {
    Message {
        from: MemberId,
        message: Box<Message>,
    },
    Ask {
        ask: Box<Ask>,
        answer: oneshot::Sender<Answer>,
    },
    /// From a member of an unmanaged cluster, or one that would be.
    Meet {
        meeting: Box<Meeting>,
        answer: oneshot::Sender<Met>,
    },
}

/// Accepts connections for ever.
pub async fn serve(
    listener: TcpListener,
    me: watch::Receiver<MemberId>,
    over: Transport,
    to: mpsc::Sender<Inbound>,
    links: Links,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Out of file descriptors, most likely: others must end before it gets better.
                tracing::warn!(%error, "the bus cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (me, over, to) = (me.borrow().clone(), over.clone(), to.clone());
        let links = links.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_one(tcp, me, over, to, &links).await {
                tracing::debug!(%error, "a connection of the bus ended");
            }
            drop(slot);
        });
    }
}

async fn serve_one(
    tcp: TcpStream,
    me: MemberId,
    over: Transport,
    to: mpsc::Sender<Inbound>,
    links: &Links,
) -> io::Result<()> {
    let address = tcp.peer_addr()?.ip();
    let greeting = async {
        let (mut stream, role) = over.accept(tcp).await?;
        let hello = frame::read(&mut stream).await?;
        frame::write(&mut stream, &Envelope::Hello { version: VERSION, member: Some(me) }).await?;
        io::Result::Ok((stream, role, hello))
    };
    let (stream, role, hello) = timeout(GREETING_MAX, greeting).await??;
    match (role, hello) {
        (Peer::Member, Some(Envelope::Hello { member: Some(from), .. })) => {
            let _listed = links.heard(from.clone(), address);
            serve_member(stream, from, to).await
        }
        (Peer::Operator, Some(Envelope::Hello { .. })) => serve_operator(stream, to).await,
        (_, None) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a greeting")),
    }
}

async fn serve_member(
    mut stream: Stream,
    from: MemberId,
    to: mpsc::Sender<Inbound>,
) -> io::Result<()> {
    while let Some(envelope) = frame::read(&mut stream).await? {
        match envelope {
            Envelope::Council(message) => {
                let inbound = Inbound::Message { from: from.clone(), message };
                if to.send(inbound).await.is_err() {
                    break;
                }
            }
            Envelope::Meet(meeting) => {
                let (answer, answered) = oneshot::channel();
                if to.send(Inbound::Meet { meeting, answer }).await.is_err() {
                    break;
                }
                let met = answered.await.unwrap_or_else(|_| Met::Refused {
                    reason: "the member is shutting down".to_owned(),
                });
                frame::write(&mut stream, &Envelope::Met(Box::new(met))).await?;
            }
            _ => return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not for members")),
        }
    }
    Ok(())
}

async fn serve_operator(mut stream: Stream, to: mpsc::Sender<Inbound>) -> io::Result<()> {
    while let Some(envelope) = frame::read(&mut stream).await? {
        let Envelope::Ask(ask) = envelope else {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not for the operator"));
        };
        let (answer, answered) = oneshot::channel();
        if to.send(Inbound::Ask { ask, answer }).await.is_err() {
            break;
        }
        let answer = answered.await.unwrap_or_else(|_| Answer::Refused {
            reason: "the member is shutting down".to_owned(),
        });
        frame::write(&mut stream, &Envelope::Answer(Box::new(answer))).await?;
    }
    Ok(())
}
