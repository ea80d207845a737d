//! A value is put where there is none.

/// Puts `value` into a place that is known to be empty.
///
/// An assignment would look whether there is something to drop, for each packet in vain. Should the
/// place be full after all, what was there is leaked: no worse than that.
#[inline]
pub fn fill<T>(place: &mut Option<T>, value: T) {
    core::mem::forget(place.replace(value));
}
