//! Xenstore's messages and its page.

use xen_store::byte_ring::Layout;
use xen_store::client::{ANSWERS, REQUESTS};
use xen_store::wire::{self, Header, Type};

use crate::headers::headers;

#[test]
fn abi_xenstore_messages() {
    let Some(c) = headers() else { return };
    c.compare([
        ("sizeof(xsd_sockmsg)", wire::HEADER as i64),
        ("XENSTORE_PAYLOAD_MAX", wire::MAX_PAYLOAD as i64),
    ]);
    c.compare([
        ("XS_DIRECTORY", Type::Directory as u32),
        ("XS_READ", Type::Read as u32),
        ("XS_WATCH", Type::Watch as u32),
        ("XS_UNWATCH", Type::Unwatch as u32),
        ("XS_TRANSACTION_START", Type::TransactionStart as u32),
        ("XS_TRANSACTION_END", Type::TransactionEnd as u32),
        ("XS_WRITE", Type::Write as u32),
        ("XS_RM", Type::Rm as u32),
        ("XS_DIRECTORY_PART", Type::DirectoryPart as u32),
        ("XS_WATCH_EVENT", wire::WATCH_EVENT),
        ("XS_ERROR", wire::ERROR),
    ]);
    // Each field says where it is.
    let bytes = Header { kind: 1, req_id: 2, tx_id: 3, len: 4 }.to_bytes();
    let at = |number: u8| bytes.iter().position(|byte| *byte == number).map_or(-1, |at| at as i64);
    c.compare([
        ("xsd_sockmsg.type", at(1)),
        ("xsd_sockmsg.req_id", at(2)),
        ("xsd_sockmsg.tx_id", at(3)),
        ("xsd_sockmsg.len", at(4)),
    ]);
}

#[test]
fn abi_xenstore_page() {
    let Some(c) = headers() else { return };
    let word = |field: &str| {
        let offset = c.number(&format!("xenstore_domain_interface.{field}"));
        usize::try_from(offset).unwrap() / 4
    };
    let words = usize::try_from(c.number("XENSTORE_RING_SIZE")).unwrap() / 4;
    let ring =
        |bytes, produced, consumed| Layout::new(word(bytes), words, word(produced), word(consumed));
    assert_eq!(REQUESTS, ring("req", "req_prod", "req_cons"));
    assert_eq!(ANSWERS, ring("rsp", "rsp_prod", "rsp_cons"));
}
