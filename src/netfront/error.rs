//! Why there is no device.

use xen_grant::{ClaimError, ReserveError};
use xen_store::StoreError;

#[cfg(doc)]
use super::Config;

/// Why a device could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
            OpenError::Table { needed, .. } => {
                write!(f, "{needed} grant references are needed, and the table has not so many")
            }
            OpenError::Pool(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            OpenError::Table { error, .. } => Some(error),
            // They say what the error in them says.
            OpenError::Store(error) => error.source(),
            OpenError::Pool(error) => error.source(),
        }
    }
}
