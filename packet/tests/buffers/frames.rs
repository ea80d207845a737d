//! Devices as objects of plain frames: what they hand up is what a wire would carry, and nothing is lost
//! without a word.

use std::num::NonZeroU16;
use std::task::{Context, Waker};

use packet_views::buffer::{AnyPacket, Checksum, Gso, GsoKind, Meta};
use packet_views::copying::{Copying, RawIo};
use packet_views::device::{Link, WriteError};
use packet_views::features::Features;
use packet_views::frames::{FrameDevice, Frames, RecvError};
use packet_views::header::MacAddr;
use packet_views::header::checksum::{Verdict, verify};
use packet_views::offload::leave_blank;

use crate::allocations::allocations;
use crate::devices::{Mirror, frames, heap};
use crate::offloads::{BLOCK, LARGE, SIZE, joined, large};
use crate::pipe::{Pipe, pipe};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

/// A device of frames, and the other end of its pipe.
fn device(room: usize) -> (Frames<Copying<Pipe>>, Pipe) {
    let (near, far) = pipe(Features::ALL, room);
    (Frames::new(Copying::new(near, MAC, 1500)), far)
}

/// All frames that there are now.
fn received(device: &mut dyn FrameDevice) -> Vec<Vec<u8>> {
    let mut target = vec![0xa5; device.max_frame()];
    let mut frames = vec![];
    while let Some(len) = device.recv_frame(&mut target).unwrap() {
        frames.push(target[..len].to_vec());
    }
    assert!(!device.has_frame());
    frames
}

fn tagged(len: usize) -> Vec<u8> {
    let mut frame = vec![7; len];
    frame[12..14].copy_from_slice(&[0x81, 0]);
    frame
}

/// The same on pages and on the heap, through the object.
#[test]
fn any_device_is_an_object_of_frames() {
    let mut pages = Mirror::new(frames());
    pages.mtu = 9000;
    let devices: [Box<dyn FrameDevice>; 3] = [
        Box::new(Frames::new(&mut pages)),
        Box::new(Frames::new(Mirror::new(heap()))),
        Box::new(Frames::new(Mirror::new(frames()))),
    ];
    for mut device in devices {
        assert_eq!((device.mac(), device.link()), (Some(MAC), Link::Up));
        let max = device.max_frame();
        assert_eq!((max, device.capabilities().block_size), (device.mtu() + 18, max));
        let sent = [vec![1; 14], vec![2; max - 4]];
        for frame in &sent {
            device.send_frame(frame).unwrap();
        }
        assert!(!device.has_frame(), "the peer has not been told");
        device.flush();
        // The mirror has no block for more than a page to receive in.
        let count = if max > 4096 { 1 } else { 2 };
        if count == 1 {
            continue;
        }
        assert!(device.has_frame());
        let mut context = Context::from_waker(Waker::noop());
        assert!(device.poll_ready(&mut context).is_ready() && device.service().is_none());
        assert_eq!(received(&mut *device), sent);
        assert_eq!(device.totals().tx_packets, 2);
    }
    assert_eq!(pages.room, 100 - 1 - 3, "a frame takes as many blocks as it has pages");
}

#[test]
fn a_frame_that_is_not_sent_stays_with_the_caller_and_an_error_says_why() {
    let (mut device, far) = device(2);
    let mut send = |frame: &[u8]| device.send_frame(frame);
    assert_eq!(send(&[]), Err(WriteError::BadLength));
    assert_eq!(send(&[7; 13]), Err(WriteError::BadLength));
    assert_eq!(send(&[7; 1515]), Err(WriteError::TooLong));
    assert_eq!(send(&tagged(1519)), Err(WriteError::TooLong));
    let frames = [vec![7; 1514], tagged(1518)];
    for frame in &frames {
        send(frame).unwrap();
    }
    // One more waits in the device.
    assert_eq!(send(&[8; 60]), Ok(()));
    assert_eq!(send(&[9; 60]), Err(WriteError::Full));
    assert_eq!(device.room(), 0);
    let taken = || far.into.borrow_mut().frames.drain(..).map(|it| it.0).collect::<Vec<_>>();
    assert_eq!(taken(), frames);
    device.flush();
    assert_eq!(taken(), [vec![8; 60]]);
    assert!(device.room() > 0);
    let totals = device.totals();
    assert_eq!((totals.tx_packets, totals.tx_dropped), (3, 0));
}

#[test]
fn a_frame_that_does_not_fit_the_slice_stays() {
    let (mut device, mut far) = device(9);
    assert!(far.send(&[1; 100]) && far.send(&[2; 60]));
    let mut target = [0; 100];
    for _ in 0..3 {
        assert_eq!(device.recv_frame(&mut target[..99]), Err(RecvError::TooShort(100)));
        assert_eq!(device.recv_frame(&mut []), Err(RecvError::TooShort(100)));
        assert!(device.has_frame());
    }
    assert_eq!((device.recv_frame(&mut target), target), (Ok(Some(100)), [1; 100]));
    assert_eq!(device.recv_frame(&mut target[..60]), Ok(Some(60)));
    assert_eq!((device.recv_frame(&mut []), &target[..60]), (Ok(None), &[2; 60][..]));
    assert_eq!(device.drops().total(), 0);
}

/// What crosses unsegmented and unsummed is a wire's frames here.
#[test]
fn large_packets_come_as_segments_with_their_checksums() {
    let (mut device, mut far) = device(9);
    for v4 in [true, false] {
        for data in [1, SIZE, 5 * SIZE + 1, LARGE] {
            let (packet, segments) = large(v4, data, BLOCK);
            assert!(far.send_meta(&joined(&packet), packet.meta));
            assert!(far.send(&[3; 60]));
            let got = received(&mut device);
            let (last, got) = got.split_last().unwrap();
            assert!(got == segments && *last == [3; 60], "{v4} {data}");
        }
    }
    assert_eq!((device.drops().total(), device.totals().rx_packets), (0, 16));
}

/// IPv4 with no more than these flags and this protocol, behind a header of Ethernet.
fn ipv4(flags: u8, protocol: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, flags, 0, 64, protocol, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 9, 0, 9, 0, 20, 0, 5]);
    frame.extend([6; 12]);
    frame
}

#[test]
#[cfg_attr(miri, ignore = "large packets are small under Miri, to be quick")]
fn blank_checksums_are_filled_in_and_what_has_none_is_left() {
    const BLANK: Meta = Meta { checksum: Checksum::Blank, gso: None };
    let (mut device, mut far) = device(9);
    for v4 in [true, false] {
        let (packet, segments) = large(v4, 700, BLOCK);
        assert!(far.send_meta(&joined(&packet), Meta { gso: None, ..packet.meta }));
        assert_eq!(received(&mut device), segments);
    }
    let mut udp = ipv4(0, 17);
    udp[41] = 0;
    assert_eq!(leave_blank(&mut udp), Checksum::Blank);
    assert!(far.send_meta(&udp, BLANK));
    let got = received(&mut device);
    assert_eq!(verify(&AnyPacket::from(&*got[0])), Verdict::Right);
    // A fragment has none, nor ARP.
    let mut arp = ipv4(0, 17);
    arp[13] = 6;
    for frame in [ipv4(0x20, 17), arp] {
        assert!(far.send_meta(&frame, BLANK));
        assert_eq!(received(&mut device), [frame]);
    }
    assert_eq!(device.drops().total(), 0);
    // Where nobody knows where it is, nobody can fill it in.
    for frame in [ipv4(0, 99), ipv4(0, 6)[..30].to_vec()] {
        assert!(far.send_meta(&frame, BLANK) && far.send(&[4; 60]));
        assert_eq!(received(&mut device), [[4; 60]]);
    }
    assert_eq!(
        (device.drops().checksum, device.drops().total(), device.totals().rx_dropped),
        (2, 2, 2)
    );
}

#[test]
#[cfg_attr(miri, ignore = "large packets are small under Miri, to be quick")]
fn what_is_no_frame_of_this_link_is_dropped_and_counted() {
    let (mut device, mut far) = device(9);
    let (packet, _) = large(true, 3 * SIZE, BLOCK);
    let (bytes, gso) = (joined(&packet), packet.meta.gso.unwrap());
    let mut bad = |bytes: &[u8], gso: Gso| {
        assert!(far.send_meta(bytes, Meta { gso: Some(gso), ..packet.meta }));
        assert!(far.send(&[4; 60]));
        assert_eq!(received(&mut device), [[4; 60]]);
        device.drops()
    };
    let drops = bad(&bytes, Gso { size: NonZeroU16::new(2000).unwrap(), ..gso });
    assert_eq!((drops.too_long, drops.total()), (1, 1));
    let drops = bad(&bytes, Gso { kind: GsoKind::TcpV6, ..gso });
    assert_eq!((drops.gso, drops.total()), (1, 2));
    let drops = bad(&bytes[..40], gso);
    assert_eq!((drops.gso, drops.total()), (2, 3));
    // What is too long and not to be cut, this device drops itself, and counts.
    assert!(far.send(&[5; 1515]) && far.send(&tagged(1518)));
    assert_eq!(received(&mut device), [tagged(1518)]);
    assert_eq!((device.drops().total(), device.totals().rx_dropped), (3, 4));
    // Another, like a mirror whose MTU has changed, does not.
    let mut mirror = Mirror::new(heap());
    let mut device = Frames::new(&mut mirror);
    device.send_frame(&[6; 1000]).unwrap();
    device.send_frame(&[6; 300]).unwrap();
    device.flush();
    device.inner_mut().mtu = 286;
    assert_eq!(received(&mut device), [[6; 300]]);
    assert_eq!((device.drops().too_long, device.drops().total()), (1, 1));
}

#[test]
fn steady_traffic_of_frames_allocates_nothing() {
    let (mut device, mut far) = device(4);
    let (packet, segments) = large(true, 5 * SIZE, BLOCK);
    let (bytes, meta) = (joined(&packet), packet.meta);
    let (mut target, mut back) = (vec![0; device.max_frame()], vec![0; 65_535]);
    let mut round = || {
        assert!(far.send_meta(&bytes, meta) && far.send(&bytes[..60]));
        let mut count = 0;
        while let Ok(Some(len)) = device.recv_frame(&mut target) {
            count += 1;
            device.send_frame(&target[..len]).unwrap();
            device.flush();
            assert_eq!(far.recv(&mut back), Some(len));
        }
        assert_eq!(count, segments.len() + 1);
    };
    for _ in 0..5 {
        round();
    }
    assert_eq!(allocations(|| (0..20).for_each(|_| round())), 0);
}
