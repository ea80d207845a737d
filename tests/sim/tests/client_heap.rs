//! What a client takes of the heap, and what happens when there is none: counted, and refused, by an
//! allocator of the test's own.
#![allow(missing_docs, dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// An allocator is `unsafe`: this one asks the system's for the same.
#![allow(unsafe_code)]

mod raw_client;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use raw_client::{Bench, Client, Features, pattern};
use xen_netfront::netback::{Config, DeliverErrorKind};

thread_local! {
    /// Bytes allocated and not freed, and how often something was allocated.
    static BYTES: Cell<isize> = const { Cell::new(0) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Larger blocks than this are not to be had.
    static LARGEST: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Counting;

fn count(bytes: isize) {
    // A thread that is ending has no counters any more.
    let _ = BYTES.try_with(|all| all.set(all.get() + bytes));
    let _ = COUNT.try_with(|all| all.set(all.get() + usize::from(bytes > 0)));
}

fn is_refused(size: usize) -> bool {
    LARGEST.try_with(Cell::get).is_ok_and(|largest| size > largest)
}

// SAFETY: the system's allocator, which is asked for the same, or nothing at all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused(layout.size()) {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn bytes() -> isize {
    BYTES.get()
}

/// A client of so many queues that has been connected before: what serves all connections is there.
fn bench(queues: u32) -> (Bench, Vec<Client>) {
    let mut bench = Bench::new(Config::default().with_max_queues(queues), 1000);
    let mut clients: Vec<Client> =
        (0..queues).map(|_| Client::new(&bench.host, &bench.vif, 0)).collect();
    for _ in 0..2 {
        connect(&mut bench, &mut clients);
        disconnect(&mut bench, &clients);
    }
    (bench, clients)
}

fn connect(bench: &mut Bench, clients: &mut [Client]) {
    clients.iter_mut().for_each(Client::reset_rings);
    bench.netback.service();
    Client::publish_all(clients, &Features::default());
    // Some requests to xenstore at a time.
    for _ in 0..50 {
        bench.netback.service();
        bench.host.advance(Duration::from_millis(100));
    }
    assert!(bench.netback.is_connected());
}

fn disconnect(bench: &mut Bench, clients: &[Client]) {
    for state in [6, 1] {
        clients[0].set_state(state);
        for _ in 0..5 {
            bench.netback.service();
            bench.host.advance(Duration::from_secs(1));
        }
    }
    assert!(!bench.netback.is_connected());
}

/// Packets of one piece, and of eighteen, as many as may wait.
fn fill(bench: &mut Bench) {
    let cuts: Vec<usize> = (1..18).map(|n| n * 4).collect();
    let flow = |port: u8| {
        let mut bytes = pattern(1, 72);
        bytes[36] = port;
        bytes
    };
    for n in 0..3000_u32 {
        let bytes = flow(n as u8);
        let packet = if n < 200 { bench.packet(&bytes, &cuts) } else { bench.packet(&bytes, &[]) };
        drop(bench.netback.deliver(packet));
    }
}

#[test]
fn b11_a_clients_heap_is_little_and_bounded() {
    for (queues, idle, full) in [(1, 4 << 10, 40 << 10), (8, 28 << 10, 72 << 10)] {
        let (mut bench, mut clients) = bench(queues);
        let none = bytes();
        connect(&mut bench, &mut clients);
        let connected = bytes() - none;
        fill(&mut bench);
        let filled = bytes() - none;
        println!("{queues} queues: {connected} bytes connected, {filled} with all that may wait");
        assert!(connected <= idle && filled <= full, "{queues}: {connected}, {filled}");
        disconnect(&mut bench, &clients);
        assert!(bytes() - none <= 1024, "{} bytes are left", bytes() - none);
    }
}

#[test]
fn r11_a_queue_that_has_grown_allocates_nothing_more() {
    let (mut bench, mut clients) = bench(1);
    connect(&mut bench, &mut clients);
    let client = &mut clients[0];
    let packets: Vec<_> = (0..64).map(|n| bench.plain(&pattern(n, 60))).collect();
    let mut round = |client: &mut Client, packets: Vec<_>| {
        client.post(64);
        client.chain(&[(0, 0, 60)], 0, &[]);
        client.show();
        let before = COUNT.get();
        for packet in packets {
            bench.netback.deliver(packet).unwrap();
        }
        bench.netback.poll(64, drop);
        bench.netback.flush();
        let allocated = COUNT.get() - before;
        assert_eq!((client.receive().len(), client.answers().len()), (64, 1));
        allocated
    };
    assert!(round(client, packets.clone()) <= 4, "it grows by doubling");
    for _ in 0..100 {
        assert_eq!(round(client, packets.clone()), 0);
    }
}

#[test]
fn n6_without_memory_a_client_is_refused_and_connected_when_there_is_some() {
    let mut bench = Bench::new(Config::default(), 100);
    let mut client = Client::new(&bench.host, &bench.vif, 0);
    bench.netback.service();
    LARGEST.set(1500);
    client.publish(&Features::default());
    for _ in 0..20 {
        bench.netback.service();
        bench.host.advance(Duration::from_secs(1));
        assert!(!bench.netback.is_connected());
    }
    assert_eq!(bench.back.mappings(), 0);
    LARGEST.set(usize::MAX);
    for _ in 0..20 {
        bench.netback.service();
        bench.host.advance(Duration::from_secs(1));
    }
    assert!(bench.netback.is_connected());

    // A queue that can't grow refuses, and counts; what waits in it goes out.
    let packets: Vec<_> = (0..200).map(|n| bench.plain(&pattern(n % 50, 60))).take(90).collect();
    LARGEST.set(600);
    let mut waiting = 0;
    let mut refused = 0;
    for packet in packets {
        match bench.netback.deliver(packet).map_err(|error| error.why()) {
            Ok(()) => waiting += 1,
            Err(why) => {
                assert_eq!(why, Some(DeliverErrorKind::NoMemory));
                refused += 1;
            }
        }
    }
    LARGEST.set(usize::MAX);
    assert!(waiting > 0 && refused > 0, "{waiting} {refused}");
    assert_eq!(bench.netback.counters().to_drops.no_memory, refused);
    client.post(100);
    bench.netback.flush();
    assert_eq!(client.receive().len(), waiting);
    bench.netback.deliver(bench.plain(&[1; 60])).unwrap();
}
