//! Remarks in the log that say where in which journal its next byte belongs.
//!
//! `#LARDER:<replid>:<offset>` is a comment to other readers. With it, a member that starts from its log knows
//! its journal's place exactly, and its primary or its replicas need no full sync.

use crate::replication::is_replid;

const MARK: &str = "#LARDER:";

/// The remark, as a line of the log.
pub fn line(replid: &str, offset: u64) -> Vec<u8> {
    format!("{MARK}{replid}:{offset}\r\n").into_bytes()
}

/// What a comment line of the log says of the position, if anything.
pub fn parse(line: &[u8]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(line).ok()?.trim_end().strip_prefix(MARK)?;
    let (replid, offset) = text.split_once(':')?;
    is_replid(replid).then_some(())?;
    Some((replid.to_string(), offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_other_comments_are_none() {
        let replid = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(parse(&line(replid, 77)), Some((replid.to_string(), 77)));
        for other in [&b"#TS:1700000000\r\n"[..], b"#LARDER:x:1\r\n", b"#LARDER:", b"#"] {
            assert_eq!(parse(other), None);
        }
    }
}
