//! Taking a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The guard of `mutex`, also after a thread panicked while it held it: the sections under our locks do memory work
/// that leaves the value whole at each step, and the panic of one connection must not cost the others theirs.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
