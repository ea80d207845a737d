//! Reading nodes that a peer wrote: anything may be in them, or nothing.
//!
//! A node that is missing, forbidden or too long reads as `None`, like one that makes no sense:
//! none of these is a reason to stop. Only a store that does not answer is an error, and the
//! caller asks again later.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use xen_grant::DomId;

use crate::store::{Store, StoreError, Transaction};
use crate::wire::MAX_PACKET;
use packet_views::header::ETHERNET_HEADER;

/// The first domain number that is not a domain's (`DOMID_FIRST_RESERVED`, xen/xen.h).
const FIRST_RESERVED: u16 = 0x7ff0;

/// The longest path of a peer's directory that we follow, so that a path below it is still one
/// that xenstore takes.
const MAX_PATH: usize = 512;

/// A vif's MTU where nobody says another.
const USUAL_MTU: u16 = 1500;

/// From the smallest MTU of IPv4 to what fits a packet of `XEN_NETIF_MAX_TX_SIZE`, which counts the
/// Ethernet header.
const MTUS: RangeInclusive<u16> = 68..=(MAX_PACKET - ETHERNET_HEADER) as u16;

/// How often a transaction that met another one is run again before we come back later.
const TRIES: usize = 8;

/// Runs `work` within a transaction; again, a bounded number of times, where it met another one.
///
/// What `work` did is kept if it returns `Ok`. [`StoreError::Again`] if every try met another
/// transaction.
pub fn transact<S: Store, T>(
    store: &S,
    mut work: impl FnMut(Transaction) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    for _ in 0..TRIES {
        let transaction = store.begin()?;
        let outcome = match work(transaction) {
            Ok(value) => store.commit(transaction).map(|()| value),
            Err(error) => {
                store.abort(transaction);
                Err(error)
            }
        };
        match outcome {
            Err(StoreError::Again) => {}
            Ok(_) | Err(_) => return outcome,
        }
    }
    Err(StoreError::Again)
}

/// Keeps the errors that mean "the store did not answer".
pub(super) fn found<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::NotFound | StoreError::Denied | StoreError::Quota) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a directory is there.
pub(super) fn exists<S: Store>(
    store: &S,
    within: Option<Transaction>,
    path: &str,
) -> Result<bool, StoreError> {
    match store.list(within, path) {
        Ok(_) | Err(StoreError::Quota) => Ok(true),
        Err(StoreError::NotFound | StoreError::Denied) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a node and everything below it, if it is there.
pub(super) fn remove_if_there<S: Store>(
    store: &S,
    within: Option<Transaction>,
    path: &str,
) -> Result<(), StoreError> {
    match store.remove(within, path) {
        Ok(()) | Err(StoreError::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The nodes of one directory, read defensively.
#[derive(Clone, Copy)]
pub struct Reader<'a, S: Store> {
    /// Where to read.
    pub store: &'a S,
    /// In which transaction.
    pub within: Option<Transaction>,
    /// The directory.
    pub dir: &'a str,
}

impl<S: Store> Reader<'_, S> {
    /// A node's bytes.
    pub fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        found(self.store.read(self.within, &join(self.dir, key)))
    }

    /// A decimal number.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, StoreError> {
        Ok(self.bytes(key)?.as_deref().and_then(parse_u32))
    }

    /// A flag: 0 or another number. `default` where there is no number.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, StoreError> {
        Ok(self.u32(key)?.map_or(default, |number| number != 0))
    }

    /// A domain's number.
    pub fn domain(&self, key: &str) -> Result<Option<DomId>, StoreError> {
        Ok(self.bytes(key)?.as_deref().and_then(parse_domain))
    }

    /// A station's address.
    pub fn mac(&self, key: &str) -> Result<Option<[u8; 6]>, StoreError> {
        Ok(self.bytes(key)?.as_deref().and_then(parse_mac))
    }

    /// A vif's MTU, in octets above Ethernet.
    pub fn mtu(&self) -> Result<u16, StoreError> {
        let mtu = self.u32("mtu")?.and_then(|mtu| u16::try_from(mtu).ok());
        Ok(mtu.filter(|mtu| MTUS.contains(mtu)).unwrap_or(USUAL_MTU))
    }

    /// The path of a directory of `owner`.
    pub fn path(&self, key: &str, owner: DomId) -> Result<Option<String>, StoreError> {
        Ok(self.bytes(key)?.and_then(|value| parse_path(value, owner)))
    }
}

/// A node below a directory.
pub(super) fn join(dir: &str, key: &str) -> String {
    let mut path = String::with_capacity(dir.len() + 1 + key.len());
    path.push_str(dir);
    path.push('/');
    path.push_str(key);
    path
}

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
fn parse_path(value: Vec<u8>, owner: DomId) -> Option<String> {
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
    use crate::xenbus::tests::fake::FakeXen;

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

    #[test]
    fn f11_a_transaction_is_tried_again_but_not_for_ever() {
        let xen = FakeXen::new();
        let store = xen.domain(1);
        xen.refuse_commits(TRIES - 1);
        let mut runs = 0;
        let outcome = transact(&store, |t| {
            runs += 1;
            store.write(Some(t), "data/a", b"1")
        });
        assert_eq!((outcome, runs), (Ok(()), TRIES));
        assert_eq!(xen.get("/local/domain/1/data/a").as_deref(), Some("1"));

        xen.refuse_commits(TRIES);
        let outcome = transact(&store, |t| store.write(Some(t), "data/a", b"2"));
        assert_eq!(outcome, Err(StoreError::Again));
        assert_eq!(xen.get("/local/domain/1/data/a").as_deref(), Some("1"));

        let outcome: Result<(), _> = transact(&store, |t| {
            store.write(Some(t), "data/a", b"3")?;
            Err(StoreError::Quota)
        });
        assert_eq!(outcome, Err(StoreError::Quota));
        assert_eq!(xen.get("/local/domain/1/data/a").as_deref(), Some("1"));
        assert_eq!(xen.open_transactions(), 0);
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
