//! Running programs: to their end, or as daemons that are known by process id and start time.

use crate::failure::{Context, Failure, Result};
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a program and returns what it printed; its error output is part of the failure.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context(describe(command))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!(
            "{}: {}: {}",
            describe(command),
            output.status,
            error.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program whose output the user sees.
pub fn show(command: &mut Command) -> Result {
    let status = command.stdin(Stdio::null()).status().context(describe(command))?;
    crate::ensure!(status.success(), "{}: {status}", describe(command));
    Ok(())
}

/// Runs a program with text on its standard input. It is fed while it is read: a program that answers line by line
/// would otherwise wait for its reader, and we for it.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(describe(command))?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let (fed, output) = std::thread::scope(|scope| {
        let feeder = scope.spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output();
        (
            feeder.join().unwrap_or_else(|_| Err(std::io::Error::other("the feeder panicked"))),
            output,
        )
    });
    let output = output?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!(
            "{}: {}: {}",
            describe(command),
            output.status,
            error.trim()
        )));
    }
    fed.context(describe(command))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `sh!("ip", "link", name)`: runs a program with arguments that can be shown as text.
#[macro_export]
macro_rules! sh {
    ($program:expr $(, $argument:expr)* $(,)?) => {
        $crate::sh::run(std::process::Command::new($program)$(.arg(&$argument))*)
    };
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().take(8) {
        text.push(' ');
        text.push_str(&argument.to_string_lossy().chars().take(120).collect::<String>());
    }
    text
}

/// Starts a program that outlives the harness: own process group, output into a log, identity into a file.
pub fn daemon(folder: &Path, name: &str, command: &mut Command) -> Result<u32> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(format!("{name}.log")))
        .context(format!("log of {name}"))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context(describe(command))?;
    let pid = child.id();
    let identity = format!("{pid} {}\n", start_time(pid).unwrap_or_default());
    fs::write(folder.join(format!("{name}.pid")), identity)?;
    // A child that ends while we run would stay a zombie until we do: wait for it in a thread of its own.
    std::thread::spawn(move || {
        let mut child = child;
        child.wait().ok();
    });
    Ok(pid)
}

/// The process that a pid file names, if it is still the same process and alive.
pub fn daemon_pid(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let mut words = text.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let started = words.next().unwrap_or_default();
    (start_time(pid)? == started).then_some(pid)
}

/// Kills what a pid file names and waits until it is gone.
pub fn kill_daemon(file: &Path) -> Result {
    if let Some(pid) = daemon_pid(file) {
        sh!("kill", "-KILL", pid.to_string()).ok();
        crate::clock::eventually_blocking(
            "end of a killed process",
            std::time::Duration::from_secs(20),
            || {
                crate::ensure!(daemon_pid(file).is_none(), "process {pid} is still there");
                Ok(())
            },
        )?;
    }
    fs::remove_file(file).ok();
    Ok(())
}

/// Field 22 of /proc/PID/stat; none for a process that is gone or a zombie.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    let mut fields = after_name.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

/// The children of a process, as the kernel lists them.
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The first of the named programs that is on the PATH or in the usual system folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|file| file.is_file())
}
