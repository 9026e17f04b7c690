//! Ports for servers under test.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that nobody listens on. Not one that the system hands out: it would give it to a connection of somebody else before
/// the server has it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Far from where another process of about the same age begins.
    loop {
        let begin = std::process::id().wrapping_mul(0x9e37_79b9) >> 16;
        let at = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (at % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
