//! The bench of failovers: a cluster of local processes, one fault again and again, and a client that measures.
//!
//! Reading order: `failover` (what is done and told), over a `cluster`, which a `seeker` finds its way in by
//! connections of `client`; `quantiles` and `table` tell the figures.

pub mod client;
pub mod cluster;
pub mod failover;
pub mod quantiles;
pub mod seeker;
pub mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What takes longer is a failure, not a figure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What kept a bench from running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action}: {source}")]
    Io { action: String, source: std::io::Error },
    #[error("{0}")]
    Refused(String),
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// The wish that a bench ends before its time; whatever waits looks at it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// # Errors
    /// When it was wished.
    pub fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Acquire) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

fn now() -> std::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "measuring time is what a bench does")]
    std::time::Instant::now()
}
