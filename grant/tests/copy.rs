//! Batched grant copies (requirements B6, B9).
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Domain;
use xen_grant::{
    CopyError, CopyIn, CopyOut, DomId, Foreign, FramePool, GrantStatus, GrantTable, Grantee,
    ReadOnly, ReadWrite,
};

const CLIENT: DomId = DomId(3);

#[test]
fn b6_each_operation_has_its_own_outcome() {
    let domain = Domain::new(4, 1);
    let pool = FramePool::new(&domain, 4).unwrap();
    let table = GrantTable::new(&domain);
    let to = Grantee::new(CLIENT, true);
    let mut theirs = pool.take().unwrap();
    for (at, byte) in theirs.bytes_mut().iter_mut().enumerate() {
        *byte = at as u8;
    }
    let (granted, _) = table.claim().unwrap().grant::<ReadOnly>(theirs, &to, 0..4096);
    let from = |offset| Foreign { domain: CLIENT, gref: granted.number(), offset };

    let mut batch = CopyIn::with_capacity(4, 8);
    assert_eq!(batch.push(from(0), 0..1), Err(CopyError), "no frame yet");
    batch.frame(pool.take().unwrap());
    batch.push(from(10), 100..120).unwrap();
    batch.push(from(40), 120..130).unwrap();
    batch.frame(pool.take().unwrap());
    batch.push(from(4095), 0..1).unwrap();
    assert_eq!(batch.push(from(4095), 0..2), Err(CopyError), "crosses the client's page");
    assert_eq!(batch.push(from(0), 4095..4097), Err(CopyError), "crosses ours");
    let backwards = std::ops::Range { start: 5, end: 4 };
    assert_eq!(batch.push(from(0), backwards), Err(CopyError));
    assert_eq!(batch.len(), 3);
    domain.fail_copies(&[GrantStatus::OKAY, GrantStatus::BAD_GNTREF]);
    batch.submit(&domain);
    assert!(
        batch.succeeded(0..1)
            && !batch.succeeded(0..2)
            && batch.succeeded(2..3)
            && !batch.succeeded(2..9)
    );
    let frames: Vec<_> = batch.take().collect();
    let expected: Vec<u8> = (10..30).collect();
    assert_eq!(frames[0].bytes()[100..120], expected);
    assert_eq!(frames[0].bytes()[120..130], [0; 10]);
    assert_eq!(frames[1].bytes()[0], 4095u32 as u8);
    assert!(batch.is_empty());
    batch.truncate(0, 0);
}

#[test]
fn b6_copies_out_of_shared_frames() {
    let domain = Domain::new(2, 1);
    let pool = FramePool::new(&domain, 2).unwrap();
    let table = GrantTable::new(&domain);
    let to = Grantee::new(CLIENT, true);
    let (granted, _) = table.claim().unwrap().grant::<ReadWrite>(pool.take().unwrap(), &to, 0..0);
    let mut ours = pool.take().unwrap();
    ours.bytes_mut()[..4].copy_from_slice(b"ping");
    let ours = ours.share();
    let mut batch = CopyOut::with_capacity(2, 2);
    batch.frame(ours.clone());
    batch.push(0..4, Foreign { domain: CLIENT, gref: granted.number(), offset: 0 }).unwrap();
    assert!(ours.try_unshare().is_err(), "the batch has a share until it is done");
    batch.submit(&domain);
    assert!(batch.succeeded(0..1));
    batch.clear();
    assert_eq!(granted.revoke().unwrap().0.bytes()[..4], *b"ping");
    assert_eq!(pool.free(), 2);
}

#[test]
fn b9_a_batch_without_operations_calls_nobody() {
    let domain = Domain::new(1, 1);
    domain.fail_copies(&[GrantStatus::BAD_GNTREF]);
    let mut batch = CopyIn::default();
    batch.submit(&domain);
    assert!(batch.succeeded(0..0));
    CopyOut::default().submit(&domain);
}
