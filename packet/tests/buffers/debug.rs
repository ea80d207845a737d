//! What `{:?}` says: lengths and states, never what is in a packet; of any device, with no bound on it.

use core::error::Error;
use core::fmt::Debug;

use packet_views::buffer::{AnyPacket, HeapBlock, SharedHeapBlock};
use packet_views::copying::{Copying, RawIo};
use packet_views::device::{NetDevice, PacketMutOf, PacketOf, SendError, SendErrorKind, Token};
use packet_views::header::{At, Ethernet, Source};

/// A frame of IPv4 and UDP; 173 is not a length of anything in it.
fn frame() -> Vec<u8> {
    let mut frame = vec![173; 60];
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    frame[38..40].copy_from_slice(&26u16.to_be_bytes());
    frame
}

#[test]
fn no_byte_of_a_packet_is_printed() {
    let frame = frame();
    let at = At::new(&frame[..]);
    let (_, network) = at.open().unwrap();
    let shown = [
        format!("{:?}", AnyPacket::from(&frame[..])),
        format!("{at:?}"),
        format!("{network:?}"),
        format!("{:?}", HeapBlock::new(60)),
    ];
    for text in &shown {
        assert!(text.contains("60") || text.contains("46"), "{text} says no length");
        assert!(!text.contains("173") && !text.contains("0, 0"), "{text}");
    }
    assert_eq!(shown[1], "At(60 bytes)");
}

/// A device whose lower end has nothing to show.
struct NoIo;

impl RawIo for NoIo {
    fn recv(&mut self, _: &mut [u8]) -> Option<usize> {
        None
    }

    fn send(&mut self, _: &[u8]) -> bool {
        false
    }
}

/// Compiled for a device of which nothing is known.
fn is_shown<T: Debug + ?Sized>() {}

fn all_of<'a, N: NetDevice + 'a, V: Source, Io>() {
    is_shown::<PacketOf<N>>();
    is_shown::<PacketMutOf<N>>();
    is_shown::<SendError<PacketMutOf<N>>>();
    is_shown::<Token<N::Permit<'a>>>();
    is_shown::<At<Ethernet, V>>();
    is_shown::<Copying<Io>>();
    is_shown::<SharedHeapBlock>();
    #[cfg(feature = "smoltcp")]
    is_shown::<packet_views::phy::Device<N>>();
}

#[test]
fn everything_is_shown_without_a_bound() {
    all_of::<&mut Copying<NoIo>, &[u8], ()>();
}

/// An error says its part, and its source the rest: printed one after another nothing comes twice.
#[test]
fn an_error_does_not_repeat_its_source() {
    use packet_views::header::checksum::ChecksumError;
    let why = SendErrorKind::Checksum(ChecksumError::Unknown);
    let error = SendError::<()>::Refused(why);
    assert_eq!(error.to_string(), "the blank checksum can't be filled in");
    let source = error.source().unwrap();
    assert_eq!(source.to_string(), ChecksumError::Unknown.to_string());
    assert!(source.source().is_none());
    assert!(SendError::Full(()).source().is_none() && SendErrorKind::NoMemory.source().is_none());
}
