//! Replication: PSYNC from and to other members, Redis and Valkey.

/// What a peer told of itself by REPLCONF.
#[derive(Clone, Debug, Default)]
pub struct PeerState {
    pub listening_port: u16,
    pub ip_address: String,
    pub capa_eof: bool,
    pub capa_psync2: bool,
    pub version: String,
    /// Offset that the replica acknowledged, and the one it has on disk.
    pub ack_offset: u64,
    pub ack_aof_offset: u64,
    pub ack_ms: i64,
}

use std::sync::Arc;

use crate::server::Shared;
use crate::session::Session;

/// Serves a replica on a connection that sent PSYNC; `rest` is output that was not written yet.
pub fn serve(
    _shared: Arc<Shared>,
    _stream: mio::net::TcpStream,
    _session: Session,
    _rest: Vec<u8>,
) {
}

impl Shared {
    /// How many replicas have acknowledged the journal up to an offset.
    pub fn replicas_at(&self, _offset: u64) -> u32 {
        0
    }
}
