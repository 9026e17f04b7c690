//! A small client of a cluster: it authenticates, and follows MOVED.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3);
const REDIRECTIONS_MAX: usize = 8;

pub(crate) struct Client {
    endpoints: Vec<String>,
    password: String,
    connections: HashMap<String, BufReader<TcpStream>>,
    /// Where the last command of a key's slot was served.
    slots: HashMap<u16, String>,
}

impl Client {
    pub(crate) fn new(endpoints: &[String], password: &str) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            password: password.into(),
            connections: HashMap::new(),
            slots: HashMap::new(),
        }
    }

    /// The reply as text; an error reply, or one of the network, as `Err`.
    pub(crate) fn call(&mut self, command: &[&str]) -> Result<String, String> {
        let slot = engine::topology::slot_of(command.get(1).unwrap_or(&"").as_bytes());
        let mut last = String::new();
        let mut candidates = self.endpoints.clone();
        candidates.extend(self.slots.get(&slot).cloned());
        let mut target = candidates.pop();
        for _ in 0..REDIRECTIONS_MAX {
            let Some(address) = target.take() else { break };
            match self.call_at(&address, command) {
                Ok(reply) => {
                    self.slots.insert(slot, address);
                    return Ok(reply);
                }
                Err(error) if error.starts_with("MOVED ") => {
                    target = error.split(' ').nth(2).map(ToString::to_string);
                    last = error;
                }
                Err(error) if error.starts_with("io: ") => {
                    self.connections.remove(&address);
                    last = error;
                    target = candidates.pop();
                }
                Err(error) => return Err(error),
            }
        }
        self.slots.remove(&slot);
        Err(last)
    }

    /// The same of one member, wherever it sends us.
    pub(crate) fn call_at(&mut self, address: &str, command: &[&str]) -> Result<String, String> {
        if !self.connections.contains_key(address) {
            let connection = connect(address, &self.password)?;
            self.connections.insert(address.into(), connection);
        }
        let connection = self.connections.get_mut(address).unwrap();
        ask(connection, command)
    }
}

fn connect(address: &str, password: &str) -> Result<BufReader<TcpStream>, String> {
    let io = |e: std::io::Error| format!("io: {e}");
    let stream = TcpStream::connect(address).map_err(io)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(io)?;
    let mut connection = BufReader::new(stream);
    if !password.is_empty() {
        ask(&mut connection, &["AUTH", password])?;
    }
    Ok(connection)
}

fn ask(connection: &mut BufReader<TcpStream>, command: &[&str]) -> Result<String, String> {
    let io = |e: std::io::Error| format!("io: {e}");
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    connection.get_mut().write_all(request.as_bytes()).map_err(io)?;
    reply(connection)
}

fn reply(connection: &mut BufReader<TcpStream>) -> Result<String, String> {
    let io = |e: std::io::Error| format!("io: {e}");
    let mut line = String::new();
    connection.read_line(&mut line).map_err(io)?;
    let line = line.trim_end();
    let Some(kind) = line.chars().next() else { return Err("io: closed".into()) };
    let rest = &line[1..];
    match kind {
        '-' => Err(rest.into()),
        '$' => match rest.parse::<usize>() {
            Err(_) => Ok(String::new()),
            Ok(len) => {
                let mut bytes = vec![0; len + 2];
                connection.read_exact(&mut bytes).map_err(io)?;
                Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
            }
        },
        '*' => {
            let items = (0..rest.parse::<usize>().unwrap_or(0)).map(|_| reply(connection));
            Ok(items.collect::<Result<Vec<_>, _>>()?.join(" "))
        }
        _ => Ok(rest.into()),
    }
}
