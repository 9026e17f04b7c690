//! The asking end of the bus: one question to one member, with a time limit.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

use super::frame::{self, Envelope};
use super::tls::Tls;
use super::transport::{Addresses, Stream, Transport};
use super::{Answer, Ask, Meeting, Met, VERSION};
use crate::sockets;
use crate::topology::MemberId;

/// A connection to a member's bus, past TLS and the exchange of versions.
pub struct Connection {
    stream: Stream,
    /// Who answered; a member tells its ID.
    pub peer: Option<MemberId>,
    /// Those of its ends, where a member dialled.
    pub ends: Option<Addresses>,
}

impl Connection {
    /// Dials `addr` (`host:port`); `member` is who dials, `None` for the operator.
    ///
    /// # Errors
    /// What TCP, TLS or the first frame said; `Unsupported` when the other side speaks no common
    /// version.
    pub async fn open(addr: &str, tls: &Tls, member: Option<MemberId>) -> io::Result<Self> {
        let tcp = TcpStream::connect(addr).await?;
        sockets::of_the_bus(&tcp)?;
        let stream = tls.connector().connect(Tls::server_name()?, tcp).await?;
        Self::greet(Box::new(stream), member).await
    }

    /// As `open`, as a member of that ID, over whatever the bus runs on here.
    ///
    /// # Errors
    /// As `open`.
    pub async fn dial(
        addr: impl ToSocketAddrs,
        over: &Transport,
        member: MemberId,
    ) -> io::Result<Self> {
        let (stream, ends) = over.dial(addr).await?;
        let greeted = Self::greet(stream, Some(member)).await?;
        Ok(Self { ends: Some(ends), ..greeted })
    }

    async fn greet(mut stream: Stream, member: Option<MemberId>) -> io::Result<Self> {
        frame::write(&mut stream, &Envelope::Hello { version: VERSION, member }).await?;
        match frame::read(&mut stream).await? {
            Some(Envelope::Hello { version, member }) if version >= 1 => {
                Ok(Self { stream, peer: member, ends: None })
            }
            Some(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "no common bus version")),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the transport said; the connection is of no more use then.
    pub async fn ask(&mut self, ask: Ask) -> io::Result<Answer> {
        frame::write(&mut self.stream, &Envelope::Ask(Box::new(ask))).await?;
        match frame::read(&mut self.stream).await? {
            Some(Envelope::Answer(answer)) => Ok(*answer),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer")),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// As one member of an unmanaged cluster to another, and waits for the answer.
    ///
    /// # Errors
    /// What the transport said; the connection is of no more use then.
    pub async fn meet(&mut self, meeting: Meeting) -> io::Result<Met> {
        frame::write(&mut self.stream, &Envelope::Meet(Box::new(meeting))).await?;
        match frame::read(&mut self.stream).await? {
            Some(Envelope::Met(met)) => Ok(*met),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer")),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The stream itself, for a link that speaks more than questions.
    pub fn into_stream(self) -> Stream {
        self.stream
    }
}

/// Asks the member at `addr` (`host:port`) one question, as the operator.
///
/// # Errors
/// `TimedOut` when dialling and answering took longer than `limit`, `ConnectionRefused` when nothing
/// listens, else what the transport said.
pub async fn ask(addr: &str, tls: &Tls, ask: Ask, limit: Duration) -> io::Result<Answer> {
    let question = async { Connection::open(addr, tls, None).await?.ask(ask).await };
    match timeout(limit, question).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {addr}"))),
    }
}
