//! A connection to a member: one request after the other, every wait bounded.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use engine::resp::encode_request;
use engine::resp::frame::Frame;

/// A reply that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Number(i64),
    Nothing,
    List(Vec<Reply>),
}

impl Reply {
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn number(&self) -> Option<i64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub fn list(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The member says so.
    #[error("{0}")]
    Said(String),
    /// The connection must not be used again: replies could be out of step.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

impl Failure {
    /// Where the member says that the key's slot is.
    pub fn moved_to(&self) -> Option<&str> {
        let Self::Said(error) = self else { return None };
        error.strip_prefix("MOVED ")?.split(' ').nth(1)
    }
}

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects and shows the password, if there is one.
    ///
    /// # Errors
    /// When the member does not answer in time, or not with OK.
    pub fn open(
        endpoint: &str,
        password: Option<&str>,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let address: SocketAddr = endpoint.parse().map_err(io::Error::other)?;
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream, buffer: Vec::new() };
        if let Some(password) = password {
            connection.call(&["AUTH", password])?;
        }
        Ok(connection)
    }

    /// # Errors
    /// What the member says, or what became of the connection.
    pub fn call(&mut self, words: &[&str]) -> Result<Reply, Failure> {
        let mut request = Vec::new();
        encode_request(&mut request, words);
        self.stream.write_all(&request)?;
        let mut frame = Frame::default();
        let end = loop {
            match frame.end(&self.buffer).map_err(io::Error::other)? {
                Some(end) => break end,
                None => self.fill()?,
            }
        };
        let reply: Vec<u8> = self.buffer.drain(..end).collect();
        if let Some(error) = reply.strip_prefix(b"-") {
            return Err(Failure::Said(String::from_utf8_lossy(error).trim_end().to_owned()));
        }
        let unread = || io::Error::other(format!("no reply: {}", reply.escape_ascii()));
        Ok(read(&mut reply.as_slice()).ok_or_else(unread)?)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        let length = self.stream.read(&mut chunk)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&chunk[..length]);
        Ok(())
    }
}

/// Takes a reply of RESP2 that is whole from the front of the bytes.
fn read(bytes: &mut &[u8]) -> Option<Reply> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at(end + 1);
    *bytes = rest;
    let (kind, line) = std::str::from_utf8(line).ok()?.trim_end().split_at_checked(1)?;
    match kind {
        "+" => Some(Reply::Text(line.to_owned())),
        ":" => Some(Reply::Number(line.parse().ok()?)),
        "$" => {
            let Ok(length) = usize::try_from(line.parse::<i64>().ok()?) else {
                return Some(Reply::Nothing);
            };
            let (text, rest) = bytes.split_at_checked(length.checked_add(2)?)?;
            *bytes = rest;
            Some(Reply::Text(String::from_utf8_lossy(&text[..length]).into_owned()))
        }
        "*" => match usize::try_from(line.parse::<i64>().ok()?) {
            Ok(count) => (0..count).map(|_| read(bytes)).collect::<Option<_>>().map(Reply::List),
            Err(_) => Some(Reply::Nothing),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_to_their_end() {
        let text = |text: &str| Reply::Text(text.into());
        for (bytes, reply) in [
            ("+OK\r\n", Some(text("OK"))),
            (":-7\r\n", Some(Reply::Number(-7))),
            ("$-1\r\n", Some(Reply::Nothing)),
            ("$4\r\na\r\nb\r\n", Some(text("a\r\nb"))),
            ("*-1\r\n", Some(Reply::Nothing)),
            (
                "*2\r\n*1\r\n:1\r\n$0\r\n\r\n",
                Some(Reply::List(vec![Reply::List(vec![Reply::Number(1)]), text("")])),
            ),
            ("*2\r\n:1\r\n", None),
            ("$5\r\nab\r\n", None),
            ("?\r\n", None),
        ] {
            let mut rest = bytes.as_bytes();
            assert_eq!(read(&mut rest), reply, "{bytes:?}");
            assert!(reply.is_none() || rest.is_empty(), "{bytes:?}");
        }
    }

    #[test]
    fn a_redirection_names_where_to_go() {
        let said = |error: &str| Failure::Said(error.into());
        assert_eq!(said("MOVED 7 127.0.0.1:7001").moved_to(), Some("127.0.0.1:7001"));
        assert_eq!(said("CLUSTERDOWN no primary").moved_to(), None);
    }
}
