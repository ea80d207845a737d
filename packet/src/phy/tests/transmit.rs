//! What the stack sends.

use core::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{ChecksumCapabilities, PacketMeta};
use smoltcp::wire::*;

use super::*;

#[test]
fn r4_the_stack_fills_the_block_that_is_sent() {
    let mut device = Device::new(mock());
    let token = device.transmit(Instant::ZERO).unwrap();
    let place = token.consume(1514, |bytes| {
        assert_eq!(bytes.len(), 1514);
        bytes[..6].copy_from_slice(b"header");
        bytes.as_ptr()
    });
    let sent = &device.inner().sent[0];
    assert_eq!((sent.len(), sent.head().as_ptr()), (1514, place));
    assert!(sent.head().starts_with(b"header"));
    assert_eq!(device.counters(), Counters::default());
}

/// Blocks come with bytes of an earlier use; what the stack leaves out is zero.
#[test]
fn r15_no_stale_byte_is_sent() {
    for (mtu, len) in [(1500, 60), (1500, 1514), (9000, 9014)] {
        let mut device = Device::new(Mock { mtu, ..mock() });
        for _ in 0..2 {
            device.transmit(Instant::ZERO).unwrap().consume(len, |bytes| bytes[3] = 3);
        }
        for packet in &device.inner().sent {
            let mut bytes = vec![1; len];
            assert_eq!(packet.copy_to_slice(&mut bytes), Some(len));
            assert_eq!(bytes[3], 3);
            assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 1);
        }
    }
}

#[test]
fn a_token_means_that_sending_succeeds() {
    let mut device = Device::new(Mock { room: 0, ..mock() });
    assert!(device.transmit(Instant::ZERO).is_none());
    device.inner_mut().room = 1;
    assert!(device.transmit(Instant::ZERO).is_some());
    // Not used: the memory is kept for the next.
    let blocks = device.inner().blocks;
    for _ in 0..10 {
        assert!(device.transmit(Instant::ZERO).is_some());
    }
    assert_eq!(device.inner().blocks, blocks);
    device.transmit(Instant::ZERO).unwrap().consume(60, |_| ());
    assert_eq!(device.inner().sent.len(), 1);
    device.inner_mut().room = 9;
    device.inner_mut().blocks = 0;
    assert!(device.transmit(Instant::ZERO).is_none());

    // A frame of three blocks needs all three, and three slots.
    let mut device = Device::new(Mock { mtu: 6000, room: 2, blocks: 2, ..mock() });
    assert!(device.transmit(Instant::ZERO).is_none());
    device.inner_mut().room = 3;
    assert!(device.transmit(Instant::ZERO).is_none());
    device.inner_mut().blocks = 1;
    assert!(device.transmit(Instant::ZERO).is_some());
}

#[test]
fn frames_of_several_blocks_are_scattered_and_counted() {
    let mut device = Device::new(Mock { mtu: 9000, ..mock() });
    assert_eq!(device.capabilities().max_transmission_unit, 9014);
    for (len, blocks) in [(60, 1), (2048, 1), (2049, 2), (9014, 5)] {
        device.transmit(Instant::ZERO).unwrap().consume(len, |bytes| {
            assert_eq!(bytes.len(), len);
            bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
        });
        let sent = device.inner_mut().sent.pop().unwrap();
        let mut bytes = vec![0; len];
        assert_eq!(sent.copy_to_slice(&mut bytes), Some(len));
        assert_eq!(sent.fragments().len(), blocks);
        assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == index as u8));
    }
    assert_eq!(device.counters().linearised_packets, 2);
    assert_eq!(device.counters().linearised_bytes, 2049 + 9014);
}

/// A device that takes one fragment takes no frame that needs two, whatever its MTU.
#[test]
fn without_scatter_gather_a_frame_is_one_block() {
    let mut device = Device::new(Mock { mtu: 9000, max_fragments: 1, room: 1, ..mock() });
    assert_eq!(device.capabilities().max_transmission_unit, 2048);
    device.transmit(Instant::ZERO).unwrap().consume(2048, |bytes| bytes.fill(1));
    assert_eq!(device.inner().sent[0].fragments().len(), 1);
}

#[test]
fn r4_more_than_a_frame_is_not_sent() {
    let mut device = Device::new(mock());
    for len in [1515, 2048, 2049, 100_000] {
        let seen = device.transmit(Instant::ZERO).unwrap().consume(len, |bytes| bytes.len());
        assert_eq!(seen, len);
    }
    assert!(device.inner().sent.is_empty());
    assert_eq!(device.counters().too_long, 4);
}

/// A frame of TCP over IPv4 with so many bytes of data, as smoltcp makes it: no sums.
fn tcp(bytes: &mut [u8]) {
    let segment = TcpRepr {
        src_port: 1,
        dst_port: 2,
        control: TcpControl::None,
        seq_number: TcpSeqNumber(5),
        ack_number: Some(TcpSeqNumber(7)),
        window_len: 9,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &vec![6; bytes.len() - 54],
    };
    let (from, to) = (Ipv4Address::new(10, 0, 0, 1), Ipv4Address::new(10, 0, 0, 2));
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Tcp,
        payload_len: segment.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = EthernetFrame::new_unchecked(bytes);
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    let mut tcp = TcpPacket::new_unchecked(packet.payload_mut());
    segment.emit(&mut tcp, &from.into(), &to.into(), &ChecksumCapabilities::ignored());
}

fn send_large(device: &mut Device<Mock>, len: usize) -> Option<()> {
    let mut token = device.transmit(Instant::ZERO)?;
    let mut meta = PacketMeta::default();
    meta.segmentation_offload_size = NonZeroU16::new(1000);
    token.set_meta(meta);
    token.consume(len, tcp);
    Some(())
}

/// A stack on a device that takes large packets fills whole blocks, and they are not copied.
#[test]
fn what_is_to_be_cut_leaves_in_whole_blocks() {
    let most = |mock| Device::new(mock).capabilities().segmentation.tcpv4.map(NonZeroUsize::get);
    assert_eq!(most(mock()), None);
    let all = || Mock { peer: Features::ALL, block_size: 4096, ..mock() };
    assert_eq!(most(all()), Some(4096));
    assert_eq!(
        most(Mock { peer: Features { checksum_v4: false, ..Features::ALL }, ..all() }),
        None
    );
    // A block holds no more than a frame.
    assert_eq!(most(Mock { mtu: 4082, ..all() }), None);

    let mut device = Device::new(all());
    send_large(&mut device, 4096).unwrap();
    device.flush();
    let sent = &device.inner().sent[0];
    assert_eq!((sent.len(), sent.fragments().len()), (4096, 1));
    assert_eq!(sent.meta.gso.map(|gso| gso.size.get()), Some(1000));
    assert_eq!(sent.meta.checksum, Checksum::Blank);
    assert!(sent.head()[54..].iter().all(|&byte| byte == 6));
    assert_eq!(device.inner().room, 256 - 2);
    assert_eq!(device.counters().linearised_packets, 0);
}

/// The stack can't be told that the device takes no large packets any more.
#[test]
fn what_is_to_be_cut_is_cut_here_if_the_device_takes_none() {
    let mut device = Device::new(Mock { peer: Features::ALL, block_size: 4096, ..mock() });
    device.inner_mut().peer = Features::NONE;
    device.inner_mut().room = 4;
    send_large(&mut device, 4096).unwrap();
    // It needs five slots, and nothing overtakes it.
    device.flush();
    assert!(device.inner().sent.is_empty());
    assert!(device.transmit(Instant::ZERO).is_none());
    device.inner_mut().room = 9;
    assert!(device.transmit(Instant::ZERO).is_some());
    let sent = &device.inner().sent;
    assert_eq!(sent.iter().map(AnyPacket::len).collect::<Vec<_>>(), [1054, 1054, 1054, 1054, 96]);
    assert!(sent.iter().all(|packet| packet.meta.gso.is_none()));
}
