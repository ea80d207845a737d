//! Faults on demand: what the hypervisor refuses this domain.

use core::num::NonZeroU64;

use xen_grant::GrantStatus;
use xen_netfront::platform::EventError;

/// Which of a kind of operations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRule<E> {
    /// How many succeed before the first that fails.
    pub after: u64,
    /// From there on every n-th fails (1: each one); `None`: only that one.
    pub every: Option<NonZeroU64>,
    /// What they fail with.
    pub error: E,
}

impl<E: Copy> FaultRule<E> {
    /// The next operation fails, then none.
    pub fn next(error: E) -> FaultRule<E> {
        FaultRule { after: 0, every: None, error }
    }

    /// The operation after `n` more fails, then none.
    pub fn after(n: u64, error: E) -> FaultRule<E> {
        FaultRule { after: n, every: None, error }
    }

    /// Every `n`-th operation fails, the first of them after `n - 1` successes.
    pub fn every(n: NonZeroU64, error: E) -> FaultRule<E> {
        FaultRule { after: n.get() - 1, every: Some(n), error }
    }

    /// All operations fail.
    pub fn always(error: E) -> FaultRule<E> {
        FaultRule::every(NonZeroU64::MIN, error)
    }
}

/// What goes wrong for a domain ([`Domain::set_faults`](crate::Domain::set_faults)). The default
/// is nothing.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Grant maps.
    pub map: Option<FaultRule<GrantStatus>>,
    /// Single grant-copy operations.
    pub copy: Option<FaultRule<GrantStatus>>,
    /// `alloc_page` finds nothing.
    pub alloc_page: Option<FaultRule<()>>,
    /// `grant_frame` fails.
    pub grant_frame: Option<FaultRule<GrantStatus>>,
    /// `alloc_unbound` fails.
    pub alloc_unbound: Option<FaultRule<EventError>>,
    /// `bind_interdomain` fails.
    pub bind_interdomain: Option<FaultRule<EventError>>,
}

/// Counts one operation against a rule; the error if this one fails.
pub(crate) fn strike<E: Copy>(rule: &mut Option<FaultRule<E>>) -> Option<E> {
    let active = rule.as_mut()?;
    if let Some(left) = active.after.checked_sub(1) {
        active.after = left;
        return None;
    }
    let error = active.error;
    match active.every {
        Some(n) => active.after = n.get() - 1,
        None => *rule = None,
    }
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(mut rule: Option<FaultRule<()>>) -> Vec<bool> {
        (0..7).map(|_| strike(&mut rule).is_some()).collect()
    }

    #[test]
    fn rules_strike_when_they_say() {
        let (y, n) = (true, false);
        assert_eq!(pattern(None), [n; 7]);
        assert_eq!(pattern(Some(FaultRule::next(()))), [y, n, n, n, n, n, n]);
        assert_eq!(pattern(Some(FaultRule::after(2, ()))), [n, n, y, n, n, n, n]);
        let three = NonZeroU64::new(3).unwrap();
        assert_eq!(pattern(Some(FaultRule::every(three, ()))), [n, n, y, n, n, y, n]);
        assert_eq!(pattern(Some(FaultRule::always(()))), [y; 7]);
    }
}
