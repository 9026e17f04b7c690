//! Frames of the bus: a length, then one `Envelope` as JSON.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Answer, Ask, FRAME_BYTES_MAX, Meeting, Met};
use crate::council::message::Message;
use crate::topology::MemberId;

/// What one frame carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Envelope {
    /// The first frame of each side. `member`: who speaks, `None` for the operator.
    Hello {
        version: u16,
        member: Option<MemberId>,
    },
    /// From the operator; answered by exactly one `Answer`, in order.
    Ask(Box<Ask>),
    Answer(Box<Answer>),
    /// From one member's council to another's.
    Council(Box<Message>),
    /// From one member of an unmanaged cluster to another; answered by one `Met`.
    Meet(Box<Meeting>),
    Met(Box<Met>),
}

/// Reads one frame's bytes. `Ok(None)`: the peer closed between two frames.
///
/// # Errors
/// The transport's own, `InvalidData` for a frame that is too long, `UnexpectedEof` inside a frame.
pub async fn read_bytes<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0u8; 4];
    let first = from.read(&mut head[..1]).await?;
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let len = u32::from_be_bytes(head);
    if len > FRAME_BYTES_MAX {
        let text = format!("a frame of {len} bytes; at most {FRAME_BYTES_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // The buffer grows with what arrives: a length alone must not cost memory.
    let mut body = Vec::new();
    let read = from.take(u64::from(len)).read_to_end(&mut body).await?;
    if read < len as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(body))
}

/// Reads one frame. `Ok(None)`: the peer closed between two frames.
///
/// # Errors
/// Those of `read_bytes`, and `InvalidData` for JSON that is no `T`.
pub async fn read<R, T>(from: &mut R) -> io::Result<Option<T>>
where
    R: AsyncRead + Unpin,
    T: for<'de> Deserialize<'de>,
{
    let Some(body) = read_bytes(from).await? else { return Ok(None) };
    serde_json::from_slice(&body)
        .map(Some)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}

/// One frame as bytes, ready to be written.
///
/// # Errors
/// `InvalidData` when the frame would be longer than the peer accepts.
pub fn encode<T: Serialize>(envelope: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; 4];
    serde_json::to_writer(&mut bytes, envelope)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
    match u32::try_from(bytes.len() - 4) {
        Ok(len) if len <= FRAME_BYTES_MAX => {
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            Ok(bytes)
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long to be sent")),
    }
}

/// Writes one frame and flushes it.
///
/// # Errors
/// Those of `encode` and of the transport.
pub async fn write<W, T>(to: &mut W, envelope: &T) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    write_bytes(to, &encode(envelope)?).await
}

/// Writes what `encode` has made and flushes it.
///
/// # Errors
/// Those of the transport.
pub async fn write_bytes<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_frame_comes_back_as_it_was_sent() {
        let bytes = encode(&Envelope::Ask(Box::new(Ask::Report))).unwrap();
        let back: Option<Envelope> = run(read(&mut bytes.as_slice())).unwrap();
        assert!(matches!(back, Some(Envelope::Ask(ask)) if matches!(*ask, Ask::Report)));
    }

    #[test]
    fn a_torn_or_oversized_frame_is_an_error_and_an_end_is_not() {
        let bytes = encode(&Envelope::Ask(Box::new(Ask::Report))).unwrap();
        for cut in 1..bytes.len() {
            assert!(run(read_bytes(&mut &bytes[..cut])).is_err(), "cut at {cut}");
        }
        assert!(run(read_bytes(&mut &bytes[..0])).unwrap().is_none());
        let long = (FRAME_BYTES_MAX + 1).to_be_bytes();
        assert!(run(read_bytes(&mut long.as_slice())).is_err());
    }
}
