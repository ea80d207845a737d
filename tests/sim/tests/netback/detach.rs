//! A vif is taken away.

use super::*;
use xen_netfront::store::{Store, StoreError};

/// What is left of a vif in xenstore, the client's directory among the backend's apart.
fn left(bench: &Bench) -> Vec<String> {
    let dump = bench.host.dump_store();
    let nodes = dump.lines().filter(|line| line.starts_with(&bench.vif.back_dir()));
    nodes.map(str::to_owned).collect()
}

/// The directory is the domain's, and the one above it is domain 0's.
#[test]
fn n1_a_detach_is_answered_within_a_second_where_only_the_directory_is_ours() {
    let requests = |connected: bool, answers: bool| {
        let mut bench = Bench::new(Config::default(), 64);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        match connected {
            true => client.connect(&mut bench.netback, &Features::default()),
            false => bench.netback.service(),
        }
        let (began, before) = (bench.host.now(), bench.back.counts());
        bench.toolstack.begin_detach(&bench.vif);
        while !bench.netback.is_gone() && bench.host.now() < began + Duration::from_secs(1) {
            bench.netback.service();
            if answers && bench.toolstack.states(&bench.vif).1 == Some(6) {
                client.set_state(6);
            }
            bench.host.advance(Duration::from_millis(1));
        }
        assert!(bench.netback.is_gone(), "{:?}", bench.toolstack.states(&bench.vif));
        assert_eq!(left(&bench), [""; 0]);
        assert!(bench.toolstack.detached(&bench.vif));
        assert_eq!((bench.back.store().watches(), bench.back.store().transactions()), (0, 0));
        assert_eq!(bench.back.mappings(), 0);
        // The empty directory above is not ours, and the toolstack's to remove.
        let above = bench.vif.back_dir().trim_end_matches("/0").to_owned();
        let store = bench.toolstack.store();
        assert_eq!(store.list(None, &above).unwrap(), [""; 0]);
        bench.toolstack.remove_vif(&bench.vif);
        assert_eq!(store.list(None, &above), Err(StoreError::NotFound));
        assert_eq!(bench.host.violations(), []);
        (bench.back.counts() - before).store_calls
    };
    for (connected, answers) in [(false, false), (true, false), (true, true)] {
        let requests = requests(connected, answers);
        assert!(requests <= 40, "{requests} requests to xenstore, connected {connected}");
    }
}

/// Where the directory above is ours too, none stays behind empty, and a brother stays.
#[test]
fn n1_an_empty_directory_of_ours_goes_too() {
    for brother in [false, true] {
        let mut bench = Bench::new(Config::default(), 64);
        let other = Vif::new(CLIENT, BACK, 1);
        if brother {
            bench.toolstack.add_vif(&other);
        }
        let above = bench.vif.back_dir().trim_end_matches("/0").to_owned();
        let store = bench.toolstack.store().clone();
        store.set_perms(&above, Perms::of(BACK.0).with(CLIENT.0, Access::READ)).unwrap();
        bench.netback.service();
        bench.toolstack.begin_detach(&bench.vif);
        bench.netback.service();
        assert!(bench.netback.is_gone());
        assert_eq!(left(&bench), [""; 0]);
        let listed = store.list(None, &above);
        match brother {
            true => assert_eq!(listed.unwrap(), ["1"]),
            false => assert_eq!(listed, Err(StoreError::NotFound)),
        }
    }
}

/// A task of the toolstack that waits as libxl does, ten seconds for each vif that is not removed.
#[test]
fn n1_twenty_detaches_cost_the_toolstack_no_patience() {
    let host = Host::new(1);
    let owned = |host: &Host| host.domain(BACK).map(|back| back.store().owned_nodes());
    let mut at_rest = None;
    for round in 0..20 {
        let mut bench = Bench::on(&host, CLIENT, Config::default(), 64);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        client.connect(&mut bench.netback, &Features::default());
        let began = host.now();
        let mut detach = bench.toolstack.detach_vif(bench.vif.clone());
        while !detach.poll(host.now()) {
            bench.netback.service();
            host.advance(Duration::from_millis(1));
        }
        assert!(!detach.forced, "round {round}");
        assert!(host.now().since(began) < Duration::from_secs(1));
        assert!(bench.netback.is_gone());
        let nodes = owned(&host);
        assert_eq!(*at_rest.get_or_insert(nodes), nodes, "round {round}");
    }
}

/// A backend domain that moves to another machine has nothing mapped there, no channel, no transaction;
/// its watches have fired.
#[test]
fn n8_a_backend_domain_that_moves_has_lost_what_it_held() {
    let (mut bench, _client) = Bench::with_client(Config::default(), 64);
    assert_eq!((bench.back.mappings(), bench.back.open_ports().len()), (2, 1));
    let begun = bench.back.begin().unwrap();
    let watches = bench.back.store().watches();
    let watch = bench.back.watch("backend").unwrap();
    while bench.back.fired(&watch) {}
    bench.back.take_store_event();
    bench.back.migrate();
    assert_eq!((bench.back.mappings(), bench.back.open_ports().len()), (0, 0));
    assert_eq!(bench.back.commit(begun), Err(StoreError::NotFound));
    assert!(bench.back.take_store_event() && bench.back.fired(&watch));
    assert_eq!(bench.back.store().watches(), watches + 1);
    let client = bench.host.domain(CLIENT).unwrap();
    assert!(client.grants().iter().all(|(gref, _)| !client.grant_in_use(*gref)));
    // Its vifs are as the toolstack has left them.
    assert_eq!(bench.toolstack.states(&bench.vif).1, Some(4));
    bench.netback.service();
}
