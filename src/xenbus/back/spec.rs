//! What the toolstack says of a vif, in our directory: `xl`'s words for it.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use packet_views::header::MTUS;

use crate::xenbus::Rate;
use crate::xenbus::identity::parse_mac;
use xen_store::nodes::{Reader, found};
use xen_store::values::{parse_u32, trim};
use xen_store::{Store, StoreError};

/// The longest word that is kept, in bytes.
const MAX_WORD: usize = 256;

/// What the toolstack says of a vif in the backend's directory (xl-network-configuration(5)), where no
/// client writes. Read anew each time that a client is offered a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VifSpec {
    /// `mac`: the client's address.
    pub mac: Option<[u8; 6]>,
    /// `mtu`: octets above Ethernet. `None` where nobody says, or says what fits no packet.
    pub mtu: Option<u16>,
    /// `rate`: how much the client may send.
    pub rate: Option<Rate>,
    /// `ip`: the client's addresses, separated by blanks as they were given.
    pub ip: Option<String>,
    /// `script`: the hotplug script, which nobody runs in a driver domain of ours: its path may choose what
    /// the vif is for.
    pub script: Option<String>,
    /// `bridge`: the network that the vif is to be part of.
    pub bridge: Option<String>,
    /// `type`: `vif`, or `vif_ioemu` for an emulated device's twin.
    pub kind: Option<String>,
    /// `vifname`: what the vif is to be called.
    pub name: Option<String>,
}

/// A directory's words, and the nodes in it that a backend has written.
pub(super) struct Found {
    pub(super) spec: VifSpec,
    /// What an earlier offer has left: features and errors.
    pub(super) offered: Vec<String>,
}

/// The most nodes of an earlier offer that are taken note of.
const MAX_OFFERED: usize = 16;

/// Reads what is there: one request for the list, and one for each node that means something.
pub(super) fn read<S: Store>(own: &Reader<'_, S>) -> Result<Found, StoreError> {
    let names = found(own.store.list(own.within, own.dir))?.unwrap_or_default();
    let mut spec = VifSpec::default();
    for name in &names {
        let bytes = || own.bytes(name);
        match name.as_str() {
            "mac" => spec.mac = bytes()?.as_deref().and_then(parse_mac),
            "mtu" => spec.mtu = bytes()?.as_deref().and_then(parse_mtu),
            "rate" => spec.rate = bytes()?.as_deref().and_then(Rate::parse),
            "ip" => spec.ip = bytes()?.as_deref().and_then(word),
            "script" => spec.script = bytes()?.as_deref().and_then(word),
            "bridge" => spec.bridge = bytes()?.as_deref().and_then(word),
            "type" => spec.kind = bytes()?.as_deref().and_then(word),
            "vifname" => spec.name = bytes()?.as_deref().and_then(word),
            _ => {}
        }
    }
    let is_offered = |name: &String| {
        name.starts_with("feature-") || name.starts_with("multi-queue-") || name == "error"
    };
    let offered = names.into_iter().filter(is_offered).take(MAX_OFFERED).collect();
    Ok(Found { spec, offered })
}

fn parse_mtu(value: &[u8]) -> Option<u16> {
    let mtu = u16::try_from(parse_u32(value)?).ok()?;
    MTUS.contains(&mtu.into()).then_some(mtu)
}

/// Text without control characters, and not too long; `None` where there is none.
fn word(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(trim(value)).ok()?;
    let is_word = !text.is_empty() && text.len() <= MAX_WORD && !text.contains(char::is_control);
    is_word.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use alloc::format;

    use super::*;
    use xen_store::memory::MemoryStore;

    fn spec(nodes: &[(&str, &str)]) -> VifSpec {
        let store = MemoryStore::new(0);
        store.write(None, "dir", b"").unwrap();
        for (key, value) in nodes {
            store.write(None, &format!("dir/{key}"), value.as_bytes()).unwrap();
        }
        read(&Reader { store: &store, within: None, dir: "dir" }).unwrap().spec
    }

    #[test]
    fn what_the_toolstack_says_is_read() {
        let all = spec(&[
            ("mac", "00:16:3e:00:00:01"),
            ("mtu", "9000"),
            ("rate", "10000000,50000"),
            ("ip", "10.0.0.2 fd00::2"),
            ("script", "/etc/xen/scripts/vif-bridge"),
            ("bridge", "xenbr0"),
            ("type", "vif_ioemu"),
            ("vifname", "web"),
        ]);
        let rate = all.rate.unwrap();
        assert_eq!((rate.bytes, rate.every), (10_000_000, Duration::from_millis(50)));
        assert_eq!((all.mac.map(|mac| mac[5]), all.mtu), (Some(1), Some(9000)));
        let words = [&all.ip, &all.script, &all.bridge, &all.kind, &all.name];
        let expected =
            ["10.0.0.2 fd00::2", "/etc/xen/scripts/vif-bridge", "xenbr0", "vif_ioemu", "web"];
        assert!(words.into_iter().map(|word| word.as_deref().unwrap()).eq(expected));
    }

    #[test]
    fn p3_what_makes_no_sense_is_not_there() {
        let long = "x".repeat(MAX_WORD + 1);
        let nonsense = [
            ("mac", "01:00:5e:00:00:01"),
            ("mtu", "17"),
            ("mtu", "70000"),
            ("rate", "0,50000"),
            ("ip", " "),
            ("script", &*long),
            ("bridge", "a\u{1b}[2J"),
        ];
        for node in nonsense {
            assert_eq!(spec(&[node]), VifSpec::default(), "{node:?}");
        }
    }
}
