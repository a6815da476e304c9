//! Taking a lock that cannot fail.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The guard of `mutex`, also after a thread panicked while it held it: every section under a lock
/// here is memory work that leaves the value whole at each step, and one connection's panic must
/// not cost the others theirs.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
