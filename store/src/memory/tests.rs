//! What the in-memory xenstore does, through the trait.

use alloc::format;
use alloc::vec;

use super::*;

fn two() -> (MemoryStore, MemoryStore, MemoryStore) {
    let one = MemoryStore::new(1);
    (one.as_domain(0), one.clone(), one.as_domain(2))
}

#[test]
fn domains_see_one_tree_with_their_own_eyes() {
    let (zero, one, two) = two();
    one.write(None, "data/b", b"1").unwrap();
    let path = "/local/domain/1/data/b";
    assert_eq!(zero.read(None, path).unwrap(), b"1");
    assert_eq!(two.read(None, path), Err(StoreError::Denied));
    assert_eq!(two.set_perms(path, Perms::of(2)), Err(StoreError::Denied));
    one.set_perms("data/b", Perms::of(1).with(2, Access::READ)).unwrap();
    assert_eq!(two.read(None, path).unwrap(), b"1");
    assert_eq!(two.write(None, path, b"2"), Err(StoreError::Denied));
    assert_eq!(two.perms(path).unwrap().owner, 1);
    assert_eq!(zero.list(None, "/local/domain").unwrap(), ["0", "1", "2"]);
    assert_eq!(one.read(None, "a b"), Err(StoreError::INVALID));
    assert_eq!(one.write(None, "data/v", &[0; MAX_VALUE + 1]), Err(StoreError::Quota));
    // A second handle finds what is there.
    assert_eq!(zero.as_domain(1).read(None, "data/b").unwrap(), b"1");
}

#[test]
fn p2_a_watch_has_one_event_at_most() {
    let (zero, one, two) = two();
    let watch = one.watch("data/d").unwrap();
    assert!(one.fired(&watch) && !one.fired(&watch));
    for _ in 0..100 {
        one.write(None, "data/d/below", b"").unwrap();
        zero.write(None, "/local/domain/1/data/d", b"").unwrap();
    }
    assert!(one.fired(&watch) && !one.fired(&watch));
    one.write(None, "data/e", b"").unwrap();
    assert!(!one.fired(&watch) && !two.fired(&watch), "not below; not theirs");
    let foreign = two.watch("/local/domain/1/data/d").unwrap();
    two.fired(&foreign);
    one.remove(None, "data/d").unwrap();
    assert!(one.fired(&watch) && !two.fired(&foreign), "what it may not read it is not told of");
    two.unwatch(Watch(watch.0));
    one.write(None, "data/d", b"").unwrap();
    assert!(one.fired(&watch), "nobody takes another's watch away");
    let gone = Watch(watch.0);
    one.unwatch(watch);
    one.write(None, "data/d", b"").unwrap();
    assert!(!one.fired(&gone));
}

#[test]
fn a_transaction_is_private_and_meets_others() {
    let (_, one, two) = two();
    one.write(None, "data/n", b"1").unwrap();
    let watch = one.watch("data/n").unwrap();
    one.fired(&watch);
    let [first, second] = [(); 2].map(|()| one.begin().unwrap());
    for (transaction, value) in [(first, b"2"), (second, b"3")] {
        assert_eq!(one.read(Some(transaction), "data/n").unwrap(), b"1");
        one.write(Some(transaction), "data/n", value).unwrap();
        assert_eq!(one.read(Some(transaction), "data/n").unwrap(), value);
    }
    assert_eq!(two.read(Some(first), "data/n"), Err(StoreError::NotFound), "not theirs");
    assert!(!one.fired(&watch));
    assert_eq!(one.commit(first), Ok(()));
    assert!(one.fired(&watch));
    assert_eq!(one.commit(second), Err(StoreError::Again));
    assert_eq!(one.read(None, "data/n").unwrap(), b"2");
    assert_eq!(one.commit(second), Err(StoreError::NotFound), "over, whatever came of it");
    let third = one.begin().unwrap();
    one.remove(Some(third), "data/n").unwrap();
    one.abort(third);
    assert_eq!(one.read(None, "data/n").unwrap(), b"2");
    // A list is read like a value: a child that comes or goes has changed it.
    one.write(None, "data/d/a", b"").unwrap();
    let listed = |change: &dyn Fn()| {
        let fourth = one.begin().unwrap();
        one.list(Some(fourth), "data/d").unwrap();
        change();
        one.commit(fourth)
    };
    assert_eq!(
        listed(&|| one.write(None, "data/d/a", b"1").unwrap()),
        Ok(()),
        "no matter for the list"
    );
    assert_eq!(listed(&|| one.write(None, "data/d/b", b"").unwrap()), Err(StoreError::Again));
    assert_eq!(listed(&|| one.remove(None, "data/d/b").unwrap()), Err(StoreError::Again));
}

/// Makes nodes until the quota is reached, a hundred in each directory; tells how many.
fn fill(one: &MemoryStore, dir: &str) -> usize {
    let owned = |store: &MemoryStore| store.tree.borrow().owned(1);
    let before = owned(one);
    let path = |n: usize| format!("{dir}/{}/{n}", n / 100);
    let full = (0..).find(|&n| one.write(None, &path(n), b"") == Err(StoreError::Quota));
    assert!(full.is_some());
    owned(one) - before
}

#[test]
fn a_transaction_over_the_quota_does_nothing() {
    let (_, one, _) = two();
    one.write(None, "data/outside/0/x", b"").unwrap();
    one.write(None, "data/outside/0/y", b"").unwrap();
    let had = one.tree.borrow().owned(1);
    let begun = one.begin().unwrap();
    one.write(Some(begun), "attr/inside/1", b"").unwrap();
    one.write(Some(begun), "attr/inside/2", b"").unwrap();
    // Elsewhere, so that the two don't meet: they only share the quota.
    assert_eq!(fill(&one, "data/outside"), MAX_NODES - had);
    one.remove(None, "data/outside/0/1").unwrap();
    one.remove(None, "data/outside/0/2").unwrap();
    assert_eq!(one.commit(begun), Err(StoreError::Quota), "three more, and room for two");
    assert_eq!(one.list(None, "attr/inside"), Err(StoreError::NotFound));
    assert_eq!(one.tree.borrow().owned(1), MAX_NODES - 2);

    // A transaction may not use up the quota.
    let two_more = |one: &MemoryStore| {
        let begun = one.begin().unwrap();
        one.write(Some(begun), "attr/inside/1", b"").unwrap();
        one.commit(begun)
    };
    assert_eq!(two_more(&one), Err(StoreError::Quota), "two more, and room for two");
    one.remove(None, "data/outside/0/3").unwrap();
    assert_eq!(two_more(&one), Ok(()));
    assert_eq!(one.tree.borrow().owned(1), MAX_NODES - 1);
    // One that makes nothing is not asked.
    one.write(None, "attr/last", b"").unwrap();
    let begun = one.begin().unwrap();
    one.write(Some(begun), "attr/last", b"1").unwrap();
    one.remove(Some(begun), "attr/inside/1").unwrap();
    assert_eq!(one.commit(begun), Ok(()));
}

#[test]
fn n2_a_raised_quota_holds_more() {
    let (_, one, _) = two();
    one.set_quota(Quota { nodes: 2500, watches: 3, ..Quota::default() });
    let had = one.tree.borrow().owned(1);
    assert_eq!(fill(&one, "data"), 2500 - had);
    for _ in 0..3 {
        one.watch("data").unwrap();
    }
    assert_eq!(one.watch("data"), Err(StoreError::Quota));
}

#[test]
fn n2_what_the_toolstack_makes_in_a_domains_name_counts() {
    let (zero, one, _) = two();
    let had = one.tree.borrow().owned(1);
    let dir = "/local/domain/1/backend/vif/2/0";
    zero.write(None, dir, b"").unwrap();
    assert_eq!(one.tree.borrow().owned(1), had, "the directories above are domain 0's");
    zero.set_perms(dir, Perms::of(1).with(2, Access::READ)).unwrap();
    for n in 0..30 {
        zero.write(None, &format!("{dir}/{n}"), b"").unwrap();
    }
    assert_eq!(one.tree.borrow().owned(1), had + 31);
    one.set_quota(Quota { nodes: had + 10, ..Quota::default() });
    assert_eq!(one.write(None, &format!("{dir}/more"), b""), Err(StoreError::Quota));
    zero.write(None, &format!("{dir}/more"), b"").unwrap();
    one.write(None, &format!("{dir}/more"), b"1").unwrap();
    one.remove(None, dir).unwrap();
    assert_eq!(one.tree.borrow().owned(1), had);
}

#[test]
fn an_entry_is_bounded_with_all_that_it_holds() {
    let (zero, one, _) = two();
    let fits = |path: &str, len: usize| one.write(None, path, &vec![0; len]).is_ok();
    assert!(fits("data/v", MAX_VALUE) && !fits("data/v", MAX_VALUE + 1));
    // Another domain in its permissions costs 8 bytes, a child its name and a zero.
    one.write(None, "data/v", b"").unwrap();
    one.set_perms("data/v", Perms::of(1).with(2, Access::READ)).unwrap();
    assert!(fits("data/v", MAX_VALUE - 8) && !fits("data/v", MAX_VALUE - 7));
    assert_eq!(one.write(None, "data/v/child", b""), Err(StoreError::Quota));
    assert!(fits("data/v", MAX_VALUE - 14) && fits("data/v/child", MAX_VALUE - 8));
    assert!(!fits("data/v", MAX_VALUE - 13));
    let more = Perms::of(1).with(2, Access::READ).with(3, Access::READ);
    assert_eq!(one.set_perms("data/v", more.clone()), Err(StoreError::Quota));
    zero.set_perms("/local/domain/1/data/v", more).unwrap();
    let many = (2..7).fold(Perms::of(1), |perms, other| perms.with(other, Access::READ));
    assert_eq!(one.set_perms("data", many), Err(StoreError::Quota));
    // A directory that has become too long takes no child, wherever it would be made.
    assert_eq!(one.write(None, "data/v/x/y/z", b""), Err(StoreError::Quota));
    assert_eq!(one.list(None, "data/v").unwrap(), ["child"]);
    // Domain 0 is bound by the length of a message alone.
    zero.write(None, "/local/domain/1/data/w", &[0; 4000]).unwrap();
    assert_eq!(zero.write(None, "/local/domain/1/data/w", &[0; 4096]), Err(StoreError::Quota));
    // What was refused inside a transaction has spoiled it.
    let begun = one.begin().unwrap();
    assert_eq!(one.write(Some(begun), "data/x", &[0; 2048]), Err(StoreError::Quota));
    one.write(Some(begun), "data/x", b"").unwrap();
    assert_eq!(one.commit(begun), Err(StoreError::Other(12)));
    // A transaction looks at no more than 1024 nodes, and nobody's permissions grow beyond five.
    let begun = one.begin().unwrap();
    let looks = |n: &u32| one.read(Some(begun), &format!("data/{n}")) == Err(StoreError::NotFound);
    assert_eq!((0..2000).take_while(looks).count(), 1023, "and data");
    one.abort(begun);
}

#[test]
fn n1_a_domain_removes_what_is_its_own_and_nothing_above() {
    let (zero, one, two) = two();
    let (parent, dir) = ("/local/domain/1/backend/vif/2", "/local/domain/1/backend/vif/2/0");
    zero.write(None, dir, b"").unwrap();
    zero.set_perms(dir, Perms::of(1).with(2, Access::READ)).unwrap();
    zero.write(None, &format!("{dir}/state"), b"1").unwrap();
    assert_eq!(zero.perms(&format!("{dir}/state")).unwrap().owner, 1, "children inherit");
    assert_eq!(zero.perms(parent).unwrap(), Perms::of(0).with(1, Access::READ));
    let told = two.watch(dir).unwrap();
    two.fired(&told);
    assert_eq!(two.remove(None, dir), Err(StoreError::Denied));
    assert_eq!(one.remove(None, parent), Err(StoreError::Denied));
    // What is refused inside a transaction leaves it as it was.
    let begun = one.begin().unwrap();
    one.remove(Some(begun), dir).unwrap();
    assert_eq!(one.list(Some(begun), parent).unwrap(), [""; 0]);
    assert_eq!(one.remove(Some(begun), parent), Err(StoreError::Denied));
    assert_eq!(one.commit(begun), Ok(()));
    assert!(two.fired(&told));
    assert_eq!(zero.list(None, parent).unwrap(), [""; 0]);
    assert_eq!(one.write(None, &format!("{parent}/1"), b""), Err(StoreError::Denied));
    assert_eq!(one.remove(None, dir), Err(StoreError::Denied), "gone, and the parent is not ours");
    // Where the domain may write, what is not there is removed already.
    assert_eq!(one.remove(None, "data/none"), Ok(()));
    assert_eq!(one.remove(None, "data/none/none"), Err(StoreError::NotFound));
}

#[test]
fn a_home_is_read_and_a_few_nodes_of_it_written() {
    let (zero, one, _) = two();
    for ours in ["data/x", "control/shutdown", "device/suspend/event-channel", "attr/a/b"] {
        assert_eq!(one.write(None, ours, b"1"), Ok(()), "{ours}");
    }
    for theirs in ["x", "device/vif", "device/vif/0/state", "control/x", "backend/vif/2/0"] {
        assert_eq!(one.write(None, theirs, b"1"), Err(StoreError::Denied), "{theirs}");
        let path = format!("/local/domain/1/{theirs}");
        zero.write(None, &path, b"1").unwrap();
        assert_eq!(one.read(None, theirs).unwrap(), b"1");
    }
    assert_eq!(one.read(None, "none"), Err(StoreError::NotFound));
    assert_eq!(one.list(None, "/local/domain"), Err(StoreError::Denied));
    assert_eq!(one.read(None, "/local/domain/2/none"), Err(StoreError::Denied));
    // Its permissions are not its own to change, and its own nodes not to give away.
    let open = Perms { others: Access::READ, ..Perms::of(1) };
    assert_eq!(one.set_perms("device", open.clone()), Err(StoreError::Denied));
    assert_eq!(one.set_perms("none", open.clone()), Err(StoreError::Denied));
    assert_eq!(one.set_perms("data/none", open.clone()), Err(StoreError::NotFound));
    assert_eq!(one.set_perms("data", open), Ok(()));
    assert_eq!(one.set_perms("data", Perms::of(2)), Err(StoreError::Denied));
    assert_eq!(zero.set_perms("/local/domain/1/data", Perms::of(2)), Ok(()));
    assert_eq!(one.read(None, "data"), Err(StoreError::Denied));
}

#[test]
fn a_watch_tells_who_may_read_the_node_or_its_directory_or_could() {
    let (zero, one, two) = two();
    one.write(None, "data/d/n", b"").unwrap();
    let path = "/local/domain/1/data/d";
    let watch = two.watch(path).unwrap();
    let told = |change: &dyn Fn()| {
        two.fired(&watch);
        change();
        two.fired(&watch)
    };
    assert!(!told(&|| one.write(None, "data/d/n", b"1").unwrap()));
    let read = Perms::of(1).with(2, Access::READ);
    assert!(told(&|| one.set_perms("data/d", read.clone()).unwrap()));
    assert!(told(&|| one.write(None, "data/d/n", b"2").unwrap()), "it sees the directory");
    assert!(told(&|| zero.set_perms(path, Perms::of(1)).unwrap()), "it could");
    assert!(!told(&|| one.write(None, "data/d/n", b"3").unwrap()));
}

#[test]
fn a_transaction_depends_on_all_that_it_looked_at() {
    let (zero, one, _) = two();
    one.write(None, "data/d/a/b", b"").unwrap();
    let meets = |look: &dyn Fn(Transaction), change: &dyn Fn()| {
        let begun = one.begin().unwrap();
        look(begun);
        change();
        one.commit(begun)
    };
    let miss = |begun| {
        one.read(Some(begun), "data/d/none").unwrap_err();
    };
    let home = "/local/domain/1/data/d";
    let beside = || zero.write(None, &format!("{home}/c"), b"").unwrap();
    assert_eq!(meets(&miss, &beside), Err(StoreError::Again), "what is missing may be there now");
    assert_eq!(meets(&miss, &|| zero.write(None, &format!("{home}/c"), b"1").unwrap()), Ok(()));
    let remove = |begun| one.remove(Some(begun), "data/d/a").unwrap();
    let deep = || zero.write(None, &format!("{home}/a/b"), b"1").unwrap();
    assert_eq!(meets(&remove, &deep), Err(StoreError::Again), "all below is looked at");
    assert_eq!(meets(&remove, &|| ()), Ok(()));
}

#[test]
fn permissions_are_set_within_a_transaction_too() {
    let mut tree = Tree::default();
    for domain in [0, 1, 2] {
        let _ = tree.introduce(domain);
    }
    let path = "/local/domain/1/backend/vif/2/0";
    let told = tree.watch(2, path).unwrap();
    tree.fired(2, &told);
    let transaction = tree.begin(0).unwrap();
    let begun = Some(transaction);
    let perms = Perms::of(1).with(2, Access::READ);
    assert_eq!(tree.write(0, begun, path, b""), Ok(Effects::default()));
    assert_eq!(tree.set_perms(0, begun, path, perms.clone()), Ok(Effects::default()));
    assert_eq!(tree.write(0, begun, &format!("{path}/state"), b"1"), Ok(Effects::default()));
    assert_eq!(tree.read(2, None, path), Err(StoreError::Denied));
    let effects = tree.commit(0, transaction).unwrap();
    assert!(effects.events.iter().any(|event| event.watch == told.0));
    assert_eq!(tree.read(2, None, &format!("{path}/state")).unwrap(), b"1");
    assert_eq!(tree.perms(0, &format!("{path}/state")).unwrap(), perms);
}

#[test]
fn a_domain_that_dies_leaves_nothing_of_its_own() {
    let mut tree = Tree::default();
    for domain in [0, 1, 2] {
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

    // Its directory as a backend, and what a peer let it read.
    let dir = "/local/domain/1/backend/vif/2/0";
    let peers = "/local/domain/2/data/x";
    let _ = tree.write(0, None, &format!("{dir}/state"), b"4").unwrap();
    let _ = tree.set_perms(0, None, dir, Perms::of(1).with(2, Access::READ)).unwrap();
    let _ = tree.write(2, None, peers, b"").unwrap();
    let _ = tree.set_perms(2, None, peers, Perms::of(2).with(1, Access::READ)).unwrap();
    let seen = tree.watch(2, &format!("{dir}/state")).unwrap();

    let effects = tree.release(1);
    let event = |watch: &Watch, path: &str| Event { watch: watch.0, path: path.into() };
    let (release, state) = (event(&told, "@releaseDomain"), event(&seen, &format!("{dir}/state")));
    assert!(told.0 < seen.0);
    assert_eq!(effects.events, [release.clone(), state]);
    assert!(effects.changes.iter().all(|change| change.value.is_none()), "{effects:?}");
    let lost = event(&theirs, "/local/domain/1/data");
    assert_eq!(tree.fire(&release), Some(0));
    assert!(tree.fired(0, &told));
    assert_eq!(tree.fire(&lost), None);
    assert_eq!((tree.watches_of(1), tree.transactions_of(1), tree.owned(1)), (0, 0, 0));
    assert_eq!(tree.commit(1, begun), Err(StoreError::NotFound));
    assert_eq!(tree.read(0, None, "/local/domain/1/data"), Err(StoreError::NotFound));
    assert_eq!(tree.read(0, None, dir), Err(StoreError::NotFound));
    assert_eq!(tree.list(0, None, "/local/domain/1/backend/vif/2"), Ok(Vec::new()));

    // A new one with its number has a home of its own, and nothing that the old one was permitted.
    assert_ne!(tree.introduce(1), Effects::default());
    assert_eq!(tree.introduce(1), Effects::default());
    assert_eq!(tree.read(1, None, "data").unwrap(), b"");
    assert_eq!(tree.read(0, None, "/local/domain/1/backend"), Err(StoreError::NotFound));
    assert_eq!(tree.read(1, None, peers), Err(StoreError::Denied));
}
