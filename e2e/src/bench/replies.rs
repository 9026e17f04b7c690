//! Replies counted with the least parsing: each is only followed far enough to know where it ends and whether it is an
//! error.

use super::wire::Dialect;

/// Counts the replies in a stream of bytes.
#[derive(Debug)]
pub(super) struct Replies {
    dialect: Dialect,
    /// Elements that the reply being read still lacks.
    open: u64,
    /// Bytes of a bulk that are still to pass.
    skip: usize,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl Replies {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, open: 0, skip: 0, errors: 0, first_error: None }
    }

    /// Returns how many bytes were taken and how many replies ended in them; what is left is an
    /// incomplete line.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, u64) {
        let (mut at, mut done) = (0, 0);
        while at < bytes.len() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len() - at);
                at += passed;
                self.skip -= passed;
                if self.skip > 0 {
                    break;
                }
            } else {
                let Some(end) = bytes[at..].iter().position(|&byte| byte == b'\n') else { break };
                let line = &bytes[at..at + end];
                at += end + 1;
                match self.dialect {
                    Dialect::Resp | Dialect::Floor => self.resp_line(line),
                    Dialect::Classic => self.classic_line(line),
                    Dialect::Meta => self.meta_line(line),
                }
            }
            if self.open == 0 && self.skip == 0 {
                done += 1;
            }
        }
        (at, done)
    }

    fn resp_line(&mut self, line: &[u8]) {
        let open = self.open.max(1) - 1;
        self.open = open;
        match line.first() {
            Some(b'$' | b'=') => {
                self.skip = match line.get(1) {
                    Some(b'-') => 0,
                    _ => number(&line[1..]) as usize + 2,
                }
            }
            Some(b'*' | b'~' | b'>') if line.get(1) != Some(&b'-') => {
                self.open = open + number(&line[1..]);
            }
            Some(b'%') => self.open = open + 2 * number(&line[1..]),
            Some(b'-' | b'!') => self.error(line),
            _ => {}
        }
    }

    fn classic_line(&mut self, line: &[u8]) {
        // `open` is 1 while END is awaited.
        self.open = 0;
        if line.starts_with(b"VALUE ") {
            self.skip = last_number(line) + 2;
            self.open = 1;
        } else if !(line.starts_with(b"END") || line.starts_with(b"STORED")) {
            self.error(line);
        }
    }

    fn meta_line(&mut self, line: &[u8]) {
        if line.starts_with(b"VA ") {
            self.skip = number(&line[3..]) as usize + 2;
        } else if !(line.starts_with(b"HD") || line.starts_with(b"EN")) {
            self.error(line);
        }
    }

    fn error(&mut self, line: &[u8]) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| String::from_utf8_lossy(line).trim_end().to_owned());
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number, byte| number * 10 + u64::from(byte - b'0'))
}

fn last_number(line: &[u8]) -> usize {
    let trimmed = line.trim_ascii_end();
    let start = trimmed.iter().rposition(|&byte| byte == b' ').map_or(0, |at| at + 1);
    number(&trimmed[start..]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(dialect: Dialect, bytes: &[u8]) -> (u64, u64) {
        // One byte at a time, with what is left carried over, as a slow socket would deliver.
        let mut replies = Replies::new(dialect);
        let (mut held, mut done) = (Vec::new(), 0);
        for &byte in bytes {
            held.push(byte);
            let (taken, ended) = replies.feed(&held);
            held.drain(..taken);
            done += ended;
        }
        assert!(held.is_empty(), "left over: {held:?}");
        let whole = Replies::new(dialect).feed(bytes);
        assert_eq!(whole, (bytes.len(), done), "split and whole differ");
        (done, replies.errors)
    }

    #[test]
    fn resp_replies_are_counted_to_their_end() {
        assert_eq!(count(Dialect::Resp, b"+OK\r\n$3\r\na\nb\r\n$-1\r\n:5\r\n"), (4, 0));
        assert_eq!(count(Dialect::Resp, b"*2\r\n$1\r\nx\r\n*1\r\n:1\r\n-ERR no\r\n"), (2, 1));
        assert_eq!(count(Dialect::Resp, b"%1\r\n+a\r\n_\r\n*0\r\n*-1\r\n"), (3, 0));
        assert_eq!(count(Dialect::Resp, b"$0\r\n\r\n"), (1, 0));
    }

    #[test]
    fn memcached_replies_are_counted_to_their_end() {
        assert_eq!(
            count(Dialect::Classic, b"VALUE k 0 4\r\nEND\r\r\nEND\r\nEND\r\nSTORED\r\nERROR\r\n"),
            (4, 1)
        );
        assert_eq!(count(Dialect::Meta, b"VA 2 t1\r\nEN\r\nEN\r\nHD\r\nNS\r\n"), (4, 1));
    }
}
