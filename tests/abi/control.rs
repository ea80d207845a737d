//! The control ring, hashes, staging grants and the extras that nobody uses, as Xen's header has
//! them.

use xen_netfront::wire::control::{
    Ctrl, CtrlRequest, CtrlResponse, CtrlRing, CtrlStatus, Gref, HashAlgorithm, HashType,
};
use xen_netfront::wire::{Extra, Hash};
use xen_ring::{BackRing, FrontRing, Protocol, Wire};

use crate::headers::headers;
use crate::ring_world::Page;
use crate::{dump, hex, notify};

/// The values that `abi.c` fills in.
fn request(id: u16) -> CtrlRequest {
    CtrlRequest::new(id, Ctrl::SetHashMapping { gref: 0x3344_5566, len: 7, offset: 9 })
}

fn response() -> CtrlResponse {
    request(0x1122).answer(CtrlStatus::BufferOverflow, 0x7788_99aa)
}

#[test]
fn abi_control_messages() {
    let Some(c) = headers() else { return };
    let gref = Gref { gref: 0x1122_3344, flags: Gref::READONLY, status: 0x5566 };
    assert_eq!(hex(request(0x1122).to_words()), c.text("ctrl_request"));
    assert_eq!(hex(response().to_words()), c.text("ctrl_response"));
    assert_eq!(hex(gref.to_words()), c.text("gref"));
    c.compare([("grefs_per_page", Gref::PER_PAGE), ("ctrl_ring_size", CtrlRing::SIZE)]);
}

#[test]
fn abi_unused_extras() {
    let Some(c) = headers() else { return };
    let hash =
        Hash { kind: HashType::Ipv6Tcp, algorithm: HashAlgorithm::Toeplitz, value: 0x1122_3344 };
    assert_eq!(hex(Extra::from_hash(hash).to_words()), c.text("extra_hash"));
    if c.knows("extra_xdp") {
        c.compare([("XEN_NETIF_EXTRA_TYPE_XDP", Extra::XDP)]);
        assert_eq!(hex(Extra::from_xdp_headroom(0x1234).to_words()), c.text("extra_xdp"));
    }
}

#[test]
fn abi_control_numbers() {
    let Some(c) = headers() else { return };
    c.compare([
        ("XEN_NETIF_CTRL_TYPE_INVALID", CtrlRequest::INVALID),
        ("XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS", CtrlRequest::GET_HASH_FLAGS),
        ("XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS", CtrlRequest::SET_HASH_FLAGS),
        ("XEN_NETIF_CTRL_TYPE_SET_HASH_KEY", CtrlRequest::SET_HASH_KEY),
        ("XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE", CtrlRequest::GET_HASH_MAPPING_SIZE),
        ("XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE", CtrlRequest::SET_HASH_MAPPING_SIZE),
        ("XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING", CtrlRequest::SET_HASH_MAPPING),
        ("XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM", CtrlRequest::SET_HASH_ALGORITHM),
        ("XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE", CtrlRequest::GET_GREF_MAPPING_SIZE),
        ("XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING", CtrlRequest::ADD_GREF_MAPPING),
        ("XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING", CtrlRequest::DEL_GREF_MAPPING),
        ("XEN_NETIF_CTRLF_GREF_readonly", Gref::READONLY),
    ]);
    c.compare([
        ("XEN_NETIF_CTRL_STATUS_SUCCESS", CtrlStatus::Success as u32),
        ("XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED", CtrlStatus::NotSupported as u32),
        ("XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER", CtrlStatus::InvalidParameter as u32),
        ("XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW", CtrlStatus::BufferOverflow as u32),
        ("XEN_NETIF_CTRL_HASH_TYPE_IPV4", HashType::Ipv4.flag()),
        ("XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP", HashType::Ipv4Tcp.flag()),
        ("XEN_NETIF_CTRL_HASH_TYPE_IPV6", HashType::Ipv6.flag()),
        ("XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP", HashType::Ipv6Tcp.flag()),
        ("XEN_NETIF_CTRL_HASH_ALGORITHM_NONE", HashAlgorithm::None as u32),
        ("XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ", HashAlgorithm::Toeplitz as u32),
    ]);
}

/// The same session as in `abi.c` leaves the same page.
#[test]
fn abi_control_ring_page() {
    let Some(c) = headers() else { return };
    let page = Page::zeroed();
    let mut front = FrontRing::<CtrlRing, _>::new(page.clone());
    let mut back = BackRing::<CtrlRing, _>::attach(page.clone()).unwrap();
    while front.free() > 0 {
        front.push(request(front.next_index() as u16)).unwrap();
    }
    assert_eq!(front.publish(), notify(c, "ctrl_notify_back"));
    back.refresh().unwrap();
    back.pop().unwrap();
    back.push(response()).unwrap();
    assert_eq!(back.publish(), notify(c, "ctrl_notify_front"));
    assert_eq!(dump(&page), c.text("ctrl_page"));
}
