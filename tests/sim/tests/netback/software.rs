//! What a client does not take, done in software: bounds, memory, what can't be done.

use packet_views::features::Features as Takes;

use super::offloads::{client_that_takes, offering};
use super::*;

#[test]
fn b7_segments_that_do_not_fit_the_queue_are_dropped_and_counted() {
    let takes = Takes::NONE.with_scatter_gather(true);
    for (packets, frames, fit) in [(10, 512, 10), (256, 19, 8), (1, 512, 1)] {
        let config = offering(Takes::ALL).with_queue_packets(packets).with_queue_frames(frames);
        let (mut bench, mut client) = client_that_takes(takes, config, 0);
        let data = pattern(1, 40 * 1000);
        let mut packet = bench.plain(&frames::blank(frames::frame(false, true, 9, &data)));
        packet.meta = Meta { checksum: Checksum::Blank, gso: Some(gso(1000)) };
        let refused = outcome(bench.netback.deliver(packet.clone()));
        assert_eq!(refused, Err(Some(DeliverErrorKind::QueueFull)));
        assert!(bench.netback.queued() >= fit - 1 && bench.netback.queued() <= fit);
        let queued = bench.netback.queued() as u64;
        let counters = *bench.netback.counters();
        assert_eq!((counters.cut, counters.segments), (1, 40));
        assert_eq!(counters.to_drops.queue_full, 40 - queued);
        // Full: nothing is cut for nobody.
        if packets < 256 {
            assert_eq!(outcome(bench.netback.deliver(packet)), Err(None));
            assert_eq!(bench.netback.counters().cut, 1);
        }
        // The first ones are there, in order.
        client.post(40);
        bench.netback.flush();
        let got: Vec<u8> = client
            .receive()
            .iter()
            .flat_map(|got| frames::open(&got.as_ref().unwrap().bytes).data)
            .collect();
        assert_eq!(got, data[..queued as usize * 1000]);
    }
}

#[test]
fn without_a_frame_for_headers_a_packet_is_dropped() {
    let (mut bench, mut client) = client_that_takes(Takes::NONE, offering(Takes::ALL), 0);
    let large = {
        let mut packet = bench.plain(&frames::blank(frames::frame(false, true, 9, &[7; 3000])));
        packet.meta = Meta { checksum: Checksum::Blank, gso: Some(gso(1000)) };
        packet
    };
    let blank = {
        let mut packet = bench.plain(&frames::blank(frames::frame(true, false, 9, &[7; 300])));
        packet.meta.checksum = Checksum::Blank;
        packet
    };
    let shared = blank.clone();
    let frames: Vec<_> = core::iter::from_fn(|| bench.pool.take()).collect();
    assert_eq!(outcome(bench.netback.deliver(blank)), Err(Some(DeliverErrorKind::NoFrame)));
    assert_eq!(outcome(bench.netback.deliver(large)), Err(Some(DeliverErrorKind::NoFrame)));
    assert_eq!(bench.netback.counters().to_drops.no_frame, 3 + 1);
    // Alone it needs none.
    bench.netback.deliver(shared).unwrap();
    client.post(1);
    bench.netback.flush();
    assert!(frames::open(&client.receive()[0].as_ref().unwrap().bytes).right);
    drop(frames);
    assert_eq!(bench.pool.free(), 600);
}

#[test]
fn what_cannot_be_cut_or_summed_is_refused() {
    let (mut bench, mut client) = client_that_takes(Takes::NONE, offering(Takes::ALL), 0);
    let syn = {
        let mut frame = frames::blank(frames::frame(false, true, 9, &[7; 3000]));
        frame[47] |= 2;
        frame
    };
    let large = Meta { checksum: Checksum::Blank, gso: Some(gso(1000)) };
    let tiny = Meta { gso: Some(gso(1)), ..large };
    let blank = Meta { gso: None, ..large };
    let tcp = frames::blank(frames::frame(false, true, 9, &[7; 3000]));
    let cases = [
        (syn, large, DeliverErrorKind::Offload),
        (tcp.clone(), tiny, DeliverErrorKind::Offload),
        (frames::frame(false, false, 9, &[7; 3000]), large, DeliverErrorKind::Offload),
        (pattern(1, 2000), large, DeliverErrorKind::Offload),
        (pattern(1, 2000), blank, DeliverErrorKind::Offload),
        (tcp[..40].to_vec(), blank, DeliverErrorKind::Offload),
        // One that can be cut, but not small enough for a page.
        (
            frames::blank(frames::frame(false, true, 9, &[7; 9000])),
            Meta { gso: Some(gso(4090)), ..large },
            DeliverErrorKind::BadLength,
        ),
    ];
    for (n, (frame, meta, why)) in cases.into_iter().enumerate() {
        let mut packet = bench.plain(&frame);
        packet.meta = meta;
        assert_eq!(outcome(bench.netback.deliver(packet)), Err(Some(why)), "case {n}");
        assert_eq!(bench.netback.queued(), 0);
    }
    let drops = bench.netback.counters().to_drops;
    // The last one made three segments.
    assert_eq!((drops.offload, drops.bad_length, drops.total()), (6, 3, 9));
    client.post(4);
    bench.netback.flush();
    assert!(client.receive().is_empty());
    assert_eq!(bench.pool.free(), 600);
}

/// What packets leave as segments does not pass through this driver's hands: headers do, data not.
#[test]
fn cut_packets_share_their_data() {
    let (mut bench, mut client) = client_that_takes(Takes::default(), offering(Takes::ALL), 0);
    let frame = frames::blank(frames::frame(false, true, 9, &pattern(1, 40_000)));
    let mut packet = bench.plain(&frame);
    packet.meta = Meta { checksum: Checksum::Blank, gso: Some(gso(1000)) };
    let held = 600 - bench.pool.free();
    bench.netback.deliver(packet).unwrap();
    // A frame for the headers of each, and not one more.
    assert_eq!(600 - bench.pool.free(), held + 40);
    client.post(40);
    let before = bench.back.counts();
    bench.netback.flush();
    let work = bench.back.counts() - before;
    assert_eq!((work.copy_calls, work.notifies), (1, 1));
    assert_eq!(client.receive().len(), 40);
    assert_eq!((bench.netback.counters().copied_bytes, bench.pool.free()), (0, 600));
}

/// All segments of a packet, or none: it comes back whole while there is no room for all of them.
#[test]
fn n7_a_packet_that_is_cut_fits_whole_or_comes_back() {
    let takes = Takes::NONE.with_scatter_gather(true);
    let config = offering(Takes::ALL).with_queue_packets(50).with_queue_frames(200);
    let (mut bench, mut client) = client_that_takes(takes, config, 0);
    let data = pattern(1, 40 * 1000);
    let mut packet = bench.plain(&frames::blank(frames::frame(false, true, 9, &data)));
    packet.meta = Meta { checksum: Checksum::Blank, gso: Some(gso(1000)) };
    let small = frames::frame(false, true, 9, &[7; 100]);
    for _ in 0..20 {
        bench.netback.deliver(bench.plain(&small)).unwrap();
    }
    for _ in 0..3 {
        let back = bench.netback.deliver(packet).unwrap_err().into_packet();
        packet = back.expect("the queue holds 50, and 20 wait");
        assert_eq!((packet.meta.gso, bench.netback.queued()), (Some(gso(1000)), 20));
    }
    client.post(60);
    bench.netback.flush();
    bench.netback.deliver(packet).unwrap();
    assert_eq!(bench.netback.queued(), 40);
    bench.netback.flush();
    let got = client.receive();
    let got: Vec<u8> =
        got[20..].iter().flat_map(|got| frames::open(&got.as_ref().unwrap().bytes).data).collect();
    assert!(got == data);
    let counters = bench.netback.counters();
    assert_eq!((counters.to_given_back, counters.to_drops.total(), counters.cut), (3, 0, 1));
}
