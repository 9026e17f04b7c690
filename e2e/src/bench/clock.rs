//! The one place where the bench reads the clock.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "measuring time is what a bench does")]
pub(super) fn now() -> Instant {
    Instant::now()
}
