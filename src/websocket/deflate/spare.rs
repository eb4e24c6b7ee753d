//! States of compressing and inflating that are not in use.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Things that are costly to make, kept for whoever needs one next.
#[derive(Debug)]
pub(super) struct Spare<T>(Mutex<Vec<T>>);

/// Of each kind so many are kept: as many as are in use at once on most machines.
pub(super) const SPARE_MAX: usize = 16;

impl<T> Spare<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One that is `wanted`, if there is one.
    pub(super) fn take(&self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let mut kept = self.kept();
        let at = kept.iter().rposition(wanted)?;
        Some(kept.swap_remove(at))
    }

    /// The oldest goes where there are enough: one that nobody asks for must not stay for ever.
    pub(super) fn give_back(&self, thing: T) {
        let mut kept = self.kept();
        let oldest = (kept.len() == SPARE_MAX).then(|| kept.remove(0));
        kept.push(thing);
        drop(kept);
        drop(oldest);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
