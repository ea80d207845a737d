//! What a node's value means: anything may be in it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

/// The first domain number that is not a domain's (`DOMID_FIRST_RESERVED`, xen/xen.h).
const FIRST_RESERVED: u16 = 0x7ff0;

/// The longest path of a peer's directory that we follow, so that a path below it is still one
/// that xenstore takes.
const MAX_PATH: usize = 512;

/// What somebody has written, without what C programs leave around it: white space, a line's end, the
/// zero that ends a string.
pub fn trim(value: &[u8]) -> &[u8] {
    let text = value.trim_ascii_start();
    let is_end = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let end = text.iter().rposition(|byte| !is_end(byte)).map_or(0, |last| last + 1);
    text.get(..end).unwrap_or_default()
}

/// A decimal number, as `%u` and `%d` write it with any flags: white space around it, a plus sign,
/// zeros in front, a zero byte at the end.
pub fn parse_u32(value: &[u8]) -> Option<u32> {
    let text = trim(value);
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The number of a domain, not one of the reserved ones (`DOMID_SELF` and so on).
pub fn parse_domain(value: &[u8]) -> Option<u16> {
    let number = u16::try_from(parse_u32(value)?).ok()?;
    (number < FIRST_RESERVED).then_some(number)
}

/// The path of a directory that lies in `owner`'s part of xenstore.
///
/// A peer's directory is named by a node; one that pointed elsewhere would have us take our own
/// nodes, or a third domain's, for the peer's.
pub fn parse_path(value: &[u8], owner: u16) -> Option<String> {
    let path = str::from_utf8(trim(value)).ok().filter(|path| path.len() <= MAX_PATH)?;
    let below = path.strip_prefix("/local/domain/")?.strip_prefix(&*format!("{owner}/"));
    let fine = below?.split('/').all(|name| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_@".contains(&c))
    });
    fine.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_u32(b"0"), Some(0));
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_u32(b"4294967296"), None);
        assert_eq!(parse_u32(b"42949672950"), None);
        for one in ["1", " 1", "1 ", "1\n", "1\0", "1\n\0\0", "+1", "01", "00000000001"] {
            assert_eq!(parse_u32(one.as_bytes()), Some(1), "{one:?}");
        }
        for garbage in
            ["", " ", "\0", "+", "-1", "++1", "+ 1", "1x", "0x1", "1 2", "1\x002", "\x001", "١"]
        {
            assert_eq!(parse_u32(garbage.as_bytes()), None, "{garbage:?}");
        }
        assert_eq!(parse_domain(b"32751"), Some(0x7fef));
        assert_eq!(parse_domain(b"32752"), None);
        assert_eq!(parse_domain(b"65536"), None);
    }

    #[test]
    fn paths_stay_with_their_owner() {
        let path = |path: &str| parse_path(path.as_bytes(), 1);
        assert!(path("/local/domain/1/device/vif/0").is_some());
        for elsewhere in [
            "",
            "/",
            "device/vif/0",
            "/local/domain/1",
            "/local/domain/1/",
            "/local/domain/10/device/vif/0",
            "/local/domain/01/device/vif/0",
            "/local/domain/1/device//vif/0",
            "/local/domain/1/device/vif/0/",
            "/local/domain/1/../2/device/vif/0",
            "/local/domain/1/device/vif\0/0",
            "/local/domain/1/dev ice",
        ] {
            assert_eq!(path(elsewhere), None, "{elsewhere:?}");
        }
        // As C programs leave it.
        for written in ["/local/domain/1/device/vif/0\n", " /local/domain/1/device/vif/0\0"] {
            assert_eq!(path(written).as_deref(), Some("/local/domain/1/device/vif/0"));
        }
        let long = |len: usize| format!("/local/domain/1/{}", "a".repeat(len - 16));
        assert_eq!(path(&long(MAX_PATH)), Some(long(MAX_PATH)));
        assert_eq!(path(&long(MAX_PATH + 1)), None);
        assert_eq!(parse_path(&[0xff; 40], 1), None);
    }

    proptest! {
        #[test]
        fn p3_no_bytes_upset_a_reader(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(number) = parse_u32(&value) {
                let text = core::str::from_utf8(&value).unwrap();
                let text = text.trim_start().trim_end_matches(['\0', ' ', '\n', '\r', '\t', '\x0c']);
                prop_assert_eq!(text.parse::<u32>(), Ok(number));
            }
            if let Some(path) = parse_path(&value, 3) {
                prop_assert!(path.starts_with("/local/domain/3/"));
            }
        }
    }
}
