//! What a vif's toolstack says of it: its address and its MTU.

use packet_views::header::MTUS;

use xen_store::nodes::Reader;
use xen_store::values::trim;
use xen_store::{Store, StoreError};

/// A vif's MTU where nobody says another.
pub(crate) const DEFAULT_MTU: u16 = 1500;

/// What the toolstack says of a vif, to each end in its own directory, where the peer does not
/// write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// `mac`: the frontend's address. `None` where there is none.
    pub mac: Option<[u8; 6]>,
    /// `mtu`: octets above Ethernet, 1500 where there is none that fits a packet.
    pub mtu: u16,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity { mac: None, mtu: DEFAULT_MTU }
    }
}

impl Identity {
    /// Reads it in the directory of the end that it tells.
    pub(crate) fn read<S: Store>(own: &Reader<'_, S>) -> Result<Identity, StoreError> {
        let mtu = own.u32("mtu")?.and_then(|mtu| u16::try_from(mtu).ok());
        Ok(Identity {
            mac: own.bytes("mac")?.as_deref().and_then(parse_mac),
            mtu: mtu.filter(|&mtu| MTUS.contains(&mtu.into())).unwrap_or(DEFAULT_MTU),
        })
    }
}

/// The address of a station, `00:16:3e:00:00:01` or `0:16:3E:0:0:1`: not zero, and not a group's.
pub(super) fn parse_mac(value: &[u8]) -> Option<[u8; 6]> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #[test]
        fn p3_no_bytes_are_a_group_or_nobody(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(mac) = parse_mac(&value) {
                prop_assert!(mac[0] & 1 == 0 && mac != [0; 6]);
            }
        }
    }
}
