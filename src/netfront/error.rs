//! Why there is no device.

use xen_grant::{ClaimError, ReserveError};
use xen_store::StoreError;

#[cfg(doc)]
use super::Config;

/// Why a device could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Xenstore would not let us watch the vif.
    Store(StoreError),
    /// The grant table has not enough references left for the device, which needs `needed`
    /// ([`Config::references`]).
    Table {
        /// References that the device claims.
        needed: usize,
        /// Why there was no other.
        error: ClaimError,
    },
    /// The pool has fewer pages that are nobody else's than [`Config::least_pages`].
    Pool(ReserveError),
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            OpenError::Store(error) => error.fmt(f),
            OpenError::Table { needed, error } => {
                write!(f, "{needed} grant references are needed: {error}")
            }
            OpenError::Pool(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {}
