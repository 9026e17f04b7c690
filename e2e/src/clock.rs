//! The only place of the harness that reads a clock, and the one way to wait for something.

use crate::failure::{Failure, Result};
use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "the harness measures real time; this is its rim")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock microseconds: what two processes on one machine can compare.
#[expect(
    clippy::disallowed_methods,
    reason = "writers in other processes stamp their writes with it"
)]
pub fn wall_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| u64::try_from(age.as_micros()).unwrap_or(0))
}

/// Seconds with one digit, for people.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Polls until the condition yields a value, and says what was last missing if it never does.
///
/// The condition returns `Err(why)` while it does not hold yet; `why` ends up in the failure.
pub async fn eventually<T, F, Fut>(what: &str, limit: Duration, mut condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = now();
    let mut pause = Duration::from_millis(20);
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let last =
            match tokio::time::timeout(left.max(Duration::from_millis(200)), condition()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(why)) => why.to_string(),
                Err(_) => "the check itself did not return".to_owned(),
            };
        if start.elapsed() >= limit {
            return Err(Failure::new(format!("{what}: not within {}: {last}", seconds(limit))));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(250));
    }
}

/// The same for code that is not async: the boot of the nodes.
pub fn eventually_blocking<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = now();
    loop {
        let last = match condition() {
            Ok(value) => return Ok(value),
            Err(why) => why,
        };
        if start.elapsed() >= limit {
            return Err(Failure::new(format!("{what}: not within {}: {last}", seconds(limit))));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
