//! What is not simply handed up: tags, fragments, and who asks whether an address is free.

use smoltcp::phy::TxToken as _;
use smoltcp::time::Instant;
use zerocopy::FromBytes;

use super::{CopiedTo, Fate, Receive, arrived};
use crate::buffer::AnyPacket;
use crate::device::NetDevice;
use crate::header::U16;
use crate::header::checksum::{Verdict, verify};
use crate::header::{
    At, ETHERNET_HEADER, Ethernet, Extensions, Ipv6, Layout, Pieces, Protocol, VLAN_TAG,
};
use crate::phy::probe::{Own, Taken};
use crate::phy::transmit::{Transmit, Want};

/// Bytes of both stations' addresses.
const STATIONS: usize = ETHERNET_HEADER - size_of::<U16>();
/// Bytes of a fragment header.
const FRAGMENT: usize = 8;
/// The VLAN's number in a tag: 0 if the frame is in none, and has the tag for its priority
/// (IEEE 802.1Q, section 9.6).
const VLAN: u16 = 0xfff;

impl<N: NetDevice> Receive<N> {
    #[cold]
    pub(super) fn look_closer(
        &mut self,
        tx: &mut Transmit<N>,
        is_known: bool,
        own: &Own,
        now: Instant,
    ) -> Fate {
        self.strip(tx);
        let bytes = arrived::<N>(&self.packet, &self.copied, &self.linear);
        let Ok(layout) = Layout::at_start(bytes, bytes.len()) else { return Fate::of(is_known) };
        self.answer = Taken::answer_to(bytes, &layout, own);
        if self.answer.is_some() {
            return Fate::Done;
        }
        let is_fragment = layout.tags == 0 && layout.ip.is_some_and(|ip| ip.part.is_some());
        if !is_fragment {
            let is_good = is_known || verify(&AnyPacket::from(bytes)) != Verdict::Wrong;
            return Fate::of(is_good);
        }
        if !is_for(own, bytes) || !self.reassembly.add(bytes, &layout, now) {
            return Fate::Done;
        }
        // Of the whole nobody knows anything, whatever is known of its parts.
        let is_good = verify(&AnyPacket::from(self.reassembly.whole())) != Verdict::Wrong;
        self.drop_held(tx);
        self.copied = Some(CopiedTo::Reassembly);
        Fate::of(is_good)
    }

    /// Takes off a frame what says nothing: tags if it is in no VLAN, and the fragment header of a
    /// packet that is whole (RFC 6946).
    fn strip(&mut self, tx: &mut Transmit<N>) {
        if let Some(tags) = priority_tags(self.arrived()) {
            self.narrow(tx, tags, |frame| move_up(frame, STATIONS, tags));
        }
        if let Some(carried) = whole_in_a_fragment(self.arrived()) {
            self.narrow(tx, FRAGMENT, |frame| {
                move_up(frame, ETHERNET_HEADER + size_of::<Ipv6>(), FRAGMENT);
                let ip = frame.get_mut(ETHERNET_HEADER + FRAGMENT..).unwrap_or_default();
                if let Ok((ip, _)) = Ipv6::mut_from_prefix(ip) {
                    ip.next_header = carried;
                    ip.payload_len.set(ip.payload_len.get().saturating_sub(FRAGMENT as u16));
                }
            });
        }
    }

    /// Writes to a frame and drops `count` bytes at its front, where it is if nobody else reads it.
    fn narrow(&mut self, tx: &mut Transmit<N>, count: usize, write: impl FnOnce(&mut [u8])) {
        let mut before = 0;
        if let Some(packet) = self.packet.take() {
            match packet.try_into_mut() {
                Ok(mut packet) => {
                    if let [only] = packet.fragments_mut() {
                        write(only.bytes_mut());
                        // It has them, for they have been read.
                        let _ = only.pull_front(count);
                    }
                    self.packet = Some(packet.freeze());
                    return;
                }
                Err(packet) => {
                    self.linear.gather(&packet);
                    self.packet = Some(packet);
                    self.drop_held(tx);
                }
            }
        } else if let Some(CopiedTo::Linear(from)) = self.copied {
            before = from;
        }
        write(self.linear.contents_mut().get_mut(before..).unwrap_or_default());
        self.copied = Some(CopiedTo::Linear(before + count));
    }

    /// The bytes of a frame that has come.
    fn arrived(&self) -> &[u8] {
        arrived::<N>(&self.packet, &self.copied, &self.linear)
    }

    /// An answer that waits says an address that may be another now.
    pub(in crate::phy) fn forget_answer(&mut self) {
        self.answer = None;
    }

    /// Whether no answer waits for room any more.
    #[cold]
    pub(super) fn send_answer(&mut self, tx: &mut Transmit<N>) -> bool {
        let Some(answer) = &self.answer else { return true };
        let token = match tx.token() {
            Ok(token) => token,
            Err(want) => {
                self.held_back += 1;
                self.wants_room = want == Want::Room;
                return false;
            }
        };
        let bytes = answer.bytes();
        token.consume(bytes.len(), |frame| frame.copy_from_slice(bytes));
        self.answer = None;
        self.answered += 1;
        true
    }
}

fn is_for(own: &Own, frame: &[u8]) -> bool {
    At::new(frame).peek().is_some_and(|header: &Ethernet| own.is_for(header.destination))
}

/// How many bytes of tags a frame has, if it has any and is in no VLAN.
fn priority_tags(frame: &[u8]) -> Option<usize> {
    let layout = Layout::at_start(frame, frame.len()).ok().filter(|layout| layout.tags > 0)?;
    let mut tags = (ETHERNET_HEADER..layout.network).step_by(VLAN_TAG);
    let is_in_none = tags.all(|at| frame.read(at).is_some_and(|tag: U16| tag.get() & VLAN == 0));
    is_in_none.then_some(layout.network - ETHERNET_HEADER)
}

/// What a packet over IPv6 carries that has a fragment header, right behind the first, and is whole.
fn whole_in_a_fragment(frame: &[u8]) -> Option<Protocol> {
    let layout = Layout::at_start(frame, frame.len()).ok().filter(|layout| layout.tags == 0)?;
    let ip = layout.ip.filter(|ip| !ip.v4 && ip.part.is_none())?;
    let header: Ipv6 = frame.read(layout.network)?;
    let is_first = header.next_header == Protocol::FRAGMENT;
    let next = frame.read(layout.network + size_of::<Ipv6>());
    next.filter(|_| is_first && ip.extensions.has(Extensions::FRAGMENT))
}

/// Moves the first `len` bytes of a frame over the `count` behind them.
fn move_up(frame: &mut [u8], len: usize, count: usize) {
    if frame.len() >= len + count {
        frame.copy_within(..len, count);
    }
}
