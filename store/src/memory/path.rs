//! Xenstore paths (docs/misc/xenstore.txt in Xen's source).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use crate::StoreError;

/// `XENSTORE_ABS_PATH_MAX`
const MAX_ABSOLUTE: usize = 3072;
/// `XENSTORE_REL_PATH_MAX`
const MAX_RELATIVE: usize = 2048;

/// A domain's own directory.
pub(super) fn home(domain: u16) -> String {
    format!("/local/domain/{}", domain)
}

/// The absolute form of a path, if xenstored takes it.
pub(super) fn absolute(domain: u16, path: &str) -> Result<String, StoreError> {
    let (limit, absolute) = match path.starts_with('/') {
        true => (MAX_ABSOLUTE, path.to_owned()),
        false => (MAX_RELATIVE, format!("{}/{path}", home(domain))),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/_@".contains(&b);
    let well_formed = absolute == "/" || !absolute.ends_with('/') && !absolute.contains("//");
    if path.len() > limit || !well_formed || !absolute.bytes().all(allowed) {
        return Err(StoreError::INVALID);
    }
    Ok(absolute)
}

/// The directory a node is in; `None` for the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        slash => Some(&path[..slash]),
    }
}

/// Whether `path` is `above` or lies below it.
pub(super) fn within(path: &str, above: &str) -> bool {
    above == "/"
        || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The bounds between which all paths below `path` sort.
pub(super) fn below(path: &str) -> (String, String) {
    // '0' is the character after '/'.
    match path {
        "/" => ("/!".to_owned(), "0".to_owned()),
        path => (format!("{path}/"), format!("{path}0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_and_checked() {
        let three = 3;
        assert_eq!(absolute(three, "device/vif").unwrap(), "/local/domain/3/device/vif");
        assert_eq!(absolute(three, "/a").unwrap(), "/a");
        assert_eq!(absolute(three, "/").unwrap(), "/");
        for bad in ["", "a/", "/a/", "a//b", "//", "a b", "ü", "a\0"] {
            assert_eq!(absolute(three, bad), Err(StoreError::INVALID), "{bad:?}");
        }
        assert!(absolute(three, &"a".repeat(2048)).is_ok());
        assert!(absolute(three, &"a".repeat(2049)).is_err());
    }

    #[test]
    fn parents_and_children() {
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/"), None);
        assert!(within("/a/b", "/a") && within("/a", "/a") && within("/a", "/"));
        assert!(!within("/ab", "/a") && !within("/", "/a"));
        let (from, to) = below("/a");
        let sorts = |path: &str| from.as_str() <= path && path < to.as_str();
        assert!(sorts("/a/b") && sorts("/a/-/z") && !sorts("/a") && !sorts("/ab") && !sorts("/a-"));
        let (from, to) = below("/");
        assert!(from.as_str() <= "/-" && "/z/y" < to.as_str() && from.as_str() > "/");
    }
}
