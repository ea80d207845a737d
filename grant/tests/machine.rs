//! On which machine a domain is: seen by its grant table, or heard of.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Domain;
use xen_grant::{GrantTable, Reference};

/// The entry that has the mark, which nobody claims.
const MARKED: u32 = 511;

#[test]
fn a_new_table_is_another_machine_and_an_old_one_is_not() {
    let domain = Domain::new(0, 2);
    let table = GrantTable::new(&domain);
    // As long as the domain has claimed nothing, it has no table that could tell.
    assert_eq!((table.machine(), table.machine()), (0, 0));
    let reference = table.claim().unwrap();
    assert_eq!((table.machine(), table.machine()), (0, 0), "the first is no other one");
    for machine in 1..4 {
        domain.change_machine();
        assert_eq!((table.machine(), table.machine()), (machine, machine));
        // A checkpoint, or anything that claims and grows, changes nothing.
        let more = table.claim_many(600).unwrap();
        assert_eq!(table.machine(), machine);
        drop(more);
        assert_eq!(table.clone().machine(), machine);
    }
    drop(reference);
    assert_eq!(table.machine(), 3);
}

/// Who was told that the domain has left knows which machine it was: told by several, or seen already, it
/// counts once.
#[test]
fn a_machine_is_left_once() {
    for (seen, first) in [(false, false), (true, false), (true, true)] {
        let domain = Domain::new(0, 2);
        let table = GrantTable::new(&domain);
        let _reference = table.claim().unwrap();
        let mut now = 0;
        for _ in 0..3 {
            let was = now;
            if seen {
                domain.change_machine();
            }
            if first {
                assert_eq!(table.machine(), was + 1);
            }
            now = table.left(was);
            assert_eq!(now, was + 1, "{seen} {first}");
            assert_eq!((table.left(was), table.left(was)), (now, now));
            assert_eq!(table.machine(), now);
        }
    }
}

/// The mark permits nobody anything, lies where no grant does, and touches none of the toolstack's.
#[test]
fn the_mark_is_no_grant() {
    let domain = Domain::new(0, 2);
    let table = GrantTable::new(&domain);
    let references = table.claim_many(2 * 512 - 9).unwrap();
    assert!(table.claim().is_err());
    let numbers: Vec<u32> = references.iter().map(Reference::number).collect();
    assert!(!numbers.contains(&MARKED));
    domain.change_machine();
    table.machine();
    assert_eq!(domain.entry(MARKED, 0), 0, "nobody has access");
    assert_ne!(domain.entry(MARKED, 1), 0);
    for gref in numbers {
        assert_eq!((domain.entry(gref, 0), domain.entry(gref, 1)), (0, 0), "{gref}");
    }
    assert_eq!((domain.entry(0, 0), domain.entry(1, 0)), (0x19, 0x19));
}
