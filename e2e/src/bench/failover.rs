//! Time from the kill of a primary to the first write that its shard accepts again.

use super::{Error, Options};

pub(super) fn run(_options: &Options) -> Result<(), Error> {
    Err(Error::Refused("the local cluster does not run yet".into()))
}
