//! The command line of memcached: `larder-server memcached -m 64 -p 11211 ...` as directives of this server.
//!
//! ```text
//! -m 64  -m64  --memory-limit=64  --memory-limit 64  -vvA       flags, as memcached takes them
//! -- --appendonly yes                                           behind --: directives of larder-server
//! ```
//!
//! A server that is started like this is what memcached is: it speaks no RESP, evicts when it is full, and keeps
//! nothing on disk, unless directives say otherwise. A flag that cannot be kept to is refused; one that tunes what
//! is not in this server (slabs, the LRU's threads) changes nothing.

use std::fmt::Write as _;

use super::VERSION;

mod extended;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// To serve, with these directives, as this user where one is named.
    Serve(Vec<String>, Option<String>),
    /// To print this.
    Print(String),
}

/// What becomes of a flag.
#[derive(Clone, Copy)]
enum Does {
    /// Its value is that of a directive.
    Sets(&'static str),
    /// It has no value, and gives a directive this one.
    Switches(&'static str, &'static str),
    /// Read by a function of its own.
    Reads(fn(&mut Reading, &str) -> Result<(), String>),
    /// The same, without a value.
    Marks(fn(&mut Reading)),
    /// Changes nothing; `true`: it has a value.
    Nothing(bool),
    /// Refused, with the reason.
    Refused(&'static str),
}

struct Flag {
    letter: char,
    name: &'static str,
    does: Does,
    help: &'static str,
}

const fn flag(letter: char, name: &'static str, does: Does, help: &'static str) -> Flag {
    Flag { letter, name, does, help }
}

use Does::{Marks, Nothing, Reads, Refused, Sets, Switches};

#[rustfmt::skip]
const FLAGS: &[Flag] = &[
    flag('p', "port", Reads(port), "TCP port (11211; 0: none)"),
    flag('U', "udp-port", Reads(udp), "0: UDP is not served"),
    flag('s', "unix-socket", Sets("memcached-unixsocket"), "a socket in the file system, in place of TCP"),
    flag('a', "unix-mask", Sets("memcached-unixsocketperm"), "mode of that socket, octal (700)"),
    flag('l', "listen", Reads(listen), "addresses, with commas between (all; then a password is asked for unless from this machine)"),
    flag('m', "memory-limit", Reads(memory), "megabytes for items (64)"),
    flag('M', "disable-evictions", Switches("maxmemory-policy", "noeviction"), "an error when memory is full, in place of evicting"),
    flag('c', "conn-limit", Sets("maxclients"), "connections at a time (1024)"),
    flag('t', "threads", Sets("io-threads"), "threads (as many as processors)"),
    flag('I', "max-item-size", Reads(item_size), "largest item, with k or m behind it (1m)"),
    flag('b', "listen-backlog", Sets("tcp-backlog"), "connections that wait to be accepted (1024)"),
    flag('u', "user", Reads(user), "user to run as, when started by root"),
    flag('v', "verbose", Marks(verbose), "a more talkative log; -vv more so"),
    flag('A', "enable-shutdown", Switches("memcached-shutdown", "yes"), "the command shutdown is obeyed"),
    flag('F', "disable-flush-all", Switches("memcached-flush", "no"), "flush_all is refused"),
    flag('X', "disable-dumping", Switches("memcached-dump-keys", "no"), "lru_crawler metadump is refused"),
    flag('Y', "auth-file", Sets("memcached-auth-file"), "users who must log in, one a line as name:password"),
    flag('S', "enable-sasl", Marks(sasl), "SASL PLAIN; needs -Y"),
    flag('B', "protocol", Reads(protocol), "auto: text and binary are told apart by their first byte"),
    flag('o', "extended", Reads(extended::read), "options with commas between: idle_timeout=SECONDS, ssl_chain_cert, ssl_key, ssl_ca_cert=FILE, ssl_verify_mode=0|1|2, and memcached's tuning"),
    flag('h', "help", Marks(help), "print this"),
    flag('V', "version", Marks(version), "print the version"),
    flag('P', "pidfile", Nothing(true), "no effect: memcached writes it with -d only"),
    flag('f', "slab-growth-factor", Nothing(true), "no effect: memory is not cut into slabs"),
    flag('n', "slab-min-size", Nothing(true), "no effect: memory is not cut into slabs"),
    flag('L', "enable-largepages", Nothing(false), "no effect: the allocator and the kernel see to that"),
    flag('R', "max-reqs-per-event", Nothing(true), "no effect: each connection has a budget of its own"),
    flag('C', "disable-cas", Nothing(false), "no effect: a CAS takes room only when somebody asks for it"),
    flag('d', "daemon", Refused("a server in the background is its supervisor's affair (systemd, a container, nohup)"), ""),
    flag('k', "lock-memory", Refused("memory is not locked: give the service no swap"), ""),
    flag('r', "enable-coredumps", Refused("the limit for cores is the service's: ulimit -c"), ""),
    flag('D', "stat-prefix", Refused("nothing is counted by prefix"), ""),
    flag('N', "napi-ids", Refused("threads are not bound to network queues"), ""),
    flag('e', "memory-file", Refused("items outlive a restart by the log: -- --appendonly yes --dir FOLDER"), ""),
    flag('Z', "enable-ssl", Switches("memcached-tls", "yes"), "TLS on the port; needs -o ssl_chain_cert=FILE"),
    flag('i', "license", Refused("see the file LICENSE"), ""),
];

/// What has been read so far.
struct Reading {
    directives: Vec<(String, String)>,
    port: Option<u16>,
    /// A port that an address of `-l` has behind it.
    listen_port: Option<u16>,
    listen: Vec<String>,
    user: Option<String>,
    verbosity: u32,
    sasl: bool,
    print: Option<String>,
}

impl Reading {
    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.directives.push((name.into(), value.into()));
    }

    fn has(&self, name: &str) -> bool {
        self.directives.iter().any(|(n, _)| n == name)
    }
}

/// Reads a command line behind the word `memcached`.
pub fn read(args: &[String]) -> Result<Asked, String> {
    let mut reading = Reading {
        directives: Vec::new(),
        port: None,
        listen_port: None,
        listen: Vec::new(),
        user: None,
        verbosity: 0,
        sasl: false,
        print: None,
    };
    let mut rest = args.iter();
    let mut more = Vec::new();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            more = rest.cloned().collect();
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let flag = FLAGS
                .iter()
                .find(|f| f.name == name)
                .ok_or_else(|| format!("unknown flag --{name} (-h shows those that there are)"))?;
            run(&mut reading, flag, &format!("--{name}"), value, &mut rest)?;
        } else if let Some(letters) = arg.strip_prefix('-').filter(|l| !l.is_empty()) {
            short(&mut reading, letters, &mut rest)?;
        } else {
            return Err(format!("unexpected argument '{arg}': flags begin with -"));
        }
        if let Some(text) = reading.print.take() {
            return Ok(Asked::Print(text));
        }
    }
    finish(reading, more)
}

/// Letters behind one `-`: flags without values, the last one perhaps with its value behind it.
fn short<'a>(
    reading: &mut Reading,
    letters: &'a str,
    rest: &mut std::slice::Iter<'a, String>,
) -> Result<(), String> {
    for (at, letter) in letters.char_indices() {
        let flag = FLAGS
            .iter()
            .find(|f| f.letter == letter)
            .ok_or_else(|| format!("unknown flag -{letter} (-h shows those that there are)"))?;
        let behind = &letters[at + letter.len_utf8()..];
        let takes_value = matches!(flag.does, Sets(_) | Reads(_) | Nothing(true));
        let value = (takes_value && !behind.is_empty()).then_some(behind);
        run(reading, flag, &format!("-{letter}"), value, rest)?;
        if takes_value {
            break;
        }
    }
    Ok(())
}

fn run<'a>(
    reading: &mut Reading,
    flag: &Flag,
    shown: &str,
    value: Option<&'a str>,
    rest: &mut std::slice::Iter<'a, String>,
) -> Result<(), String> {
    let mut value = || {
        let found = value.or_else(|| rest.next().map(String::as_str));
        found.ok_or_else(|| format!("{shown} needs a value"))
    };
    match flag.does {
        Sets(name) => {
            let value = value()?;
            reading.set(name, value);
        }
        Switches(name, value) => reading.set(name, value),
        Reads(read) => {
            let value = value()?;
            read(reading, value).map_err(|why| format!("{shown} {value}: {why}"))?;
        }
        Marks(mark) => mark(reading),
        Nothing(true) => {
            value()?;
        }
        Nothing(false) => {}
        Refused(why) => return Err(format!("{shown} is not supported: {why}")),
    }
    Ok(())
}

/// The directives of a server that is what memcached is, those of the flags, and those behind `--`.
fn finish(mut reading: Reading, more: Vec<String>) -> Result<Asked, String> {
    if let (Some(port), Some(listen_port)) = (reading.port, reading.listen_port)
        && port != listen_port
    {
        return Err(format!(
            "-l says port {listen_port} and -p {port}: all addresses have one port"
        ));
    }
    if reading.sasl
        && !reading.has("memcached-auth-file")
        && !more.iter().any(|m| m == "--requirepass")
    {
        return Err("-S needs users: -Y FILE".into());
    }
    if reading.has("memcached-tls") && !reading.has("tls-cert-file") {
        return Err("-Z needs a certificate: -o ssl_chain_cert=FILE".into());
    }
    if reading.has("tls-cert-file") {
        let chain = reading.directives.iter().rev().find(|(name, _)| name == "tls-cert-file");
        let chain = chain.map(|(_, file)| file.clone()).unwrap_or_default();
        for (name, value) in [("tls-key-file", chain.as_str()), ("tls-auth-clients", "no")] {
            if !reading.has(name) {
                reading.set(name, value);
            }
        }
    }
    // A socket in the file system is in place of TCP, as memcached has it.
    let port = match reading.has("memcached-unixsocket") {
        true => 0,
        false => reading.port.or(reading.listen_port).unwrap_or(11_211),
    };
    let mut all: Vec<(String, String)> = [
        ("port", "0"),
        ("save", ""),
        ("appendonly", "no"),
        // What lies about in the folder it is started in is not taken for its own.
        ("dbfilename", "memcached.rdb"),
        ("appendfilename", "memcached.aof"),
        ("maxmemory", "64mb"),
        ("maxmemory-policy", "allkeys-lru"),
        ("maxclients", "1024"),
        ("tcp-backlog", "1024"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .to_vec();
    all.push(("memcached-port".into(), port.to_string()));
    if !reading.listen.is_empty() {
        all.push(("bind".into(), reading.listen.join(" ")));
        // Whoever names addresses means them: there are no passwords in most places where memcached is.
        all.push(("protected-mode".into(), "no".into()));
    }
    match reading.verbosity {
        0 => {}
        1 => all.push(("loglevel".into(), "verbose".into())),
        _ => all.push(("loglevel".into(), "debug".into())),
    }
    // The last one counts, as it does on memcached's own command line.
    for (name, value) in std::mem::take(&mut reading.directives) {
        all.retain(|(n, _)| *n != name);
        all.push((name, value));
    }
    all.retain(|(name, _)| !more.iter().any(|m| m.strip_prefix("--") == Some(name)));
    let words = all.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]);
    Ok(Asked::Serve(words.chain(more).collect(), reading.user))
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| "not a number that fits".to_string())
}

fn port(reading: &mut Reading, value: &str) -> Result<(), String> {
    reading.port = Some(number(value)?);
    Ok(())
}

fn udp(_: &mut Reading, value: &str) -> Result<(), String> {
    match value {
        "0" => Ok(()),
        _ => Err("UDP is not served, since its replies can be sent to anybody: only -U 0".into()),
    }
}

fn listen(reading: &mut Reading, value: &str) -> Result<(), String> {
    for address in value.split(',').map(str::trim).filter(|a| !a.is_empty()) {
        let (host, port) = match address.strip_prefix('[').and_then(|a| a.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None if address.matches(':').count() == 1 => {
                let (host, port) = address.split_once(':').unwrap_or((address, ""));
                (host, Some(port))
            }
            None => (address, None),
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err("not an address".into());
        }
        if let Some(port) = port {
            let port = number(port)?;
            if reading.listen_port.is_some_and(|p| p != port) {
                return Err("all addresses have one port".into());
            }
            reading.listen_port = Some(port);
        }
        reading.listen.push(host.to_string());
    }
    if reading.listen.is_empty() { Err("not an address".into()) } else { Ok(()) }
}

fn memory(reading: &mut Reading, value: &str) -> Result<(), String> {
    let megabytes: u32 = number(value)?;
    reading.set("maxmemory", format!("{megabytes}mb"));
    Ok(())
}

/// memcached's k and m are powers of two; a directive's are not.
fn item_size(reading: &mut Reading, value: &str) -> Result<(), String> {
    let (digits, unit) = match value.char_indices().last() {
        Some((at, 'k' | 'K')) => (&value[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&value[..at], 1 << 20),
        _ => (value, 1),
    };
    let bytes = number::<u64>(digits)?.saturating_mul(unit);
    if !(1024..=1 << 30).contains(&bytes) {
        return Err("an item is from 1k to 1024m".into());
    }
    reading.set("memcached-item-size-max", bytes.to_string());
    Ok(())
}

fn user(reading: &mut Reading, value: &str) -> Result<(), String> {
    reading.user = Some(value.to_string());
    Ok(())
}

fn protocol(_: &mut Reading, value: &str) -> Result<(), String> {
    match value {
        "auto" | "auto-negotiate" => Ok(()),
        _ => Err("both protocols are always spoken: only auto".into()),
    }
}

fn verbose(reading: &mut Reading) {
    reading.verbosity += 1;
}

fn sasl(reading: &mut Reading) {
    reading.sasl = true;
}

fn version(reading: &mut Reading) {
    reading.print = Some(format!("memcached {VERSION}"));
}

fn help(reading: &mut Reading) {
    let mut text = String::from(
        "usage: larder-server memcached [FLAG ...] [-- --directive value ...]\n\
         memcached's flags; behind -- come directives of larder-server.\n",
    );
    for Flag { letter, name, does, help } in FLAGS {
        if !matches!(does, Refused(_)) {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  -{letter}, --{name:20} {help}");
        }
    }
    reading.print = Some(text);
}

#[cfg(test)]
mod tests;
