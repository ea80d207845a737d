//! Xenstore, and the toolstack's part in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::time::Duration;

use xen_grant::DomId;
use xen_netfront::store::{Store, StoreError, Transaction};
use xen_sim::{
    Access, Chaos, Ctx, Host, Limits, MAX_NODES, MAX_TRANSACTIONS, MAX_VALUE, MAX_WATCHES, Next,
    Outcome, Perms, Scheduler, StoreClient, Vif,
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
    front.write(None, "a/b/c", b"\0\xff value").unwrap();
    assert_eq!(zero.read(None, "/local/domain/5/a/b/c").unwrap(), b"\0\xff value");
    assert_eq!(front.read(None, "a/b").unwrap(), b"");
    front.write(None, "a/b-c", b"").unwrap();
    front.write(None, "a/b0", b"").unwrap();
    let mut names = front.list(None, "a").unwrap();
    names.sort();
    assert_eq!(names, ["b", "b-c", "b0"]);
    assert_eq!(front.list(None, "a/b/c").unwrap(), Vec::<String>::new());
    front.remove(None, "a/b").unwrap();
    assert_eq!(front.read(None, "a/b/c"), Err(StoreError::NotFound));
    assert_eq!(front.read(None, "a/b-c").unwrap(), b"");
    assert_eq!(front.remove(None, "a/b"), Err(StoreError::NotFound));
    assert_eq!(front.list(None, "x"), Err(StoreError::NotFound));
    assert_eq!(front.read(None, "a//b"), Err(StoreError::Other(22)));
    assert_eq!(zero.remove(None, "/"), Err(StoreError::Other(22)));
    let domains = zero.list(None, "/local/domain").unwrap();
    assert_eq!(domains, ["2", "5"]);
}

#[test]
fn permissions_hold() {
    let (_, zero, front, back) = host();
    front.write(None, "mine", b"1").unwrap();
    let mine = "/local/domain/5/mine";
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
    let watch = front.watch("device").unwrap();
    assert!(front.fired(&watch), "once at the start");
    assert!(!front.fired(&watch));
    front.write(None, "device/vif/0/state", b"1").unwrap();
    zero.write(None, "/local/domain/5/device/vif/0/state", b"2").unwrap();
    assert!(front.fired(&watch));
    assert!(!front.fired(&watch), "two changes are one bit");
    front.write(None, "device2", b"").unwrap();
    assert!(!front.fired(&watch), "not below");
    let leaf = front.watch("device/vif/0/state").unwrap();
    front.fired(&leaf);
    front.remove(None, "device/vif").unwrap();
    assert!(front.fired(&leaf), "it went with its directory");
    assert!(front.fired(&watch));

    let spy = back.watch("/local/domain/5/device").unwrap();
    assert!(back.fired(&spy));
    front.write(None, "device/x", b"").unwrap();
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
    front.set("dir/old", "1");
    let watch = front.watch("dir").unwrap();
    front.fired(&watch);
    host.trace_store(true);
    let begun = front.begin().unwrap();
    let t = Some(begun);
    front.write(t, "dir/new", b"2").unwrap();
    front.remove(t, "dir/old").unwrap();
    assert_eq!(front.list(t, "dir").unwrap(), ["new"]);
    assert_eq!(front.read(t, "dir/old"), Err(StoreError::NotFound));
    assert_eq!(front.list(None, "dir").unwrap(), ["old"], "not outside");
    assert!(!front.fired(&watch) && host.store_trace().is_empty());
    assert_eq!(zero.read(t, "/local"), Err(StoreError::NotFound), "not their transaction");
    front.commit(begun).unwrap();
    assert_eq!(front.list(None, "dir").unwrap(), ["new"]);
    assert!(front.fired(&watch));
    let trace = host.store_trace();
    assert_eq!(trace.len(), 2);
    assert_eq!(trace[0].value.as_deref(), Some(&b"2"[..]));
    assert_eq!((trace[1].path.as_str(), &trace[1].value), ("/local/domain/5/dir/old", &None));
    assert_eq!(front.commit(begun), Err(StoreError::NotFound));
    let t = front.begin().unwrap();
    front.write(Some(t), "dir/new", b"3").unwrap();
    front.abort(t);
    assert_eq!(front.get("dir/new").unwrap(), "2");
    assert!(host.dump_store().contains("/local/domain/5/dir/new = \"2\"\n"));
}

#[test]
fn transactions_that_meet_are_retried() {
    let (host, zero, front, _) = host();
    front.set("n", "1");
    let add = |t: Transaction| {
        let n: u32 = String::from_utf8(front.read(Some(t), "n").unwrap()).unwrap().parse().unwrap();
        front.write(Some(t), "n", (n + 1).to_string().as_bytes()).unwrap();
    };
    let (first, second) = (front.begin().unwrap(), front.begin().unwrap());
    add(first);
    add(second);
    assert_eq!(front.commit(first), Ok(()));
    assert_eq!(front.commit(second), Err(StoreError::Again));
    assert_eq!(front.get("n").unwrap(), "2");
    // A child that appears in a directory that was listed.
    let t = front.begin().unwrap();
    front.list(Some(t), "").unwrap_err();
    front.list(Some(t), "n").unwrap();
    zero.set("/local/domain/5/n/child", "");
    assert_eq!(front.commit(t), Err(StoreError::Again));
    // Something unrelated.
    let t = front.begin().unwrap();
    front.read(Some(t), "n").unwrap();
    zero.set("/local/domain/5/m", "");
    assert_eq!(front.commit(t), Ok(()));
    // By chance.
    host.set_chaos(Chaos { conflicts: 1.0, ..Chaos::default() });
    let t = front.begin().unwrap();
    assert_eq!(front.commit(t), Err(StoreError::Again));
    assert_eq!(front.transactions(), 0);
}

#[test]
fn quotas_hold() {
    let (_, _, front, _) = host();
    assert_eq!(front.write(None, "v", &[0; MAX_VALUE + 1]), Err(StoreError::Quota));
    front.write(None, "v", &[0; MAX_VALUE]).unwrap();
    let mut made = front.owned_nodes();
    while front.write(None, &format!("n/{made}"), b"").is_ok() {
        made = front.owned_nodes();
    }
    assert_eq!(made, MAX_NODES);
    front.write(None, "v", b"still").unwrap();
    front.remove(None, "n").unwrap();
    assert_eq!(front.owned_nodes(), 2, "home and v");
    let t = front.begin().unwrap();
    let written = (0..2000).take_while(|i| front.write(Some(t), &format!("n{i}"), b"").is_ok());
    assert_eq!(written.count(), MAX_NODES - 2, "inside a transaction too");
    front.abort(t);
    for _ in 0..MAX_WATCHES {
        front.watch("v").unwrap();
    }
    assert_eq!(front.watch("v"), Err(StoreError::Quota));
    for _ in 0..MAX_TRANSACTIONS {
        front.begin().unwrap();
    }
    assert_eq!(front.begin(), Err(StoreError::Quota));
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
    assert_eq!(back.get("backend/vif/5/0/hotplug-status"), None);
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
            }
            Next::Wait
        });
        assert_eq!(scheduler.run(Limits::default()), Outcome::Done);
        drop(scheduler);
        assert_eq!(detach.forced, !answers);
        assert_eq!(host.now().0 >= 10_000_000_000, !answers);
        assert_eq!(host.toolstack().states(&vif), (None, None));
        assert_eq!(back.list(None, "backend/vif/5").unwrap(), Vec::<String>::new());
    }
}
