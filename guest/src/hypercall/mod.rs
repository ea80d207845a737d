//! Hypercalls, each behind a function that takes the right structure for its command.
//!
//! The calls go through `xen-sys` and land in the stubs of `stubs`. Two of its functions are
//! stepped around: `hypercall_5` puts its fifth argument into the wrong register, and `sched_op`
//! passes a value where Xen wants the address of a structure.

pub mod abi;
mod calls;
pub mod rings;
mod stubs;

#[cfg(target_os = "none")]
pub(crate) use calls::*;
#[cfg(target_os = "none")]
pub(crate) use stubs::{detect, own_domain};

/// Hypercalls are the runtime's own affair; on a host, a test makes them to a Xen of its own.
#[cfg(not(target_os = "none"))]
#[doc(hidden)]
pub use {
    calls::*,
    stubs::{detect, own_domain},
};

/// What a hypercall failed with (positive, xen/errno.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

impl core::error::Error for Errno {}

/// A hypercall's return value: an errno if it is negative.
pub fn check(result: i64) -> Result<u64, Errno> {
    u64::try_from(result)
        .map_err(|_| Errno(i32::try_from(result.unsigned_abs()).unwrap_or(i32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_results_are_errors() {
        assert_eq!(check(0), Ok(0));
        assert_eq!(check(7), Ok(7));
        assert_eq!(check(-22), Err(Errno(22)));
        assert_eq!(check(i64::MIN), Err(Errno(i32::MAX)));
    }
}
