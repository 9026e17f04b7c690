//! What a world must be able to do for a plan to be carried out in it: four verbs.
//!
//! Three worlds do: Kubernetes, local processes and a seeded simulation. Each says at its top which
//! promises it does not keep.

pub mod kubernetes;
pub mod local;
pub mod sim;

use std::future::Future;

use crate::Error;
use crate::desired::Desired;
use crate::observed::Observed;
use crate::plan::Step;
use crate::status::Status;

/// What became of an account that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    Written,
    /// Somebody else gave one, or changed the manifest, since this driver looked: it stands as they wrote it.
    Outdated,
}

/// A world in which one cluster lives.
pub trait Driver: Send {
    /// Makes what has no order (Services, ConfigMap, certificates; a directory; nothing), every round.
    fn scaffold(&mut self, desired: &Desired) -> impl Future<Output = Result<(), Error>> + Send;

    /// Looks once: lists all bodies and disks, asks all members at the same time for their report.
    /// A member that does not answer in time is unseen; only a failed listing is an error.
    fn observe(
        &mut self,
        desired: &Desired,
    ) -> impl Future<Output = Result<Observed, Error>> + Send;

    /// Carries out one step, which may have been carried out before. A precondition that no longer
    /// holds (another uid, another epoch) is no error: the next round sees why.
    fn apply(
        &mut self,
        desired: &Desired,
        step: &Step,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Writes the account down, unless it is another one by now than the look began with; the caller has made sure that
    /// it changed. A world that only one operator can be in has no need to compare.
    fn record(
        &mut self,
        desired: &Desired,
        status: &Status,
    ) -> impl Future<Output = Result<Recorded, Error>> + Send;
}
