//! `newswire publish`.
use super::{Arguments, Failure};
pub(crate) fn run(_: Arguments) -> Result<(), Failure> {
    Ok(())
}
