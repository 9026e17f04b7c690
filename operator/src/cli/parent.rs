//! A process that is not to outlive the one that started it.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Has this process asked to end when its parent ends; false: it has ended already.
pub(super) fn end_with(parent: i32) -> bool {
    let told = set_parent_process_death_signal(Some(Signal::TERM));
    // It may have ended before the wish to be told was made.
    told.is_ok() && getppid().map(Pid::as_raw_pid) == Some(parent)
}
