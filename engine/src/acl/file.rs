//! The ACL file: a line for each user, read and written as a whole.
//!
//! ```text
//! user alice on #<64 hex digits> ~cache:* resetchannels -@all +@read (~log:* resetchannels -@all +xadd)
//! ```
//!
//! Words have single spaces between them and no quotes, as Redis reads and writes them; there are no comments, since
//! they would be lost with the next ACL SAVE. One bad line refuses the whole file.

use std::path::Path;

use super::rule::{RuleError, join_selectors};
use super::user::{User, is_name};

/// Larger than any list of users by hand, small enough to be read at once, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The users of a file, with identities still to be given, or every reason why it is none.
pub(super) fn load(path: &Path, all_channels: bool) -> Result<Vec<User>, String> {
    let failed =
        |e: std::io::Error| format!("Error loading ACLs, opening file '{}': {e}", path.display());
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!(
            "Error loading ACLs, the file '{}' is larger than 64 MB",
            path.display()
        ));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    parse(&bytes, &path.display().to_string(), all_channels)
}

fn parse(bytes: &[u8], shown: &str, all_channels: bool) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut errors = String::new();
    for (at, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let place = format!("{shown}:{}", at + 1);
        match user_of(line, &place, all_channels) {
            Ok(user) if users.iter().any(|known| known.name == user.name) => {
                let name = &user.name;
                errors += &format!("WARNING: Duplicate user '{name}' found on line {}. ", at + 1);
            }
            Ok(user) => users.push(user),
            Err(error) => errors += &error,
        }
    }
    if errors.is_empty() {
        return Ok(users);
    }
    Err(errors
        + "WARNING: ACL errors detected, no change to the previously active ACL rules was performed")
}

fn user_of(line: &[u8], place: &str, all_channels: bool) -> Result<User, String> {
    let words: Vec<&[u8]> = line.split(|b| *b == b' ').map(|w| w.trim_ascii()).collect();
    let [b"user", name, rules @ ..] = words.as_slice() else {
        return Err(format!("{place} should start with user keyword followed by the username. "));
    };
    let Some(name) = Some(*name).filter(|n| !n.is_empty() && is_name(n)) else {
        return Err(format!("{place}: the username contains invalid characters. "));
    };
    let mut user = User::new(&String::from_utf8_lossy(name), 0, all_channels);
    let rules = join_selectors(rules)
        .map_err(|_| format!("{place}: Unmatched parenthesis in selector definition. "))?;
    for rule in rules {
        user.apply(&rule, all_channels).map_err(|error| match error {
            // The only error whose rule holds no secret.
            RuleError::Unknown => {
                let rule = crate::command::exec::printable(&rule);
                format!("{place}: Error in applying operation '{rule}': {}. ", error.text())
            }
            _ => format!("{place}: {}. ", error.text()),
        })?;
    }
    Ok(user)
}

/// Writes users, all or none: the old file or the new one is there whatever happens.
pub(super) fn save<'a>(path: &Path, users: impl Iterator<Item = &'a User>) -> std::io::Result<()> {
    let mut text = Vec::new();
    for user in users {
        text.extend(user.line());
        text.push(b'\n');
    }
    crate::config::replace_file(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_line_is_told_and_none_is_taken() {
        let text = b"user a on nopass\n\nuser b >secret +nosuch\nusers c\nuser a on\nuser d (+get\nuser e #12\r\n";
        let error = parse(text, "f", false).err().unwrap();
        for part in [
            "f:3: Error in applying operation '+nosuch': Unknown command or category name in ACL. ",
            "f:4 should start with user keyword",
            "Duplicate user 'a' found on line 5",
            "f:6: Unmatched parenthesis",
            "f:7: The password hash must be exactly 64 characters",
            "no change to the previously active ACL rules was performed",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("secret"));
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.acl");
        let lines = b"user a on >pw ~a:* %R~\"b* &c +@all -@dangerous +config|get (%W~x +set) (~y allchannels +@read)\nuser b";
        let users = parse(lines, "f", false).unwrap();
        save(&path, users.iter()).unwrap();
        let again = load(&path, false).unwrap();
        let lines = |users: &[User]| users.iter().map(User::line).collect::<Vec<_>>();
        assert_eq!(lines(&again), lines(&users));
        assert_eq!(again.len(), 2);
        assert!(again[0].has_password(b"pw") && !again[1].has_password(b"pw"));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
