//! The frontend as an object of plain frames, for kernels that know nothing else.

use packet_views::features::Features;
use packet_views::frames::{FrameDevice, Frames, RecvError};
use xen_netfront::buffer::BufMut;

use super::packets::{Flow, check, join};
use super::*;

const BLANK: u16 = rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED;

fn large(bench: &mut Bench, flow: Flow, data: &[u8]) {
    let bytes = flow.blank(1, data);
    let parts: Vec<&[u8]> = bytes.chunks(4096).collect();
    let gso = flow.meta(1400).gso.unwrap();
    bench.deliver_with(&parts, BLANK, &[Extra::from_gso(gso)]);
}

/// All frames that there are now, each of them whole and summed.
fn received(device: &mut dyn FrameDevice) -> Vec<Vec<u8>> {
    let mut target = vec![0; device.max_frame()];
    let mut frames = vec![];
    while let Some(len) = device.recv_frame(&mut target).unwrap() {
        frames.push(target[..len].to_vec());
    }
    frames
}

#[test]
fn large_and_blank_packets_come_as_frames_of_a_wire() {
    let config = raw_backend::full_ring().with_features(Features::ALL);
    let mut bench = Bench::with(config, &[], &[]);
    for round in 0..50 {
        for flow in Flow::each_kind(1) {
            let data = pattern(round, 1400);
            bench.deliver_with(&[&flow.blank(1, &data)], BLANK, &[]);
            let mut device = Frames::new(&mut bench.front);
            assert!(device.has_frame());
            let got = received(&mut device);
            assert!(got.len() == 1 && check(&got[0], Default::default()).data == data);
        }
        for flow in [Flow::tcp(false, 1), Flow::tcp(true, 1)] {
            let data = pattern(round, 40_000);
            large(&mut bench, flow, &data);
            let got = received(&mut Frames::new(&mut bench.front));
            let plain = |frame| (frame, Default::default());
            let got: Vec<_> = got.into_iter().map(plain).collect();
            assert!(join(flow, 1, 1400, &got) == data);
        }
    }
    assert_eq!(bench.front.counters().rx_drops.total(), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

/// A segment's headers need a page: where there is none, the segments wait.
#[test]
fn without_memory_no_segment_is_lost() {
    let config = raw_backend::full_ring().with_features(Features::ALL);
    let mut bench = Bench::with(config, &[], &[]);
    let flow = Flow::tcp(false, 1);
    let data = pattern(3, 20_000);
    large(&mut bench, flow, &data);
    let mut device = Frames::new(&mut bench.front);
    let mut target = vec![0; device.max_frame()];
    let mut segments = vec![];
    loop {
        let len = device.recv_frame(&mut target).unwrap().unwrap();
        segments.push((target[..len].to_vec(), Default::default()));
        if segments.len() == 15 {
            break;
        }
        let hogged: Vec<BufMut> = std::iter::from_fn(|| device.inner_mut().alloc(0)).collect();
        for _ in 0..3 {
            assert_eq!(device.recv_frame(&mut target), Err(RecvError::NoMemory));
            assert!(device.has_frame());
        }
        drop(hogged);
    }
    assert_eq!((device.recv_frame(&mut target), device.drops().total()), (Ok(None), 0));
    assert!(join(flow, 1, 1400, &segments) == data);
    drop(device);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn frames_are_sent_to_the_backend_when_they_are_flushed() {
    let mut bench = Bench::new();
    let mut device: Box<dyn FrameDevice + '_> = Box::new(Frames::new(&mut bench.front));
    assert_eq!((device.link(), device.mtu(), device.max_frame()), (Link::Up, 1500, 1518));
    assert!(device.room() > 0 && device.service().is_none());
    for len in [14, 60, 1514] {
        device.send_frame(&pattern(len as u64, len)).unwrap();
    }
    drop(device);
    assert!(bench.tx_requests().is_empty(), "nobody has flushed");
    FrameDevice::flush(&mut Frames::new(&mut bench.front));
    let requests = bench.tx_requests();
    let sent: Vec<Vec<u8>> =
        requests.iter().map(|request| bench.sent_bytes(request, request.size.into())).collect();
    assert_eq!(sent, [14, 60, 1514].map(|len| pattern(len as u64, len)));
    for request in requests {
        bench.answer_tx(request.id, 0);
    }
    bench.assert_sound();
    bench.assert_no_leak();
}
