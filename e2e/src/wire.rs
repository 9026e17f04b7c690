//! A small Redis client on tokio: one connection, one request after the other, every wait bounded.
//!
//! The tests need to see single replies (MOVED, NOAUTH, READONLY) and silence as they are; a comfortable client hides
//! exactly those.

use crate::failure::{Context, Failure, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Error(String),
    Number(i64),
    Bytes(Vec<u8>),
    Nothing,
    List(Vec<Reply>),
}

impl Reply {
    /// The text of a string of either kind.
    pub fn text(&self) -> Option<String> {
        match self {
            Reply::Text(text) => Some(text.clone()),
            Reply::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<i64> {
        match self {
            Reply::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub fn list(&self) -> &[Reply] {
        match self {
            Reply::List(items) => items,
            _ => &[],
        }
    }

    /// The reply, or what the server complained about.
    pub fn ok(self) -> Result<Reply> {
        match self {
            Reply::Error(error) => Err(Failure::new(error)),
            other => Ok(other),
        }
    }
}

/// One connection. After an error it must not be used again: replies could be out of step.
pub struct Connection<S = TcpStream> {
    stream: BufReader<S>,
    patience: Duration,
}

impl Connection {
    /// Connects and authenticates, each within `patience`, which then holds for every call.
    pub async fn open(
        address: SocketAddr,
        password: Option<&str>,
        patience: Duration,
    ) -> Result<Self> {
        let stream = tokio::time::timeout(patience, TcpStream::connect(address))
            .await
            .map_err(|_| Failure::new(format!("{address}: no connection within {patience:?}")))?
            .context(address)?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream: BufReader::new(stream), patience };
        if let Some(password) = password {
            connection.call(&["AUTH", password]).await?.ok().context("AUTH")?;
        }
        Ok(connection)
    }

    /// The server has not closed it, as far as is known here.
    pub fn is_open(&self) -> bool {
        let closed = |read: std::io::Result<usize>| !matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        !closed(self.stream.get_ref().try_read(&mut [0]))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over a stream that is there already.
    pub fn over(stream: S, patience: Duration) -> Self {
        Self { stream: BufReader::new(stream), patience }
    }

    pub async fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Reply> {
        let mut request = Vec::new();
        encode(&mut request, arguments);
        Ok(self.exchange(&request, 1).await?.remove(0))
    }

    /// Sends many requests at once and reads their replies.
    pub async fn pipeline<A: AsRef<[u8]>>(&mut self, requests: &[Vec<A>]) -> Result<Vec<Reply>> {
        let mut bytes = Vec::new();
        for request in requests {
            encode(&mut bytes, request);
        }
        self.exchange(&bytes, requests.len()).await
    }

    async fn exchange(&mut self, request: &[u8], replies: usize) -> Result<Vec<Reply>> {
        let patience = self.patience;
        let work = async {
            self.stream.get_mut().write_all(request).await?;
            let mut out = Vec::with_capacity(replies);
            for _ in 0..replies {
                out.push(self.read().await?);
            }
            Ok(out)
        };
        in_time(patience, work).await
    }

    /// Sends lines of another protocol than RESP, and reads lines until one is the last.
    pub async fn lines(&mut self, request: &str, last: &[&str]) -> Result<Vec<String>> {
        let patience = self.patience;
        let work = async {
            self.stream.get_mut().write_all(request.as_bytes()).await?;
            let mut out: Vec<String> = Vec::new();
            while out.last().is_none_or(|line| !last.contains(&line.as_str())) {
                let mut line = String::new();
                let read = self.stream.read_line(&mut line).await?;
                crate::ensure!(read > 0, "closed after {out:?}");
                out.push(line.trim_end().to_owned());
            }
            Ok(out)
        };
        in_time(patience, work).await
    }

    async fn read(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let (kind, rest) = line.trim_end().split_at_checked(1).context("connection closed")?;
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(rest.parse()?),
            "_" => Reply::Nothing,
            "$" | "=" => match rest.parse::<i64>()? {
                -1 => Reply::Nothing,
                length => {
                    let mut bytes = vec![0; usize::try_from(length)? + 2];
                    self.stream.read_exact(&mut bytes).await?;
                    bytes.truncate(bytes.len() - 2);
                    Reply::Bytes(bytes)
                }
            },
            "*" | "~" | ">" | "%" => {
                let mut count = rest.parse::<i64>()?.max(0);
                if kind == "%" {
                    count *= 2;
                }
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(Box::pin(self.read()).await?);
                }
                Reply::List(items)
            }
            _ => return Err(Failure::new(format!("not a reply: {line:?}"))),
        })
    }
}

async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(patience, work)
        .await
        .map_err(|_| Failure::new(format!("no reply within {patience:?}")))?
}

/// A request, as RESP has it.
pub(crate) fn encode<A: AsRef<[u8]>>(out: &mut Vec<u8>, arguments: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        let argument = argument.as_ref();
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}
