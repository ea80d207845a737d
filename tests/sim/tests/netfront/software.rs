//! What the backend does not take, done by the frontend.

use super::*;

#[test]
fn a_blank_checksum_is_filled_in_for_a_backend_without_offload() {
    use xen_netfront::buffer::{Checksum, View};
    use xen_netfront::header::checksum::{Verdict, verify};
    let mut bench = Bench::with(Config::default(), &[], &[("feature-no-csum-offload", "1")]);
    // UDP from 10.0.0.1:1 to 10.0.0.2:2, 4 bytes; the checksum field holds the pseudo-header sum.
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2]);
    let pseudo: u32 = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 17 + 12;
    frame.extend([0, 1, 0, 2, 0, 12, (pseudo >> 8) as u8, pseudo as u8, 1, 2, 3, 4]);
    let mut buf = bench.front.buffer(0).unwrap();
    buf.append(frame.len()).unwrap().copy_from_slice(&frame);
    let mut packet = TxPacket::from(buf);
    packet.meta.checksum = Checksum::Blank;
    bench.front.reserve(1).unwrap().send(packet);
    bench.front.flush();
    let request = bench.tx_requests()[0];
    assert_eq!(request.flags & 1, 0, "not blank any more");
    let sent = bench.sent_bytes(&request, frame.len());
    assert_ne!(sent, frame);
    let mut check = bench.front.buffer(0).unwrap();
    check.append(sent.len()).unwrap().copy_from_slice(&sent);
    assert_eq!(check.bytes().len(), sent.len());
    assert_eq!(verify(&TxPacket::from(check)), Verdict::Right);

    // One whose headers make no sense can't be filled in.
    let mut buf = bench.front.buffer(0).unwrap();
    buf.append(60).unwrap().fill(0xff);
    let mut packet = TxPacket::from(buf);
    packet.meta.checksum = Checksum::Blank;
    bench.front.reserve(1).unwrap().send(packet);
    assert_eq!(bench.front.stats().tx_drops.bad_checksum, 1);
    bench.assert_sound();
}
