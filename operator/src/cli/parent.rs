//! A process that is not to outlive the one that started it.

use std::thread;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};

/// How often an orphan asks itself again to end in good order: a server whose disk is full refuses to.
const AGAIN: Duration = Duration::from_secs(5);
/// After so many times it ends all the same: nobody is there any more to free its disk, or to ask.
const TIMES: usize = 12;

/// Has this process end when its parent does, in good order if it can; false: the parent has ended already.
pub(super) fn end_with(parent: i32) -> bool {
    let told = set_parent_process_death_signal(Some(Signal::TERM));
    let is_orphan = move || getppid().map(Pid::as_raw_pid) != Some(parent);
    let watch = move || {
        while !is_orphan() {
            thread::sleep(AGAIN);
        }
        for _ in 0..TIMES {
            thread::sleep(AGAIN);
            // To itself: that cannot fail.
            let _ = kill_process(getpid(), Signal::TERM);
        }
        eprintln!(
            "larder: the parent is gone, and this process cannot end in good order: it is killed"
        );
        let _ = kill_process(getpid(), Signal::KILL);
    };
    let watches = thread::Builder::new().name("parent".into()).spawn(watch).is_ok();
    // It may have ended before the wish to be told was made.
    told.is_ok() && watches && !is_orphan()
}
