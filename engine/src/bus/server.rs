//! The listening end of the bus: one port for members' links and the operator's questions.
//!
//! A connection speaks first `Hello`, then only what its certificate's role allows: a member sends
//! council messages, the operator asks. Certificates are read anew for each connection, so that they
//! can be rotated under a running member.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::frame::{self, Envelope};
use super::tls::{Peer, Tls, peer_of};
use super::{Answer, Ask, VERSION};
use crate::council::message::Message;
use crate::topology::MemberId;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 1024;
/// A connection that has not said who it is by then is closed.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// What comes in, for the one task that drives the council.
pub enum Inbound {
    Message { from: MemberId, message: Box<Message> },
    Ask { ask: Box<Ask>, answer: oneshot::Sender<Answer> },
}

/// Accepts connections for ever.
pub async fn serve(listener: TcpListener, me: MemberId, tls_dir: PathBuf, to: mpsc::Sender<Inbound>) {
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
        let (me, tls_dir, to) = (me.clone(), tls_dir.clone(), to.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_one(tcp, me, tls_dir, to).await {
                tracing::debug!(%error, "a connection of the bus ended");
            }
            drop(slot);
        });
    }
}

async fn serve_one(
    tcp: TcpStream,
    me: MemberId,
    tls_dir: PathBuf,
    to: mpsc::Sender<Inbound>,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let tls = Tls::from_dir(&tls_dir)?;
    let greeting = async {
        let mut stream = tls.acceptor().accept(tcp).await?;
        let role = peer_of(stream.get_ref().1.peer_certificates())
            .ok_or(io::Error::new(io::ErrorKind::PermissionDenied, "a certificate of no role"))?;
        let hello = frame::read(&mut stream).await?;
        frame::write(&mut stream, &Envelope::Hello { version: VERSION, member: Some(me) }).await?;
        io::Result::Ok((stream, role, hello))
    };
    let (stream, role, hello) = timeout(GREETING_MAX, greeting).await??;
    match (role, hello) {
        (Peer::Member, Some(Envelope::Hello { member: Some(from), .. })) => {
            serve_member(stream, from, to).await
        }
        (Peer::Operator, Some(Envelope::Hello { .. })) => serve_operator(stream, to).await,
        (_, None) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a greeting")),
    }
}

async fn serve_member(
    mut stream: TlsStream<TcpStream>,
    from: MemberId,
    to: mpsc::Sender<Inbound>,
) -> io::Result<()> {
    while let Some(envelope) = frame::read(&mut stream).await? {
        let Envelope::Council(message) = envelope else {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not for members"));
        };
        let inbound = Inbound::Message { from: from.clone(), message };
        if to.send(inbound).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn serve_operator(
    mut stream: TlsStream<TcpStream>,
    to: mpsc::Sender<Inbound>,
) -> io::Result<()> {
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
