//! Layouts and numbers, compared with what a C compiler makes of Xen's public headers.
//!
//! Where there is no C compiler or no header (Debian: libxen-dev) the tests say so and pass; with
//! `XEN_ABI_REQUIRED=1`, as `scripts/test` runs them, they fail. The guest runtime's part is
//! `tests/abi/guest.rs`.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "abi/control.rs"]
mod control;
#[path = "../grant/tests/common/mod.rs"]
mod grant_world;
#[path = "abi/headers.rs"]
mod headers;
#[path = "../ring/tests/common/mod.rs"]
mod ring_world;
#[path = "abi/store.rs"]
mod store;

use std::num::NonZeroU16;

use grant_world::Domain;
use headers::{Headers, headers};
use packet_views::buffer::{Gso, GsoKind};
use ring_world::Page;
use xen_grant::{DomId, FramePool, GrantStatus, GrantTable, Grantee, ReadOnly, ReadWrite};
use xen_netfront::wire::{
    Extra, MAX_PACKET, MAX_SLOTS, RxRequest, RxResponse, RxRing, RxSlot, Status, TxRequest,
    TxResponse, TxRing, TxSlot, rx_flags, tx_flags,
};
use xen_netfront::xenbus::BusState;
use xen_ring::{BackRing, FrontRing, Notify, Protocol, Wire};

/// The values that `abi.c` fills in.
const TX_REQUEST: TxRequest =
    TxRequest { gref: 0x1122_3344, offset: 0x5566, flags: 0x7788, id: 0x99aa, size: 0xbbcc };
const RX_REQUEST: RxRequest = RxRequest { id: 0x4321, gref: 0xaabb_ccdd };
const RX_RESPONSE: RxResponse =
    RxResponse { id: 0x0102, offset: 0x0304, flags: 0x0506, status: -7 };
const EXTRA_GSO: Gso = Gso { size: NonZeroU16::new(1448).unwrap(), kind: GsoKind::TcpV6 };

fn tx_response() -> TxResponse {
    TxResponse { id: 0x1234, status: Status::Dropped.number() }
}

/// Words as C printed their bytes.
fn hex(words: impl AsRef<[u32]>) -> String {
    let bytes = words.as_ref().iter().flat_map(|word| word.to_le_bytes());
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn dump(page: &Page) -> String {
    hex((0..1024).map(|word| page.get(word)).collect::<Vec<_>>())
}

/// Whether C's ring macros say that an event is due.
fn notify(c: &Headers, name: &str) -> Notify {
    if c.number(name) == 1 { Notify::Needed } else { Notify::Suppressed }
}

#[test]
fn abi_netif_messages() {
    let Some(c) = headers() else { return };
    let mcast = Extra { kind: Extra::MCAST_ADD, flags: Extra::MORE, data: [1, 2, 3, 4, 5, 6] };
    assert_eq!(hex(TX_REQUEST.to_words()), c.text("tx_request"));
    assert_eq!(hex(tx_response().to_words()), c.text("tx_response"));
    assert_eq!(hex(RX_REQUEST.to_words()), c.text("rx_request"));
    assert_eq!(hex(RX_RESPONSE.to_words()), c.text("rx_response"));
    assert_eq!(hex(Extra::from_gso(EXTRA_GSO).to_words()), c.text("extra_gso"));
    assert_eq!(hex(mcast.to_words()), c.text("extra_mcast"));
}

#[test]
fn abi_netif_numbers() {
    let Some(c) = headers() else { return };
    c.compare([
        ("NETTXF_csum_blank", tx_flags::CSUM_BLANK),
        ("NETTXF_data_validated", tx_flags::DATA_VALIDATED),
        ("NETTXF_more_data", tx_flags::MORE_DATA),
        ("NETTXF_extra_info", tx_flags::EXTRA_INFO),
        ("NETRXF_data_validated", rx_flags::DATA_VALIDATED),
        ("NETRXF_csum_blank", rx_flags::CSUM_BLANK),
        ("NETRXF_more_data", rx_flags::MORE_DATA),
        ("NETRXF_extra_info", rx_flags::EXTRA_INFO),
        ("NETRXF_gso_prefix", rx_flags::GSO_PREFIX),
    ]);
    c.compare([
        ("NETIF_RSP_OKAY", Status::Okay.number()),
        ("NETIF_RSP_ERROR", Status::Error.number()),
        ("NETIF_RSP_DROPPED", Status::Dropped.number()),
        ("NETIF_RSP_NULL", Status::Null.number()),
    ]);
    c.compare([
        ("XEN_NETIF_EXTRA_FLAG_MORE", Extra::MORE),
        ("XEN_NETIF_EXTRA_TYPE_GSO", Extra::GSO),
        ("XEN_NETIF_EXTRA_TYPE_MCAST_ADD", Extra::MCAST_ADD),
        ("XEN_NETIF_EXTRA_TYPE_MCAST_DEL", Extra::MCAST_DEL),
        ("XEN_NETIF_EXTRA_TYPE_HASH", Extra::HASH),
    ]);
    c.compare([
        ("XEN_NETIF_NR_SLOTS_MIN", MAX_SLOTS as i64),
        ("XEN_NETIF_MAX_TX_SIZE", MAX_PACKET as i64),
    ]);
    c.compare([("tx_ring_size", TxRing::SIZE), ("rx_ring_size", RxRing::SIZE)]);
}

#[test]
fn abi_xenbus_states() {
    let Some(c) = headers() else { return };
    c.compare([
        ("XenbusStateUnknown", BusState::Unknown as u8),
        ("XenbusStateInitialising", BusState::Initialising as u8),
        ("XenbusStateInitWait", BusState::InitWait as u8),
        ("XenbusStateInitialised", BusState::Initialised as u8),
        ("XenbusStateConnected", BusState::Connected as u8),
        ("XenbusStateClosing", BusState::Closing as u8),
        ("XenbusStateClosed", BusState::Closed as u8),
        ("XenbusStateReconfiguring", BusState::Reconfiguring as u8),
        ("XenbusStateReconfigured", BusState::Reconfigured as u8),
    ]);
}

/// The same session as in `abi.c` leaves the same page.
#[test]
fn abi_transmit_ring_page() {
    let Some(c) = headers() else { return };
    let page = Page::zeroed();
    let mut front = FrontRing::<TxRing, _>::new(page.clone());
    assert_eq!(dump(&page), c.text("tx_page_empty"));
    let mut back = BackRing::<TxRing, _>::attach(page.clone()).unwrap();

    let extra = TxSlot::from(Extra::from_gso(EXTRA_GSO));
    for slot in [TX_REQUEST.into(), extra, TX_REQUEST.into()] {
        front.push(slot).unwrap();
    }
    assert_eq!(front.publish(), notify(c, "tx_notify_back"));
    assert_eq!(dump(&page), c.text("tx_page_requests"));

    assert_eq!(back.refresh(), Ok(3));
    while back.pop().is_some() {}
    assert_eq!(back.arm(), Ok(c.number("tx_more_requests") == 1));
    for _ in 0..3 {
        back.push(tx_response()).unwrap();
    }
    assert_eq!(back.publish(), notify(c, "tx_notify_front"));
    assert_eq!(front.refresh(), Ok(3));
    while front.pop().is_some() {}
    assert_eq!(front.arm(1), Ok(c.number("tx_more_responses") == 1));
    assert_eq!(dump(&page), c.text("tx_page_responses"));
}

#[test]
fn abi_receive_ring_page() {
    let Some(c) = headers() else { return };
    let page = Page::zeroed();
    let mut front = FrontRing::<RxRing, _>::new(page.clone());
    let mut back = BackRing::<RxRing, _>::attach(page.clone()).unwrap();
    while front.free() > 0 {
        let id = front.next_index() as u16;
        front.push(RxRequest { id, ..RX_REQUEST }).unwrap();
    }
    assert_eq!(front.publish(), notify(c, "rx_notify_back"));
    back.refresh().unwrap();
    back.pop().unwrap();
    back.push(RxSlot::from(RX_RESPONSE)).unwrap();
    assert_eq!(back.publish(), notify(c, "rx_notify_front"));
    assert_eq!(dump(&page), c.text("rx_page"));
}

#[test]
fn abi_grant_entries() {
    let Some(c) = headers() else { return };
    // A domain of one page, with the frame number that abi.c writes.
    let domain = Domain::starting_at(1, 1, 0x1234);
    let to = Grantee::new(DomId(7), true);
    let entry = |number| hex([domain.entry(number, 0), domain.entry(number, 1)]);

    let frame = FramePool::new(&domain, 1).unwrap().take().unwrap();
    let reference = GrantTable::new(&domain).claim().unwrap();
    assert_eq!(i64::from(reference.number()), c.number("GNTTAB_NR_RESERVED_ENTRIES"));
    let (granted, _) = reference.grant::<ReadWrite>(frame, &to, 0..0);
    assert_eq!(entry(granted.number()), c.text("grant_writable"));
    // What Xen sets while the peer uses the page is what makes a revoke fail.
    assert_eq!(i64::from(grant_world::READING), c.number("GTF_reading"));
    assert_eq!(i64::from(grant_world::WRITING), c.number("GTF_writing"));

    let (frame, reference) = granted.revoke().unwrap();
    let (granted, _) = reference.grant::<ReadOnly>(frame, &to, 0..0);
    assert_eq!(entry(granted.number()), c.text("grant_read_only"));
}

#[test]
fn abi_grant_statuses() {
    let Some(c) = headers() else { return };
    c.compare(
        [
            ("GNTST_okay", GrantStatus::OKAY),
            ("GNTST_general_error", GrantStatus::GENERAL_ERROR),
            ("GNTST_bad_domain", GrantStatus::BAD_DOMAIN),
            ("GNTST_bad_gntref", GrantStatus::BAD_GNTREF),
            ("GNTST_bad_handle", GrantStatus::BAD_HANDLE),
            ("GNTST_no_device_space", GrantStatus::NO_DEVICE_SPACE),
            ("GNTST_permission_denied", GrantStatus::PERMISSION_DENIED),
            ("GNTST_bad_page", GrantStatus::BAD_PAGE),
            ("GNTST_bad_copy_arg", GrantStatus::BAD_COPY_ARG),
            ("GNTST_address_too_big", GrantStatus::ADDRESS_TOO_BIG),
            ("GNTST_eagain", GrantStatus::EAGAIN),
            ("GNTST_no_space", GrantStatus::NO_SPACE),
        ]
        .map(|(name, status)| (name, status.0)),
    );
}
