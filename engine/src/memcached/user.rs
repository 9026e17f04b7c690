//! `-u`: another user to run as, for who is started by root.
//!
//! The process starts itself over as that user, before it listens or opens a file: so it is that user from its first
//! instruction on, in all its threads and groups, and ports under 1024 are not for it, as memcached has it.

use std::os::unix::process::CommandExt;

/// The running program, whatever its path has become, and may be entered by whom.
const MYSELF: &str = "/proc/self/exe";
/// The name that lists of processes show.
const COMM: &str = "/proc/self/comm";

/// Becomes this user when the process is root's; who is not root stays who he is. Comes back only when nothing
/// is left to be done, or with the reason why it cannot be.
pub fn become_user(name: &str) -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|e| format!("cannot see who is running this: {e}"))?;
    if effective_uid(&status) != Some(0) {
        if std::fs::read_to_string(COMM).is_ok_and(|name| name.trim_end() == "exe") {
            // Started over by MYSELF: lists of processes are to show the program's own name, and do without it.
            let _ = std::fs::write(COMM, "larder-server");
        }
        return Ok(());
    }
    let users = std::fs::read_to_string("/etc/passwd")
        .map_err(|e| format!("cannot read /etc/passwd: {e}"))?;
    let (uid, gid) =
        ids(&users, name).ok_or_else(|| format!("can't find the user {name} to switch to"))?;
    if uid == 0 {
        return Ok(());
    }
    let mut args = std::env::args_os();
    let first = args.next().unwrap_or_else(|| "larder-server".into());
    let error = std::process::Command::new(MYSELF).arg0(first).args(args).uid(uid).gid(gid).exec();
    Err(format!("cannot run as {name}: {error}"))
}

/// The second number of the line `Uid:` of /proc/PID/status.
fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// User and group of a line `name:password:uid:gid:...`.
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|words| words.first() == Some(&name))?;
    Some((line.get(2)?.parse().ok()?, line.get(3)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:n:/:/bin/false\nbad:x:y:1\n";
        assert_eq!(ids(users, "nobody"), Some((65534, 65533)));
        assert_eq!(ids(users, "root"), Some((0, 0)));
        for name in ["nobod", "", "bad", "x"] {
            assert_eq!(ids(users, name), None, "{name}");
        }
    }

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"), Some(0));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }
}
