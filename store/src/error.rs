//! Why xenstore refused.

/// Why xenstore refused (the errno names of xen/io/xs_wire.h, as far as a driver tells them apart),
/// or gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// `ENOENT`: no such node.
    NotFound,
    /// `EACCES` or `EPERM`: not ours to touch.
    Denied,
    /// `EAGAIN`: the transaction met another one; run it again.
    Again,
    /// `ENOSPC`, `EQUOTA` or `E2BIG`: over this domain's quota, or longer than xenstore carries.
    Quota,
    /// xenstored has not answered in time, or still owes the answer to an earlier request. What was
    /// asked may have been done, may be done later, or never.
    TimedOut,
    /// The answer made no sense. The next one may.
    BadAnswer,
    /// There is no xenstore, or it has broken the rules of its ring and is not listened to any more.
    Disconnected,
    /// Any other errno; 0 if xenstored gave it a name that xs_wire.h does not have.
    Other(u32),
}

impl StoreError {
    /// `EINVAL`: what was asked makes no sense, a path with a space in it for example.
    pub const INVALID: StoreError = StoreError::Other(22);
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StoreError::NotFound => f.write_str("no such xenstore node"),
            StoreError::Denied => f.write_str("xenstore permission denied"),
            StoreError::Again => f.write_str("xenstore transaction must be retried"),
            StoreError::Quota => f.write_str("xenstore quota or size limit reached"),
            StoreError::TimedOut => f.write_str("xenstore did not answer in time"),
            StoreError::BadAnswer => f.write_str("xenstore's answer makes no sense"),
            StoreError::Disconnected => f.write_str("no connection to xenstore"),
            StoreError::Other(errno) => write!(f, "xenstore error {errno}"),
        }
    }
}

impl core::error::Error for StoreError {}
