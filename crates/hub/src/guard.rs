//! Locks whose holder panicked are taken all the same: every critical section here leaves its state whole.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock. Never held across an await.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
