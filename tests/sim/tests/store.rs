//! Xenstore, and the toolstack's part in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::time::Duration;

use xen_grant::DomId;
use xen_netfront::store::{Store, StoreError, Transaction};
use xen_sim::{
    Access, Chaos, Ctx, Host, Limits, MAX_NODES, MAX_TRANSACTIONS, MAX_VALUE, MAX_WATCHES, Next,
    Outcome, Perms, Quota, Scheduler, StoreClient, Vif,
};

const F: DomId = DomId(5);
const B: DomId = DomId(2);

fn host() -> (Host, StoreClient, StoreClient, StoreClient) {
    let host = Host::new(0);
    host.add_domain(F, 1);
    host.add_domain(B, 1);
    let clients = [DomId(0), F, B].map(|id| host.store_as(id));
    let [zero, front, back] = clients;
    (host, zero, front, back)
}

#[test]
fn values_are_written_read_listed_removed() {
    let (_, zero, front, _) = host();
    front.write(None, "data/a/b/c", b"\0\xff value").unwrap();
    assert_eq!(zero.read(None, "/local/domain/5/data/a/b/c").unwrap(), b"\0\xff value");
    assert_eq!(front.read(None, "data/a/b").unwrap(), b"");
    front.write(None, "data/a/b-c", b"").unwrap();
    front.write(None, "data/a/b0", b"").unwrap();
    let mut names = front.list(None, "data/a").unwrap();
    names.sort();
    assert_eq!(names, ["b", "b-c", "b0"]);
    assert_eq!(front.list(None, "data/a/b/c").unwrap(), Vec::<String>::new());
    front.remove(None, "data/a/b").unwrap();
    assert_eq!(front.read(None, "data/a/b/c"), Err(StoreError::NotFound));
    assert_eq!(front.read(None, "data/a/b-c").unwrap(), b"");
    assert_eq!(front.remove(None, "data/a/b"), Ok(()), "gone already, as wanted");
    assert_eq!(front.remove(None, "data/none/b"), Err(StoreError::NotFound));
    assert_eq!(front.list(None, "x"), Err(StoreError::NotFound));
    assert_eq!(front.read(None, "a//b"), Err(StoreError::Other(22)));
    assert_eq!(zero.remove(None, "/"), Err(StoreError::Other(22)));
    let domains = zero.list(None, "/local/domain").unwrap();
    assert_eq!(domains, ["2", "5"]);
}

#[test]
fn permissions_hold() {
    let (_, zero, front, back) = host();
    front.write(None, "data/mine", b"1").unwrap();
    let mine = "/local/domain/5/data/mine";
    assert_eq!(back.read(None, mine), Err(StoreError::Denied));
    assert_eq!(back.read(None, "/local/domain/5/none"), Err(StoreError::Denied));
    assert_eq!(back.write(None, mine, b"2"), Err(StoreError::Denied));
    assert_eq!(back.write(None, "/elsewhere", b"2"), Err(StoreError::Denied));
    assert_eq!(back.remove(None, mine), Err(StoreError::Denied));
    assert_eq!(back.set_perms(mine, Perms::of(B.0)), Err(StoreError::Denied));
    front.set_perms(mine, Perms::of(F.0).with(B.0, Access::READ)).unwrap();
    assert_eq!(back.read(None, mine).unwrap(), b"1");
    assert_eq!(back.write(None, mine, b"2"), Err(StoreError::Denied));
    zero.set_perms(mine, Perms::of(F.0).with(B.0, Access::BOTH)).unwrap();
    back.write(None, mine, b"2").unwrap();
    back.write(None, &format!("{mine}/child"), b"3").unwrap();
    assert_eq!(zero.perms(&format!("{mine}/child")).unwrap().owner, B.0, "the maker owns it");
    assert!(zero.perms(&format!("{mine}/child")).unwrap().grants.len() == 1, "children inherit");
}

#[test]
fn watches_fire_for_children_once_and_only_for_readers() {
    let (_, zero, front, back) = host();
    let watch = front.watch("data/device").unwrap();
    assert!(front.fired(&watch), "once at the start");
    assert!(!front.fired(&watch));
    front.write(None, "data/device/vif/0/state", b"1").unwrap();
    zero.write(None, "/local/domain/5/data/device/vif/0/state", b"2").unwrap();
    assert!(front.fired(&watch));
    assert!(!front.fired(&watch), "two changes are one bit");
    front.write(None, "data/device2", b"").unwrap();
    assert!(!front.fired(&watch), "not below");
    let leaf = front.watch("data/device/vif/0/state").unwrap();
    front.fired(&leaf);
    front.remove(None, "data/device/vif").unwrap();
    assert!(front.fired(&leaf), "it went with its directory");
    assert!(front.fired(&watch));

    let spy = back.watch("/local/domain/5/data/device").unwrap();
    assert!(back.fired(&spy));
    front.write(None, "data/device/x", b"").unwrap();
    assert!(!back.fired(&spy), "what it cannot read it is not told of");
    assert!(!front.fired(&spy), "nor does it tell others");
    back.unwatch(spy);
    front.unwatch(watch);
    assert_eq!((front.watches(), back.watches()), (1, 0));
}

#[test]
fn a_watch_wakes_its_domain() {
    let (host, zero, _, _) = host();
    let domain = host.domain(F).unwrap();
    let watch = domain.watch("x").unwrap();
    assert!(domain.take_store_event() && domain.fired(&watch));
    zero.set("/local/domain/5/x", "1");
    assert!(domain.upcall_pending());
    assert!(domain.take_store_event() && !domain.take_store_event());
    host.set_chaos(Chaos {
        delay: Duration::from_millis(1)..Duration::from_millis(2),
        ..Chaos::default()
    });
    domain.fired(&watch);
    zero.set("/local/domain/5/x", "2");
    assert!(!domain.fired(&watch), "late");
    host.advance(Duration::from_millis(2));
    assert!(domain.fired(&watch));
}

#[test]
fn a_transaction_is_private_and_all_or_nothing() {
    let (host, zero, front, _) = host();
    front.set("data/dir/old", "1");
    let watch = front.watch("data/dir").unwrap();
    front.fired(&watch);
    host.trace_store(true);
    let begun = front.begin().unwrap();
    let t = Some(begun);
    front.write(t, "data/dir/new", b"2").unwrap();
    front.remove(t, "data/dir/old").unwrap();
    assert_eq!(front.list(t, "data/dir").unwrap(), ["new"]);
    assert_eq!(front.read(t, "data/dir/old"), Err(StoreError::NotFound));
    assert_eq!(front.list(None, "data/dir").unwrap(), ["old"], "not outside");
    assert!(!front.fired(&watch) && host.store_trace().is_empty());
    assert_eq!(zero.read(t, "/local"), Err(StoreError::NotFound), "not their transaction");
    front.commit(begun).unwrap();
    assert_eq!(front.list(None, "data/dir").unwrap(), ["new"]);
    assert!(front.fired(&watch));
    let trace = host.store_trace();
    assert_eq!(trace.len(), 2);
    assert_eq!(trace[0].value.as_deref(), Some(&b"2"[..]));
    assert_eq!((trace[1].path.as_str(), &trace[1].value), ("/local/domain/5/data/dir/old", &None));
    assert_eq!(front.commit(begun), Err(StoreError::NotFound));
    let t = front.begin().unwrap();
    front.write(Some(t), "data/dir/new", b"3").unwrap();
    front.abort(t);
    assert_eq!(front.get("data/dir/new").unwrap(), "2");
    assert!(host.dump_store().contains("/local/domain/5/data/dir/new = \"2\"\n"));
}

#[test]
fn transactions_that_meet_are_retried() {
    let (host, zero, front, _) = host();
    front.set("data/n", "1");
    let add = |t: Transaction| {
        let n: u32 =
            String::from_utf8(front.read(Some(t), "data/n").unwrap()).unwrap().parse().unwrap();
        front.write(Some(t), "data/n", (n + 1).to_string().as_bytes()).unwrap();
    };
    let (first, second) = (front.begin().unwrap(), front.begin().unwrap());
    add(first);
    add(second);
    assert_eq!(front.commit(first), Ok(()));
    assert_eq!(front.commit(second), Err(StoreError::Again));
    assert_eq!(front.get("data/n").unwrap(), "2");
    // A child that appears in a directory that was listed.
    let t = front.begin().unwrap();
    front.list(Some(t), "").unwrap_err();
    front.list(Some(t), "data/n").unwrap();
    zero.set("/local/domain/5/data/n/child", "");
    assert_eq!(front.commit(t), Err(StoreError::Again));
    // Something unrelated.
    let t = front.begin().unwrap();
    front.read(Some(t), "data/n").unwrap();
    zero.set("/local/domain/5/attr/m", "");
    assert_eq!(front.commit(t), Ok(()));
    // By chance.
    host.set_chaos(Chaos { conflicts: 1.0, ..Chaos::default() });
    let t = front.begin().unwrap();
    assert_eq!(front.commit(t), Err(StoreError::Again));
    assert_eq!(front.transactions(), 0);
}

#[test]
fn quotas_hold() {
    let (host, _, front, _) = host();
    let had = front.owned_nodes();
    assert_eq!(front.write(None, "data/v", &[0; MAX_VALUE + 1]), Err(StoreError::Quota));
    front.write(None, "data/v", &[0; MAX_VALUE]).unwrap();
    // A hundred in each directory, whose entry is bounded too.
    let node = |made: usize| format!("data/n/{}/{made}", made / 100);
    let fill = || {
        while front.write(None, &node(front.owned_nodes()), b"").is_ok() {}
        front.owned_nodes()
    };
    assert_eq!(fill(), MAX_NODES);
    front.write(None, "data/v", b"still").unwrap();
    host.set_store_quota(Quota { nodes: 2500, ..Quota::default() });
    assert_eq!(fill(), 2500);
    host.set_store_quota(Quota::default());
    front.remove(None, "data/n").unwrap();
    assert_eq!(front.owned_nodes(), had + 1, "v is left");
    let t = front.begin().unwrap();
    let node = |i: usize| format!("data/n{}/{i}", i / 100);
    let written = (0..2000).take_while(|&i| front.write(Some(t), &node(i), b"").is_ok()).count();
    let made = written + written.div_ceil(100);
    assert!((MAX_NODES - had - 2..MAX_NODES - had).contains(&made), "{made} inside a transaction");
    front.abort(t);
    for _ in 0..MAX_WATCHES {
        front.watch("data/v").unwrap();
    }
    assert_eq!(front.watch("data/v"), Err(StoreError::Quota));
    for _ in 0..MAX_TRANSACTIONS {
        front.begin().unwrap();
    }
    assert_eq!(front.begin(), Err(StoreError::Quota));
}

/// Of the backend's quota libxl takes twelve nodes for each vif, all but one in its directory.
#[test]
fn n2_what_a_vif_costs_is_known() {
    let (host, zero, front, back) = host();
    let (f, b) = (front.owned_nodes(), back.owned_nodes());
    host.toolstack().add_vif(&Vif::new(F, B, 0));
    assert_eq!((front.owned_nodes() - f, back.owned_nodes() - b), (7, 12));
    let owner = |path: &str| zero.perms(path).unwrap().owner;
    for theirs in ["backend", "backend/vif", "backend/vif/5"] {
        assert_eq!(owner(&format!("/local/domain/2/{theirs}")), 0, "{theirs}");
        assert!(back.list(None, theirs).is_ok() && front.list(None, theirs).is_err());
        assert_eq!(back.remove(None, theirs), Err(StoreError::Denied));
    }
    assert_eq!(owner("/local/domain/2/backend/vif/5/0/state"), B.0);
    assert_eq!(owner("/local/domain/5/device/vif/0/state"), F.0);
    // The MTU in the client's directory is the backend's to say.
    let mtu = "/local/domain/5/device/vif/0/mtu";
    back.write(None, mtu, b"9000").unwrap();
    assert_eq!(front.get(mtu).unwrap(), "9000");
    assert_eq!(front.write(None, mtu, b"1"), Err(StoreError::Denied));
    assert_eq!(back.write(None, &mtu.replace("mtu", "mac"), b""), Err(StoreError::Denied));
    assert_eq!(front.write(None, "device/vif/1/state", b"1"), Err(StoreError::Denied));
    host.toolstack().remove_vif(&Vif::new(F, B, 0));
    assert_eq!((front.owned_nodes(), back.owned_nodes()), (f, b));
    assert_eq!(back.list(None, "backend"), Err(StoreError::NotFound));
}

#[test]
fn a_vif_is_made_as_libxl_does() {
    let (host, zero, front, back) = host();
    host.set_chaos(Chaos { conflicts: 0.5, ..Chaos::default() });
    let vif =
        Vif::new(F, B, 0).front_key("trusted", "0").back_key("rate", "1000,50").hotplug(false);
    let toolstack = host.toolstack();
    toolstack.add_vif(&vif);
    assert_eq!(front.get("device/vif/0/backend").unwrap(), "/local/domain/2/backend/vif/5/0");
    assert_eq!(back.get("backend/vif/5/0/frontend").unwrap(), "/local/domain/5/device/vif/0");
    assert_eq!(front.get("device/vif/0/mac").unwrap(), "00:16:3e:00:05:00");
    assert_eq!(front.get("device/vif/0/trusted").unwrap(), "0");
    assert_eq!(toolstack.states(&vif), (Some(1), Some(1)));
    assert_eq!(back.get("backend/vif/5/0/hotplug-status").unwrap(), "");
    toolstack.hotplug(&vif);
    assert_eq!(back.get("backend/vif/5/0/hotplug-status").unwrap(), "connected");
    // Each reads the other's directory, also what is written later, and writes its own.
    front.set("device/vif/0/queue-0/tx-ring-ref", "8");
    assert_eq!(back.get("/local/domain/5/device/vif/0/queue-0/tx-ring-ref").unwrap(), "8");
    let denied = back.write(None, "/local/domain/5/device/vif/0/state", b"4");
    assert_eq!(denied, Err(StoreError::Denied));
    back.set("backend/vif/5/0/state", "2");
    assert_eq!(front.get("/local/domain/2/backend/vif/5/0/state").unwrap(), "2");
    assert_eq!(zero.get("/local/domain/5/device/vif/0/mtu").unwrap(), "1500");
}

#[test]
fn detaching_waits_for_the_backend() {
    for answers in [true, false] {
        let (host, _, _, back) = host();
        let vif = Vif::new(F, B, 1);
        host.toolstack().add_vif(&vif);
        let domain = host.domain(B).unwrap();
        let watch = domain.watch("backend").unwrap();
        let mut detach = host.toolstack().detach_vif(vif.clone());
        let mut scheduler = Scheduler::new(&host);
        scheduler.add("toolstack", &host.add_domain(DomId(0), 1), |ctx: &mut Ctx| {
            xen_sim::Task::run(&mut detach, ctx)
        });
        scheduler.add_background("backend", &domain, |_: &mut Ctx| {
            let asked =
                domain.fired(&watch) && back.get("backend/vif/5/1/state").as_deref() == Some("5");
            if asked && answers {
                assert_eq!(back.get("backend/vif/5/1/online").unwrap(), "0");
                back.set("backend/vif/5/1/state", "6");
                back.remove(None, "backend/vif/5/1").unwrap();
            }
            Next::Wait
        });
        assert_eq!(scheduler.run(Limits::default()), Outcome::Done);
        drop(scheduler);
        assert_eq!(detach.forced, !answers);
        assert_eq!(host.now().0 >= 10_000_000_000, !answers);
        assert_eq!(host.toolstack().states(&vif), (None, None));
        assert_eq!(back.list(None, "backend"), Err(StoreError::NotFound));
    }
}
