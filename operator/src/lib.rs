//! The operator of Larder: what is wanted, what is there, what to do next, in three worlds.
//!
//! ```text
//! manifest -> Desired -.
//!                       >- plan() -> Plan -> Driver::apply, step by step
//! Driver::observe -> Observed -'        \-> status() -> Driver::record
//! ```
//!
//! `round` is the only loop body, and every driver runs it. The plan is a pure function; failover needs
//! none of this, for it is the council's. Modules in reading order.

pub mod desired;
pub mod driver;
pub mod observed;
pub mod plan;
pub mod round;
pub mod status;
pub mod when;

pub mod admin;
pub mod bench;
pub mod cli;
pub mod health;
pub mod metrics;
pub mod pki;

/// Why a round did not get through. There are two kinds, and they are waited out differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's fault: nothing changes until the manifest does.
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
    /// The world's fault: tried again soon.
    #[error("cannot {action}: {source}")]
    World { action: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Error {
    /// The world's fault, while doing this.
    pub fn world(
        action: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::World { action: action.into(), source: source.into() }
    }
}
