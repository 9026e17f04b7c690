//! What went wrong, as one sentence that a person reads at the end of a run.
//!
//! A harness never recovers from an error in code: it reports it and takes everything down. So one type that carries
//! the chain of what was being done is enough.

use std::fmt;

/// A failure: what was being done, and why it did not work.
#[derive(Debug)]
pub struct Failure(String);

/// The result of everything in the harness.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            source = inner.source();
        }
        Self(text)
    }
}

/// Says what was being done when it failed.
pub trait Context<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Failure>> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure(format!("{doing}: {}", error.into())))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Failure(format!("{doing}: nothing there")))
    }
}

/// Returns early with a failure.
#[macro_export]
macro_rules! fail {
    ($($part:tt)*) => { return Err($crate::failure::Failure::new(format!($($part)*))) };
}

/// Fails with a message unless the condition holds: an assertion that reports instead of unwinding.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($part:tt)*) => {
        if !$condition {
            return Err($crate::failure::Failure::new(format!($($part)*)));
        }
    };
}
