//! A member: the council driven with real time, files and links, beside the data engine.
//!
//! One task owns the `Council` and is the only one that touches it; everything else (the bus's
//! listener, a link per member, the thread that writes the disk) talks to it through channels. What
//! the council decides reaches the data engine through `Local`. All of it runs on the admin lane, so
//! that a busy data lane delays no heartbeat.

mod driver;
mod identity;
mod meet;
mod own;
mod switch;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::bus::links::{LinkFacts, Links};
use crate::topology::{Change, Epoch, MemberId, Report, Topology};

pub use crate::bus::transport::Transport;
pub use identity::{Identity, random_hex};

/// What the council needs of the data engine. Calls come from the admin lane and must not block.
pub trait Local: Send + Sync + 'static {
    /// How the data set is now. The ID, the boot and the council's own disk are filled in by the caller.
    /// The lineage's epoch is that of the last write; a primary writes a mark of its own first, so that
    /// its journal is the higher one as soon as its epoch has begun.
    fn report(&self) -> Report;
    /// A newer topology, for redirections and `CLUSTER` commands.
    fn topology_changed(&self, topology: &Arc<Topology>);
    /// As primary of `shard_epoch`, writes may be acknowledged until that moment of
    /// `clock::monotonic_ms`, compared when they are acknowledged; 0: not at all.
    fn lease(&self, shard_epoch: Epoch, until_ms: u64);
    /// As primary of `shard_epoch`, execute nothing more until a longer lease or another role comes. Once
    /// that is so, `report` says it, and the driver is told to look (`Handle::look`).
    fn hold(&self, shard_epoch: Epoch);
    /// How the data engine reaches its driver.
    fn attach(&self, _driver: Handle) {}
    /// Act as primary of that epoch; writes wait for the lease.
    fn become_primary(&self, shard_epoch: Epoch);
    /// Follow that primary, whatever was before; `tls_port`: where it speaks TLS, if it does.
    fn become_replica(&self, host: &str, port: u16, tls_port: u16, shard_epoch: Epoch);
    /// Nobody is primary, or this member was before it was restarted: serve no writes, and wait.
    fn become_idle(&self);
    /// Sets directives live; those refused, each with its message.
    fn configure(&self, hash: &str, directives: &[(String, String)]) -> Vec<(String, String)>;
    /// Shut down in good order.
    fn shutdown(&self);
    /// Gives up its data set, which belonged to a cluster that this member has left.
    fn begin_anew(&self) {}
    /// Members that are not heard, in a cluster without an operator.
    fn silent(&self, _members: &[MemberId]) {}
    /// It has another ID from here on.
    fn renamed(&self, _me: &MemberId) {}
}

/// Who waits for what the council decides.
type Answering = std::sync::mpsc::Sender<Result<Epoch, String>>;
/// Where the answer comes: the topology's epoch as of which it is so, or the reason why not.
pub type Answered = std::sync::mpsc::Receiver<Result<Epoch, String>>;

/// What the data engine says to its driver.
enum Said {
    /// The report has changed in a way that others wait for.
    Look,
    /// This process is about to end: somebody else is to be primary. Answered when that is decided, or
    /// with the reason why it is not.
    Leave(Answering),
    /// This process is about to end: if it leads the council, somebody else is to; answered when that is so.
    Retire(Answering),
    /// A change for the council; answered likewise.
    Propose(Box<Change>, Option<Epoch>, Answering),
    /// CLUSTER MEET: another member of an unmanaged cluster, by the address of its bus.
    Meet { host: String, bus_port: u16 },
    /// CLUSTER RESET: this member is alone again, `hard`: under a new ID.
    Reset { hard: bool, answer: Answering },
}

/// The data engine's way to its driver, from any thread.
#[derive(Clone)]
pub struct Handle {
    says: mpsc::UnboundedSender<Said>,
    links: Links,
}

impl Handle {
    /// The report has changed: the council is told at once.
    pub fn look(&self) {
        // A driver that has ended needs no word.
        let _ = self.says.send(Said::Look);
    }

    /// Asks for a handover, since this process is about to end. The answer comes when the council has
    /// decided: nothing, or the reason why nobody takes over. It hangs up when the driver has ended.
    pub fn leave(&self) -> Answered {
        self.ask(Said::Leave)
    }

    /// Gives up the leadership of the council, if this member has it; the answer comes when that is so.
    pub fn retire(&self) -> Answered {
        self.ask(Said::Retire)
    }

    /// Puts a change to the council and waits for what becomes of it.
    ///
    /// # Errors
    /// The reason why it was refused, or why that is not known.
    pub fn propose(&self, change: Change) -> Result<Epoch, String> {
        let answered = self.wish(change);
        answered.recv().map_err(|_| "the council's driver has ended".to_owned())?
    }

    /// The same, on condition that the topology still has that epoch.
    ///
    /// # Errors
    /// As those of `propose`.
    pub fn propose_for(&self, change: Change, epoch: Epoch) -> Result<Epoch, String> {
        let answered = self.ask(|answer| Said::Propose(Box::new(change), Some(epoch), answer));
        answered.recv().map_err(|_| "the council's driver has ended".to_owned())?
    }

    /// Puts a change to the council; what becomes of it is answered. Changes are put in the order of the calls.
    pub fn wish(&self, change: Change) -> Answered {
        self.ask(|answer| Said::Propose(Box::new(change), None, answer))
    }

    /// Meets another member of an unmanaged cluster, in the background.
    pub fn meet(&self, host: String, bus_port: u16) {
        // A driver that has ended meets nobody.
        let _ = self.says.send(Said::Meet { host, bus_port });
    }

    /// Leaves an unmanaged cluster without a word, and is alone again.
    pub fn reset(&self, hard: bool) -> Answered {
        self.ask(|answer| Said::Reset { hard, answer })
    }

    /// The connections to and from other members that are there now.
    pub fn links(&self) -> Vec<LinkFacts> {
        self.links.all()
    }

    /// Where a member is, by a connection of the bus that there is now: its certificate was seen, and DNS need not be asked.
    pub fn connected_at(&self, member: &MemberId) -> Option<IpAddr> {
        self.links.connected_at(member)
    }

    fn ask(&self, said: impl FnOnce(Answering) -> Said) -> Answered {
        let (answer, answered) = std::sync::mpsc::channel();
        // A driver that has ended drops the sender, which is the answer.
        let _ = self.says.send(said(answer));
        answered
    }
}

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    pub bus_addr: SocketAddr,
    pub over: Transport,
    pub failure_timeout_ms: u64,
    /// Set where no operator forms the cluster, but the members that meet.
    pub unmanaged: Option<Address>,
}

/// Where an unmanaged member is reached.
#[derive(Clone, Debug)]
pub struct Address {
    /// Empty: unknown until another member has reached it.
    pub host: String,
    pub port: u16,
    pub tls_port: u16,
    pub bus_port: u16,
    pub node: Option<String>,
    pub zone: Option<String>,
}

/// A member that listens on its bus and knows who it is.
pub struct Managed {
    identity: Identity,
    options: Options,
    listener: TcpListener,
}

impl Managed {
    /// Takes the directory for this process, makes the member's ID at the first start, and listens.
    ///
    /// # Errors
    /// When another process uses the directory, or the port is taken.
    pub async fn open(options: Options) -> io::Result<Self> {
        let identity = Identity::open(&options.dir)?;
        let listener = TcpListener::bind(options.bus_addr).await?;
        Ok(Self { identity, options, listener })
    }

    pub fn id(&self) -> &MemberId {
        &self.identity.id
    }

    /// Number of this process.
    pub fn boot(&self) -> &str {
        &self.identity.boot
    }

    /// Where the bus listens.
    ///
    /// # Errors
    /// What the system said.
    pub fn bus_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes part until the future is dropped, or the operator asks for a shutdown.
    ///
    /// # Errors
    /// When what is on disk cannot be read.
    pub async fn run(self, local: Arc<dyn Local>) -> io::Result<()> {
        driver::run(self, local).await
    }
}
