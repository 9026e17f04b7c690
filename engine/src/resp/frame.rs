//! Where replies end, for who passes them on as they are.

/// Follows one reply through a buffer that fills up, without looking at anything twice.
#[derive(Debug, Default)]
pub struct Frame {
    /// Where the next line, or the rest of a string, begins.
    at: usize,
    /// Bytes of a string that have not come yet.
    missing: usize,
    /// Elements that are still to come, the reply itself among them; 0: it has not begun.
    open: u64,
}

/// What came is no reply.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no reply: {0:?}")]
pub struct NoReply(String);

impl Frame {
    /// Where the reply ends that begins at the buffer's start; `None`: more has to come. Once it has ended a new one is
    /// to be taken.
    ///
    /// # Errors
    /// When it is none.
    pub fn end(&mut self, buffer: &[u8]) -> Result<Option<usize>, NoReply> {
        if self.open == 0 {
            self.open = 1;
        }
        while self.open > 0 {
            if self.missing > 0 {
                let here = self.missing.min(buffer.len() - self.at);
                self.at += here;
                self.missing -= here;
                if self.missing > 0 {
                    return Ok(None);
                }
                self.open -= 1;
                continue;
            }
            let Some(length) = memchr::memchr(b'\n', &buffer[self.at..]) else { return Ok(None) };
            let line = &buffer[self.at..self.at + length];
            self.at += length + 1;
            self.take_line(line.strip_suffix(b"\r").unwrap_or(line))?;
        }
        Ok(Some(self.at))
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), NoReply> {
        let wrong = || NoReply(String::from_utf8_lossy(&line[..line.len().min(32)]).into_owned());
        let count = || {
            let text = std::str::from_utf8(line.get(1..).unwrap_or_default()).ok();
            text.and_then(|t| t.parse::<i64>().ok()).ok_or_else(wrong)
        };
        // How many more elements come with it; it is one itself.
        let elements = match line.first() {
            Some(b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(') => 0,
            Some(b'$' | b'=' | b'!') => {
                if let Ok(length) = usize::try_from(count()?) {
                    self.missing = length.checked_add(2).ok_or_else(wrong)?;
                    return Ok(());
                }
                0
            }
            Some(b'*' | b'~' | b'>') => count()?,
            Some(b'%') => count()?.checked_mul(2).ok_or_else(wrong)?,
            // What stands before a reply, and is followed by it.
            Some(b'|') => {
                count()?.checked_mul(2).and_then(|n| n.checked_add(1)).ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
        let more = u64::try_from(elements).unwrap_or(0);
        self.open = (self.open - 1).checked_add(more).ok_or_else(wrong)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[&str] = &[
        "+OK\r\n",
        "-ERR no\r\n",
        ":12\r\n",
        "$-1\r\n",
        "$0\r\n\r\n",
        "$5\r\na\r\nbc\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*2\r\n$1\r\nx\r\n*2\r\n:1\r\n_\r\n",
        "%1\r\n+k\r\n~2\r\n,1.5\r\n#t\r\n",
        "|1\r\n+ttl\r\n:3\r\n=7\r\ntxt:abc\r\n",
        "(123456789012345678901234567890\r\n",
        "!5\r\nERR x\r\n",
    ];

    #[test]
    fn each_reply_ends_where_it_ends_however_it_comes() {
        for reply in REPLIES {
            let whole = format!("{reply}+NEXT\r\n");
            assert_eq!(Frame::default().end(whole.as_bytes()), Ok(Some(reply.len())), "{reply:?}");
            let mut frame = Frame::default();
            for length in 0..reply.len() {
                assert_eq!(frame.end(&reply.as_bytes()[..length]), Ok(None), "{reply:?} {length}");
            }
            assert_eq!(frame.end(reply.as_bytes()), Ok(Some(reply.len())), "{reply:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for junk in [
            "HTTP/1.1 200\r\n",
            "$x\r\n",
            "*99999999999999999999\r\n",
            "\r\n",
            "%9223372036854775807\r\n",
        ] {
            assert!(Frame::default().end(junk.as_bytes()).is_err(), "{junk:?}");
        }
    }
}
