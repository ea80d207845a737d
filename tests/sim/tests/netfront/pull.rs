//! For those who pull rather than being pushed to, and for tasks that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::*;

#[test]
fn packets_are_pulled_in_their_order_and_bad_ones_are_passed_over() {
    let mut bench = Bench::new();
    assert!(!bench.front.has_packet() && bench.front.next_packet().is_none());
    let packets = [pattern(1, 60), pattern(2, 5000), pattern(3, 1514)];
    for (at, packet) in packets.iter().enumerate() {
        let parts: Vec<&[u8]> = packet.chunks(4096).collect();
        bench.deliver(&parts);
        // Two that are dropped.
        for _ in 0..2 * at {
            bench.deliver(&[&[7; 13]]);
        }
    }
    for packet in &packets {
        let before = bench.front.counters().rx_slots;
        assert!(bench.front.has_packet());
        assert_eq!(bench.front.counters().rx_slots, before, "it was a look, no more");
        let next = bench.front.next_packet().unwrap();
        assert_eq!(raw_backend::bytes(&next), *packet);
    }
    // What is left are those that are dropped.
    assert!(bench.front.has_packet());
    assert!(bench.front.next_packet().is_none() && !bench.front.has_packet());
    assert_eq!(bench.front.counters().rx_drops.runt, 6);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn room_is_what_can_be_reserved() {
    let mut bench = Bench::new();
    while bench.front.room() > 0 {
        let room = bench.front.room();
        assert!(bench.front.reserve(room).is_some() && bench.front.reserve(room + 1).is_none());
        assert!(bench.send(&[&pattern(5, 60)]));
    }
    assert!(bench.front.reserve(1).is_none());
    bench.front.disconnect();
    bench.front.service();
    assert_eq!(bench.front.room(), 0);
}

struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The platform hears of each port, with each connection anew.
#[test]
fn a_task_that_waits_is_woken_by_a_packet_on_every_connection() {
    let count = Arc::new(Count(AtomicU32::new(0)));
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);
    for split in [false, true] {
        let config = Config::default().with_split_event_channels(split);
        let split = [("feature-split-event-channels", "1")];
        let mut bench = Bench::with(config, &[], &split);
        for connection in 0..3 {
            let woken = count.0.load(Ordering::Relaxed);
            assert_eq!(bench.front.poll_ready(&mut context), Poll::Pending);
            assert_eq!(count.0.load(Ordering::Relaxed), woken, "connection {connection}");
            bench.deliver(&[&pattern(1, 60)]);
            // The backend's event: of this connection's channel.
            let port = bench.front.ports().last().unwrap();
            bench.domain.raise(port);
            assert_eq!(count.0.load(Ordering::Relaxed), woken + 1, "connection {connection}");
            assert_eq!(bench.front.poll_ready(&mut context), Poll::Ready(()));
            assert!(bench.front.next_packet().is_some());
            bench.queues.clear();
            bench.front.resumed();
            bench.connect();
        }
        bench.assert_sound();
    }
}

/// A future that is dropped loses nothing: the next one finds what came meanwhile.
#[test]
fn waiting_can_be_given_up() {
    let mut bench = Bench::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut poll = |front: &mut Front| std::pin::pin!(front.ready()).poll(&mut context);
    assert!(poll(&mut bench.front).is_pending());
    bench.deliver(&[&pattern(1, 60)]);
    assert!(poll(&mut bench.front).is_ready() && poll(&mut bench.front).is_ready());
    assert!(bench.front.next_packet().is_some());
    assert!(poll(&mut bench.front).is_pending());
}

/// Who found no room and waits for some is not left asleep: what was answered meanwhile is room.
#[test]
fn n4_room_that_came_before_the_wait_ends_it() {
    for answered in [256, 200, 128, 1] {
        let mut bench = Bench::new();
        let mut context = Context::from_waker(Waker::noop());
        while bench.send(&[&pattern(5, 60)]) {}
        let requests = bench.tx_requests();
        assert_eq!((requests.len(), bench.front.room()), (256, 0));
        for request in &requests[..answered] {
            bench.answer_tx(request.id, 0);
        }
        let ready = bench.front.poll_ready(&mut context);
        assert_eq!(bench.front.room(), answered);
        assert_eq!(
            ready,
            Poll::Ready(()),
            "{answered} answered, next: {:?}",
            bench.front.next_deadline()
        );
    }
}
