//! Headers and sums against other implementations: etherparse builds and reads the packets.

mod ipv6;
mod layout;
mod parse;
mod sums;

use alloc::vec::Vec;

use etherparse::PacketBuilder;
use proptest::prelude::*;

/// What a generated packet carries over IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Icmp,
}

/// A packet, its checksums right.
#[derive(Clone, Debug)]
struct Sample {
    v4: bool,
    kind: Kind,
    data: Vec<u8>,
    frame: Vec<u8>,
}

const ADDRESSES: [([u8; 4], [u8; 4]); 2] =
    [([10, 137, 0, 9], [192, 0, 2, 77]), ([0, 0, 0, 0], [255; 4])];
const ADDRESSES_V6: [([u8; 16], [u8; 16]); 2] = [
    ([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x16, 0x3e, 0xff, 0xfe, 1, 2, 3], [0x20; 16]),
    ([0; 16], [255; 16]),
];

impl Sample {
    /// TCP gets the options, whole words.
    fn new(v4: bool, kind: Kind, which: usize, options: Vec<u8>, data: Vec<u8>) -> Sample {
        let mut frame = Vec::new();
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = if v4 {
            let (source, destination) = ADDRESSES[which];
            ethernet.ipv4(source, destination, 63)
        } else {
            let (source, destination) = ADDRESSES_V6[which];
            ethernet.ipv6(source, destination, 63)
        };
        match kind {
            Kind::Tcp => {
                let tcp = ip.tcp(4242, 80, 0x0102_0304, 512).ack(0x0506_0708).psh();
                tcp.options_raw(&options).unwrap().write(&mut frame, &data)
            }
            Kind::Udp => ip.udp(68, 67).write(&mut frame, &data),
            Kind::Icmp if v4 => ip.icmpv4_echo_request(7, 9).write(&mut frame, &data),
            Kind::Icmp => ip.icmpv6_echo_request(7, 9).write(&mut frame, &data),
        }
        .unwrap();
        Sample { v4, kind, data, frame }
    }

    /// Where the transport header starts.
    fn transport(&self) -> usize {
        if self.v4 { 34 } else { 54 }
    }

    /// Where its checksum is.
    fn field(&self) -> usize {
        self.transport()
            + match self.kind {
                Kind::Tcp => 16,
                Kind::Udp => 6,
                Kind::Icmp => 2,
            }
    }

    /// Where the data starts.
    fn payload(&self) -> usize {
        self.frame.len() - self.data.len()
    }

    fn checksum(&self) -> [u8; 2] {
        [self.frame[self.field()], self.frame[self.field() + 1]]
    }
}

/// Any packet.
fn sample() -> impl Strategy<Value = Sample> {
    sample_of(&[Kind::Tcp, Kind::Udp, Kind::Icmp])
}

prop_compose! {
    fn sample_of(kinds: &'static [Kind])(
        v4: bool,
        kind in prop::sample::select(kinds),
        which in 0usize..2,
        words in 0usize..=10,
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) -> Sample {
        // Option kind 1 is "no operation": any number of them is well-formed.
        Sample::new(v4, kind, which, alloc::vec![1; words * 4], data)
    }
}
