//! Pages that the backend does not let go of.

use super::*;

#[test]
fn f6_pages_that_the_backend_keeps_go_to_quarantine_and_come_back() {
    let mut bench = Bench::new();
    assert!(bench.send(&[&pattern(1, 60)]));
    let request = bench.tx_requests()[0];
    let kept = bench.back.map_page(FRONT, request.gref, false).unwrap();
    bench.answer_tx(request.id, 0);
    assert_eq!(bench.front.complete_tx(), 1);
    assert_eq!((bench.front.quarantined(), bench.front.stats().quarantined), (1, 1));
    bench.assert_sound();
    // The device goes on; neither page nor reference is used again.
    for n in 0..600 {
        assert!(bench.send(&[&pattern(n, 60)]));
        let next = bench.tx_requests()[0];
        assert_ne!(next.gref, request.gref);
        bench.answer_tx(next.id, 0);
        bench.front.complete_tx();
    }
    bench.pass(SECOND * 3);
    assert_eq!(bench.front.quarantined(), 1);
    drop(kept);
    bench.pass(SECOND * 2);
    assert_eq!(bench.front.quarantined(), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn f6_with_more_than_a_quarter_in_quarantine_the_device_stays_down() {
    let mut bench = Bench::new();
    let pages = |bench: &Bench| -> Vec<_> {
        let grants = bench.domain.grants().into_iter().filter(|(_, entry)| entry.permits(BACK));
        grants.take(200).map(|(gref, _)| bench.back.map_page(FRONT, gref, true).unwrap()).collect()
    };
    let kept = pages(&bench);
    bench.queues.clear();
    bench.set_state(6);
    bench.pass(SECOND);
    bench.set_state(2);
    bench.pass(SECOND * 3);
    assert!(bench.front.quarantined() > 514 / 4, "{}", bench.front.quarantined());
    assert_eq!(
        (bench.front.link(), bench.front.ports().count()),
        (Link::Down, 0),
        "it makes no rings"
    );
    bench.assert_sound();
    drop(kept);
    bench.pass(SECOND * 2);
    assert_eq!(bench.front.quarantined(), 0);
    bench.connect();
    bench.assert_receives();
    bench.assert_no_leak();
}

#[test]
fn f6_a_receive_slot_that_lost_its_reference_takes_another() {
    let mut bench = Bench::new();
    let lost = bench.rx_request();
    let kept = bench.back.map_page(FRONT, lost.gref, true).unwrap();
    bench.answer(RxResponse { id: lost.id, offset: 0, flags: 0, status: 100 });
    bench.publish_rx();
    assert!(bench.received().is_empty());
    // Several rounds of the ring, with a page and a reference less.
    for n in 0..1000 {
        let posted = bench.rings().rx.refresh().unwrap();
        assert!((224..=255).contains(&posted), "{posted} pages are posted");
        let request = bench.rx_request();
        assert_ne!(request.gref, lost.gref);
        let packet = pattern(n, 100);
        bench.fill(&request, 0, &packet);
        bench.answer(RxResponse { id: request.id, offset: 0, flags: 0, status: 100 });
        bench.publish_rx();
        assert_eq!(bench.received(), [packet]);
    }
    assert_eq!(bench.front.stats().no_frame, 0);
    bench.assert_sound();
    drop(kept);
    bench.pass(SECOND * 2);
    assert_eq!(bench.front.quarantined(), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}
