//! The tests of what is sent whole and of what is done in software once more, for a layer above that
//! has the device lent: `&mut Netfront` is a `NetDevice` too.

use super::*;

#[expect(clippy::duplicate_mod, reason = "the same tests, of another type")]
#[path = "offload_tx.rs"]
mod offload_tx;
#[expect(clippy::duplicate_mod, reason = "the same tests, of another type")]
#[path = "software.rs"]
mod software;

#[expect(clippy::result_large_err, reason = "the packet comes back, not an error")]
fn send(mut net: &mut Front, packet: PacketMut) -> Result<(), SendError<PacketMut>> {
    fn to_any<N: NetDevice>(
        net: &mut N,
        packet: PacketMutOf<N>,
    ) -> Result<(), SendError<PacketMutOf<N>>> {
        net.send(packet)
    }
    to_any(&mut net, packet)
}
