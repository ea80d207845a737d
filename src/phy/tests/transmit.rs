//! What the stack sends.

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
    let sent = &device.netif().sent[0];
    assert_eq!((sent.len(), sent.head().as_ptr()), (1514, place));
    assert!(sent.head().starts_with(b"header"));
    assert_eq!(device.stats(), Stats::default());
}

/// Blocks come with bytes of an earlier use; what the stack leaves out is zero.
#[test]
fn r15_no_stale_byte_is_sent() {
    for (mtu, len) in [(1500, 60), (1500, 1514), (9000, 9014)] {
        let mut device = Device::new(Mock { mtu, ..mock() });
        for _ in 0..2 {
            device.transmit(Instant::ZERO).unwrap().consume(len, |bytes| bytes[3] = 3);
        }
        for packet in &device.netif().sent {
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
    device.netif_mut().room = 1;
    assert!(device.transmit(Instant::ZERO).is_some());
    // Not used: the memory is kept for the next.
    let blocks = device.netif().blocks;
    for _ in 0..10 {
        assert!(device.transmit(Instant::ZERO).is_some());
    }
    assert_eq!(device.netif().blocks, blocks);
    device.transmit(Instant::ZERO).unwrap().consume(60, |_| ());
    assert_eq!(device.netif().sent.len(), 1);
    device.netif_mut().room = 9;
    device.netif_mut().blocks = 0;
    assert!(device.transmit(Instant::ZERO).is_none());

    // A frame of three blocks needs all three, and three slots.
    let mut device = Device::new(Mock { mtu: 6000, room: 2, blocks: 2, ..mock() });
    assert!(device.transmit(Instant::ZERO).is_none());
    device.netif_mut().room = 3;
    assert!(device.transmit(Instant::ZERO).is_none());
    device.netif_mut().blocks = 1;
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
        let sent = device.netif_mut().sent.pop().unwrap();
        let mut bytes = vec![0; len];
        assert_eq!(sent.copy_to_slice(&mut bytes), Some(len));
        assert_eq!(sent.fragments().len(), blocks);
        assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == index as u8));
    }
    assert_eq!(device.stats().linearised_packets, 2);
    assert_eq!(device.stats().linearised_bytes, 2049 + 9014);
}

/// A device that takes one fragment takes no frame that needs two, whatever its MTU.
#[test]
fn without_scatter_gather_a_frame_is_one_block() {
    let mut device = Device::new(Mock { mtu: 9000, max_fragments: 1, room: 1, ..mock() });
    assert_eq!(device.capabilities().max_transmission_unit, 2048);
    device.transmit(Instant::ZERO).unwrap().consume(2048, |bytes| bytes.fill(1));
    assert_eq!(device.netif().sent[0].fragments().len(), 1);
}

#[test]
fn r4_more_than_a_frame_is_not_sent() {
    let mut device = Device::new(mock());
    for len in [1515, 2048, 2049, 100_000] {
        let seen = device.transmit(Instant::ZERO).unwrap().consume(len, |bytes| bytes.len());
        assert_eq!(seen, len);
    }
    assert!(device.netif().sent.is_empty());
    assert_eq!(device.stats().too_long, 4);
}
