//! A client in the network of a node, that is cut off together with it: it knows one member, and prints what it sees.

use crate::clock;
use crate::cluster::Cluster;
use crate::failure::{Context, Result};
use crate::history::{Action, Operation};
use crate::probes;
use crate::tools;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long it waits for a reply; longer than a lease.
const PATIENCE: Duration = Duration::from_millis(900);
const PACE: Duration = Duration::from_millis(2);

/// The running client. It writes, and reads in between, with the machine's clock as its own.
pub(super) struct Captive {
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    last_ack: u64,
    last_line: String,
    operations: Vec<Operation>,
}

impl Captive {
    pub(super) fn start(cluster: &Cluster, node: &str, address: &str, key: &str) -> Result<Self> {
        let program = tools::this_program();
        let mut command =
            cluster.world.fault(|provider| provider.command_on_node(node, program.as_os_str()))?;
        let mut child = command
            .args(["captive", address, key])
            .env("LARDER_E2E_PASSWORD", cluster.password.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("output of the captive")?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (note, key) = (seen.clone(), key.to_owned());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                note.lock().unwrap_or_else(PoisonError::into_inner).note(&key, line);
            }
        });
        Ok(Self { child, seen })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When its last acknowledged write was acknowledged; 0 before the first.
    pub(super) fn last_ack(&self) -> u64 {
        self.seen().last_ack
    }

    pub(super) fn last_line(&self) -> String {
        self.seen().last_line.clone()
    }

    /// All that it has asked for, and was told, so far.
    pub(super) fn operations(&self) -> Vec<Operation> {
        self.seen().operations.clone()
    }
}

impl Seen {
    /// `write VALUE BEGIN` or `read BEGIN` when it asks; `wrote END`, `got END [VALUE]` or `refused ...` when it is told.
    fn note(&mut self, key: &str, line: String) {
        let words: Vec<&str> = line.split(' ').collect();
        let time = |word: &&str| word.parse::<u64>().unwrap_or_default();
        match words.as_slice() {
            ["write", value, begin] => {
                self.begin(key, Action::Write((*value).to_owned()), time(begin))
            }
            ["read", begin] => self.begin(key, Action::Read(None), time(begin)),
            ["wrote", end] => {
                self.last_ack = time(end);
                self.end(time(end), None);
            }
            ["got", end, value @ ..] => {
                self.end(time(end), Some(value.first().map(|value| (*value).to_owned())));
            }
            _ => {}
        }
        self.last_line = line;
    }

    fn begin(&mut self, key: &str, action: Action, begin: u64) {
        self.operations.push(Operation { key: key.to_owned(), action, begin, end: None });
    }

    fn end(&mut self, end: u64, read: Option<Option<String>>) {
        if let Some(operation) = self.operations.last_mut() {
            operation.end = Some(end);
            if let Some(value) = read {
                operation.action = Action::Read(value);
            }
        }
    }
}

impl Drop for Captive {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the captive process does: it writes to one member and reads from it, and follows nobody.
pub async fn captive(address: &str, key: &str) -> Result {
    let password = std::env::var("LARDER_E2E_PASSWORD").ok();
    let address = address.parse()?;
    let mut connection = None;
    for number in 0u64.. {
        let value = (number % 2 == 0).then(|| format!("captive{number}"));
        match &value {
            Some(value) => println!("write {value} {}", clock::wall_micros()),
            None => println!("read {}", clock::wall_micros()),
        }
        let reply = async {
            if connection.is_none() {
                let open = crate::wire::Connection::open(address, password.as_deref(), PATIENCE);
                connection = Some(open.await?);
            }
            let open = connection.as_mut().context("connection")?;
            match &value {
                Some(value) => open.call(&["SET", key, value]).await?.ok(),
                None => open.call(&["GET", key]).await?.ok(),
            }
        }
        .await;
        let refused = reply.as_ref().err().map(ToString::to_string);
        match probes::outcome(value, reply, Some(clock::wall_micros())) {
            (Action::Write(_), Some(end)) => println!("wrote {end}"),
            (Action::Read(Some(value)), Some(end)) => println!("got {end} {value}"),
            (Action::Read(None), Some(end)) => println!("got {end}"),
            _ => {
                println!("refused {}", refused.unwrap_or_default());
                connection = None;
            }
        }
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}
