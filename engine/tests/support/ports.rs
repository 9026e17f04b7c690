//! Ports for servers under test.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// How far above its port a node of an unmanaged cluster has its bus.
const BUS_ABOVE: u16 = 10_000;

/// A port that nobody listens on, nor on the one that a bus would have. Neither is one that the system lends to connections
/// (from 32,768 on): it would give it to somebody else's before the server has it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        // Far from where another process of about the same age begins.
        let begin = std::process::id().wrapping_mul(0x9e37_79b9) >> 16;
        let at = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (at % 12_000) as u16;
        if is_free(port) && is_free(port + BUS_ABOVE) {
            return port;
        }
    }
}
