//! Leader election: one operator acts, the others stand by; one that lost its lease exits.
//!
//! A lease is no fence. It keeps two operators from doing the same work twice; what keeps them from
//! harm is that steps carry preconditions and that the council is the one decider.
//!
//! Another process's clock is never trusted: a lease is free when it was *seen* unchanged for its whole
//! duration, by this process's own monotonic clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, sleep};

/// How long a lease lasts without renewal.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long gives up: well before anybody else may take it.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(2);
const NAME: &str = "larder-operator";

/// The lease of one process.
pub(super) struct Election {
    api: Api<Lease>,
    identity: String,
    seen: Option<Seen>,
}

/// A lease as it was first seen.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    holder: String,
    version: String,
    at: Instant,
}

/// What to do about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is ours, or free: write our name into it.
    Take,
    /// Somebody else's.
    Wait,
}

/// Whether the lease can be taken, from what was seen of it and how long ago it last changed.
fn judge(holder: &str, identity: &str, unchanged: Duration, duration: Duration) -> Verdict {
    if holder.is_empty() || holder == identity || unchanged > duration {
        Verdict::Take
    } else {
        Verdict::Wait
    }
}

impl Election {
    pub(super) fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), identity: identity.into(), seen: None }
    }

    /// Waits until this process leads.
    pub(super) async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!("cannot take the lease {NAME}: {error}"),
            }
            sleep(PERIOD).await;
        }
    }

    /// Renews for as long as it can; returns when the lease is lost.
    pub(super) async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(PERIOD).await;
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            let began = Instant::now();
            match tokio::time::timeout(left, self.attempt()).await {
                // Counted from before it was sent: the server may have written it that early.
                Ok(Ok(true)) => renewed = began,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!("cannot renew the lease {NAME}: {error}"),
                Err(_) => {}
            }
            if renewed.elapsed() >= GIVE_UP {
                return;
            }
        }
    }

    /// Gives the lease back, so that the next one need not wait for its end.
    pub(super) async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(NAME).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            if let Err(error) = self.api.replace(NAME, &PostParams::default(), &lease).await {
                tracing::debug!("cannot release the lease {NAME}: {error}");
            }
        }
    }

    /// Looks at the lease, and writes our name into it when that is allowed. The write carries the
    /// resource version that was read, so that of two who try one fails.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() },
                spec: Some(self.renewed(&LeaseSpec::default())),
            };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let version = lease.resource_version().unwrap_or_default();
        let seen = match self.seen.take() {
            Some(seen) if seen.version == version && seen.holder == holder => seen,
            _ => Seen { holder: holder.clone(), version, at: Instant::now() },
        };
        let unchanged = seen.at.elapsed();
        self.seen = Some(seen);
        let duration = spec
            .lease_duration_seconds
            .and_then(|s| u64::try_from(s).ok())
            .map(Duration::from_secs);
        if judge(&holder, &self.identity, unchanged, duration.unwrap_or(DURATION)) == Verdict::Wait
        {
            return Ok(false);
        }
        let lease = Lease { spec: Some(self.renewed(&spec)), ..lease };
        taken(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    fn renewed(&self, was: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let same = was.holder_identity.as_deref() == Some(&self.identity);
        let transitions = was.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if same { was.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if same { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }
}

/// A conflict means that somebody else was faster.
fn taken(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(s)) if s.is_conflict() || s.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_is_taken_when_ours_free_or_silent_for_its_whole_duration() {
        let s = Duration::from_secs;
        assert_eq!(judge("", "a", s(0), s(15)), Verdict::Take);
        assert_eq!(judge("a", "a", s(0), s(15)), Verdict::Take);
        assert_eq!(judge("b", "a", s(15), s(15)), Verdict::Wait);
        assert_eq!(judge("b", "a", s(16), s(15)), Verdict::Take);
    }

    #[test]
    fn holder_gives_up_before_another_may_take() {
        assert!(GIVE_UP + PERIOD < DURATION);
    }
}
