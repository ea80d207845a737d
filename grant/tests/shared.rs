//! A page that a peer reads while we do: a grant holds a share of it.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::Domain;
use xen_grant::{
    DomId, FramePool, GrantTable, Granted, Grantee, Quarantine, ReadShared, Readable, SharedFrame,
    StillInUse,
};

const A: DomId = DomId(3);
const B: DomId = DomId(4);

/// A page whose bytes 64..128 are to be shown, in whatever other company.
fn filled(pool: &FramePool) -> xen_grant::Frame {
    let mut frame = pool.take().unwrap();
    frame.range_mut(0..200).unwrap().fill(7);
    frame
}

fn share(frame: &SharedFrame, table: &GrantTable, to: DomId) -> Option<Granted<ReadShared>> {
    let to = Grantee::new(to, true);
    Some(table.claim().unwrap().grant_shared(frame.clone().fit(&to, &(64..128)).ok()?))
}

#[test]
fn f7_a_shared_page_is_shown_only_where_nothing_of_it_is_to_be_cleared() {
    let domain = Domain::new(4, 1);
    let (pool, table) = (FramePool::new(&domain, 4).unwrap(), GrantTable::new(&domain));
    // Bytes were written that are not meant.
    let shared = filled(&pool).share();
    let frame = shared
        .fit(&Grantee::new(A, true), &(64..128))
        .expect_err("the rest of the page is not for this peer");
    // Cleared, it is for all of them, at once, also for those who are not trusted.
    let mut frame = frame.try_unshare().unwrap();
    assert_eq!(frame.conceal(64..128), 64 + 72);
    let frame = frame.share();
    let granted: Vec<_> = [A, B].into_iter().map(|to| share(&frame, &table, to).unwrap()).collect();
    let stranger = Grantee::new(DomId(9), false);
    assert!(frame.is_fit(&stranger, &(64..128)) && !frame.is_fit(&stranger, &(65..128)));
    for (granted, peer) in granted.iter().zip([A, B]) {
        assert!(!domain.begin(peer, granted.number(), true), "it is read only");
        assert!(domain.begin(peer, granted.number(), false));
    }
    assert!(frame.bytes()[..64] == [0; 64] && frame.bytes()[64..128] == [7; 64]);
    assert!(frame.bytes()[128..] == [0; 3968]);
    for granted in granted {
        let StillInUse(granted) = granted.revoke().unwrap_err();
        domain.end(granted.number());
        let (page, _reference) = granted.revoke().unwrap();
        assert!(matches!(page, Readable::Shared(_)));
    }
    assert!(frame.try_unshare().is_ok());
    assert_eq!((pool.free(), table.usage().claimed), (4, 0));
}

/// Nobody writes what a peer reads: as long as it is granted it is not ours alone, however it ends.
#[test]
fn r5_a_page_is_not_written_while_a_peer_may_read_it() {
    let domain = Domain::new(4, 1);
    let (pool, table) = (FramePool::new(&domain, 4).unwrap(), GrantTable::new(&domain));
    let mut quarantine = Quarantine::new(4);
    for end in ["revoked", "dropped", "in quarantine", "with the table"] {
        let mut frame = filled(&pool);
        frame.conceal(64..128);
        let mine = frame.share();
        let granted = share(&mine, &table, A).unwrap();
        let mine = mine.try_unshare().expect_err("the grant has a share");
        match end {
            "revoked" => drop(granted.revoke().unwrap()),
            "dropped" => drop(granted),
            "in quarantine" => {
                let number = granted.number();
                assert!(domain.begin(A, number, false));
                quarantine.admit(granted.revoke().unwrap_err());
                let mine = mine.clone().try_unshare().expect_err("the peer reads it");
                domain.end(number);
                quarantine.retry(Duration::ZERO);
                assert_eq!(quarantine.retry(Duration::from_secs(1)), 1);
                drop(mine);
            }
            _ => {
                let number = granted.number();
                assert!(domain.begin(A, number, false));
                drop(granted);
                let mine = mine.clone().try_unshare().expect_err("the peer reads it");
                domain.end(number);
                table.sweep();
                drop(mine);
            }
        }
        let mut frame = mine.try_unshare().unwrap_or_else(|_| panic!("{end}: a share is left"));
        frame.bytes_mut().fill(1);
        drop(frame);
        assert_eq!((pool.free(), table.usage().claimed), (4, 0), "{end}");
    }
}

/// The grant is the last one that holds it: then the page goes home from there.
#[test]
fn r8_a_shared_page_outlives_its_readers_while_it_is_granted() {
    let domain = Domain::new(2, 1);
    let (pool, table) = (FramePool::new(&domain, 2).unwrap(), GrantTable::new(&domain));
    let mut frame = filled(&pool);
    // A range that no page has: all is concealed.
    assert_eq!(frame.conceal(64..5000), 200);
    frame.range_mut(64..128).unwrap().fill(7);
    let frame = frame.share();
    let granted = share(&frame, &table, A).unwrap();
    drop(frame);
    assert_eq!(pool.free(), 1);
    // What is ours alone is granted the same way, and comes back as such.
    let reference = table.claim().unwrap();
    let own = reference.grant::<ReadShared>(pool.take().unwrap(), &Grantee::new(A, true), 0..0).0;
    assert!(matches!(own.revoke().unwrap().0, Readable::Own(_)));
    let (Readable::Shared(last), _) = granted.revoke().unwrap() else { panic!("it was shared") };
    assert!(last.try_unshare().is_ok());
    assert_eq!(pool.free(), 2);
}
