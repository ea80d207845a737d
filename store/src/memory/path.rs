//! Xenstore paths (docs/misc/xenstore.txt in Xen's source).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use crate::StoreError;

/// `XENSTORE_REL_PATH_MAX`, of which what comes before a path below a domain's directory is no part.
const MAX_PATH: usize = 2048;

/// A domain's own directory.
pub(super) fn home(domain: u16) -> String {
    format!("/local/domain/{}", domain)
}

/// The absolute form of a path, if xenstored takes it.
pub(super) fn absolute(domain: u16, path: &str) -> Result<String, StoreError> {
    let absolute = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", home(domain)),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/_@".contains(&b);
    let well_formed = absolute == "/" || !absolute.ends_with('/') && !absolute.contains("//");
    let counted = absolute.len() - below_a_home(&absolute);
    if counted > MAX_PATH || !well_formed || !absolute.bytes().all(allowed) {
        return Err(StoreError::INVALID);
    }
    Ok(absolute)
}

/// The length of `/local/domain/N/` at the start of a path.
fn below_a_home(path: &str) -> usize {
    let number = path.strip_prefix("/local/domain/").and_then(|rest| rest.split_once('/'));
    match number {
        Some((number, rest)) if number.len() <= 5 && number.parse::<u32>().is_ok() => {
            path.len() - rest.len()
        }
        Some(_) | None => 0,
    }
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
        assert!(absolute(three, &format!("/local/domain/65535/{}", "a".repeat(2048))).is_ok());
        for long in ["/local/domain/3/a", "/local/domain/x/", "/local/domain/123456/", "/"] {
            assert!(absolute(three, &format!("{long}{}", "a".repeat(2048))).is_err(), "{long}");
        }
        assert!(absolute(three, &format!("/{}", "a".repeat(2047))).is_ok());
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
