//! Pauses between attempts, and the randomness that keeps clients from making theirs in the same instant.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The pause behind one more failure: twice the one before, within these bounds.
pub(crate) fn longer(before: Duration, [first, longest]: [Duration; 2]) -> Duration {
    (before * 2).clamp(first, longest)
}

/// Unpredictable. The keys of a hash map are the one source of randomness in the standard library, which seeds them from
/// the random numbers of the system.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// From 0 to 1.
pub(crate) fn random_fraction() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}
