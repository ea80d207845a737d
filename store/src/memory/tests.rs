//! What the in-memory xenstore does, through the trait.

use alloc::format;

use super::*;

fn two() -> (MemoryStore, MemoryStore, MemoryStore) {
    let one = MemoryStore::new(1);
    (one.as_domain(0), one.clone(), one.as_domain(2))
}

#[test]
fn domains_see_one_tree_with_their_own_eyes() {
    let (zero, one, two) = two();
    one.write(None, "a/b", b"1").unwrap();
    let path = "/local/domain/1/a/b";
    assert_eq!(zero.read(None, path).unwrap(), b"1");
    assert_eq!(two.read(None, path), Err(StoreError::Denied));
    assert_eq!(two.set_perms("/local/domain/1/a/b", Perms::of(2)), Err(StoreError::Denied));
    one.set_perms("a/b", Perms::of(1).with(2, Access::READ)).unwrap();
    assert_eq!(two.read(None, path).unwrap(), b"1");
    assert_eq!(two.write(None, path, b"2"), Err(StoreError::Denied));
    assert_eq!(two.perms(path).unwrap().owner, 1);
    assert_eq!(zero.list(None, "/local/domain").unwrap(), ["0", "1", "2"]);
    assert_eq!(one.read(None, "a b"), Err(StoreError::INVALID));
    assert_eq!(one.write(None, "a", &[0; MAX_VALUE + 1]), Err(StoreError::Quota));
    // A second handle finds what is there.
    assert_eq!(zero.as_domain(1).read(None, "a/b").unwrap(), b"1");
}

#[test]
fn p2_a_watch_has_one_event_at_most() {
    let (zero, one, two) = two();
    let watch = one.watch("d").unwrap();
    assert!(one.fired(&watch) && !one.fired(&watch));
    for _ in 0..100 {
        one.write(None, "d/below", b"").unwrap();
        zero.write(None, "/local/domain/1/d", b"").unwrap();
    }
    assert!(one.fired(&watch) && !one.fired(&watch));
    one.write(None, "e", b"").unwrap();
    assert!(!one.fired(&watch) && !two.fired(&watch), "not below; not theirs");
    let foreign = two.watch("/local/domain/1/d").unwrap();
    two.fired(&foreign);
    one.remove(None, "d").unwrap();
    assert!(one.fired(&watch) && !two.fired(&foreign), "what it may not read it is not told of");
    two.unwatch(Watch(watch.0));
    one.write(None, "d", b"").unwrap();
    assert!(one.fired(&watch), "nobody takes another's watch away");
    let gone = Watch(watch.0);
    one.unwatch(watch);
    one.write(None, "d", b"").unwrap();
    assert!(!one.fired(&gone));
}

#[test]
fn a_transaction_is_private_and_meets_others() {
    let (_, one, two) = two();
    one.write(None, "n", b"1").unwrap();
    let watch = one.watch("n").unwrap();
    one.fired(&watch);
    let [first, second] = [(); 2].map(|()| one.begin().unwrap());
    for (transaction, value) in [(first, b"2"), (second, b"3")] {
        assert_eq!(one.read(Some(transaction), "n").unwrap(), b"1");
        one.write(Some(transaction), "n", value).unwrap();
        assert_eq!(one.read(Some(transaction), "n").unwrap(), value);
    }
    assert_eq!(two.read(Some(first), "n"), Err(StoreError::NotFound), "not theirs");
    assert!(!one.fired(&watch));
    assert_eq!(one.commit(first), Ok(()));
    assert!(one.fired(&watch));
    assert_eq!(one.commit(second), Err(StoreError::Again));
    assert_eq!(one.read(None, "n").unwrap(), b"2");
    assert_eq!(one.commit(second), Err(StoreError::NotFound), "over, whatever came of it");
    let third = one.begin().unwrap();
    one.remove(Some(third), "n").unwrap();
    one.abort(third);
    assert_eq!(one.read(None, "n").unwrap(), b"2");
    // A list is read like a value: a child that comes or goes has changed it.
    one.write(None, "d/a", b"").unwrap();
    let listed = |change: &dyn Fn()| {
        let fourth = one.begin().unwrap();
        one.list(Some(fourth), "d").unwrap();
        change();
        one.commit(fourth)
    };
    assert_eq!(listed(&|| one.write(None, "d/a", b"1").unwrap()), Ok(()), "no matter for the list");
    assert_eq!(listed(&|| one.write(None, "d/b", b"").unwrap()), Err(StoreError::Again));
    assert_eq!(listed(&|| one.remove(None, "d/b").unwrap()), Err(StoreError::Again));
}

#[test]
fn a_transaction_over_the_quota_does_nothing() {
    let (_, one, _) = two();
    one.write(None, "outside/0", b"").unwrap();
    let begun = one.begin().unwrap();
    one.write(Some(begun), "inside/1", b"").unwrap();
    one.write(Some(begun), "inside/2", b"").unwrap();
    // Elsewhere, so that the two don't meet: they only share the quota.
    let fill = || (1..).take_while(|n| one.write(None, &format!("outside/{n}"), b"").is_ok());
    assert_eq!(fill().count(), MAX_NODES - 3, "beside the home, outside and 0");
    one.remove(None, "outside/1").unwrap();
    one.remove(None, "outside/2").unwrap();
    assert_eq!(one.commit(begun), Err(StoreError::Quota), "three more, and room for two");
    assert_eq!(one.list(None, "inside"), Err(StoreError::NotFound));
    assert_eq!(one.tree.borrow().owned(1), MAX_NODES - 2);

    one.remove(None, "outside/3").unwrap();
    let begun = one.begin().unwrap();
    one.write(Some(begun), "inside/1", b"").unwrap();
    one.write(None, "outside/1", b"").unwrap();
    assert_eq!(one.commit(begun), Ok(()), "two more, and room for two");
    assert_eq!(one.tree.borrow().owned(1), MAX_NODES);
}

#[test]
fn a_domain_that_dies_leaves_its_nodes_and_nothing_open() {
    let mut tree = Tree::default();
    for domain in [0, 1] {
        let _ = tree.introduce(domain);
    }
    let told = tree.watch(0, "@releaseDomain").unwrap();
    let theirs = tree.watch(1, "data").unwrap();
    let begun = tree.begin(1).unwrap();
    let effects = tree.write(1, None, "data", b"1").unwrap();
    let [lost] = &effects.events[..] else { panic!("{effects:?}") };
    assert_eq!((lost.watch, &*lost.path), (theirs.0, "/local/domain/1/data"));
    let [change] = &effects.changes[..] else { panic!("{effects:?}") };
    assert_eq!(
        (change.path.as_str(), change.value.as_deref()),
        ("/local/domain/1/data", Some(&b"1"[..]))
    );
    assert!(tree.fired(0, &told) && !tree.fired(0, &told));

    let lost = lost.clone();
    let effects = tree.release(1);
    let [event] = &effects.events[..] else { panic!("{effects:?}") };
    assert_eq!((event.watch, effects.changes.len()), (told.0, 0));
    assert_eq!(tree.fire(event), Some(0));
    assert!(tree.fired(0, &told));
    assert_eq!(tree.fire(&lost), None);
    assert_eq!((tree.watches_of(1), tree.transactions_of(1), tree.owned(1)), (0, 0, 2));
    assert_eq!(tree.commit(1, begun), Err(StoreError::NotFound));
    assert_eq!(tree.read(0, None, "/local/domain/1/data").unwrap(), b"1");
    // It comes back to what it had.
    assert_eq!(tree.introduce(1), Effects::default());
    assert_eq!(tree.read(1, None, "data").unwrap(), b"1");
}
