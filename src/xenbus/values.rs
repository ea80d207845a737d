//! What a node's value means: anything may be in it.

use alloc::string::String;
use alloc::vec::Vec;

use xen_grant::DomId;

/// The first domain number that is not a domain's (`DOMID_FIRST_RESERVED`, xen/xen.h).
const FIRST_RESERVED: u16 = 0x7ff0;

/// The longest path of a peer's directory that we follow, so that a path below it is still one
/// that xenstore takes.
const MAX_PATH: usize = 512;

/// What somebody has written, without what C programs leave around it: white space, a line's end, the
/// zero that ends a string.
fn trim(value: &[u8]) -> &[u8] {
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
pub fn parse_domain(value: &[u8]) -> Option<DomId> {
    let number = u16::try_from(parse_u32(value)?).ok()?;
    (number < FIRST_RESERVED).then_some(DomId(number))
}

/// The address of a station, `00:16:3e:00:00:01` or `0:16:3E:0:0:1`: not zero, and not a group's.
pub fn parse_mac(value: &[u8]) -> Option<[u8; 6]> {
    let mut parts = trim(value).split(|byte| *byte == b':');
    let mut mac = [0; 6];
    for byte in &mut mac {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()))?;
        *byte = part.iter().try_fold(0, |byte, digit| {
            let digit = u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
            Some(byte << 4 | digit)
        })?;
    }
    let [first, ..] = mac;
    (parts.next().is_none() && mac != [0; 6] && first & 1 == 0).then_some(mac)
}

/// The path of a directory that lies in `owner`'s part of xenstore.
///
/// A peer's directory is named by a node; one that pointed elsewhere would have us take our own
/// nodes, or a third domain's, for the peer's.
pub(super) fn parse_path(value: Vec<u8>, owner: DomId) -> Option<String> {
    let value = trim(&value);
    if value.len() > MAX_PATH {
        return None;
    }
    let path = String::from_utf8(value.to_vec()).ok()?;
    let below = path.strip_prefix("/local/domain/")?.strip_prefix(&*alloc::format!("{}/", owner.0));
    let fine = below?.split('/').all(|name| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_@".contains(&c))
    });
    fine.then_some(path)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

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
        assert_eq!(parse_domain(b"32751"), Some(DomId(0x7fef)));
        assert_eq!(parse_domain(b"32752"), None);
        assert_eq!(parse_domain(b"65536"), None);
    }

    #[test]
    fn addresses() {
        assert_eq!(parse_mac(b"00:16:3e:5E:6c:00"), Some([0, 0x16, 0x3e, 0x5e, 0x6c, 0]));
        assert_eq!(parse_mac(b"fe:ff:ff:ff:ff:ff\n"), Some([0xfe, 255, 255, 255, 255, 255]));
        assert_eq!(parse_mac(b"0:16:3E:a:b:0\0"), Some([0, 0x16, 0x3e, 0xa, 0xb, 0]));
        let garbage = [
            "",
            "00:16:3e:5e:6c",
            "00:16:3e:5e:6c:00:01",
            "00:16:3e:5e:6c:",
            ":16:3e:5e:6c:00",
            "00:16:3e::6c:00",
            "00:16:3e:5e:6c:000",
            "00-16-3e-5e-6c-00",
            "gg:16:3e:5e:6c:00",
            "+1:16:3e:5e:6c:00",
            "00:00:00:00:00:00",
            "01:16:3e:5e:6c:00",
            "ff:ff:ff:ff:ff:ff",
        ];
        for mac in garbage {
            assert_eq!(parse_mac(mac.as_bytes()), None, "{mac}");
        }
    }

    #[test]
    fn paths_stay_with_their_owner() {
        let path = |path: &str| parse_path(path.as_bytes().to_vec(), DomId(1));
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
        assert_eq!(parse_path(vec![0xff; 40], DomId(1)), None);
    }

    proptest! {
        #[test]
        fn p3_no_bytes_upset_a_reader(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(number) = parse_u32(&value) {
                let text = core::str::from_utf8(&value).unwrap();
                let text = text.trim_start().trim_end_matches(['\0', ' ', '\n', '\r', '\t', '\x0c']);
                prop_assert_eq!(text.parse::<u32>(), Ok(number));
            }
            if let Some(mac) = parse_mac(&value) {
                prop_assert_eq!(mac[0] & 1, 0);
            }
            if let Some(path) = parse_path(value, DomId(3)) {
                prop_assert!(path.starts_with("/local/domain/3/"));
            }
        }
    }
}
