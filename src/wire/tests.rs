//! Any words are some message, and what a message says survives being written and read again.

use alloc::vec::Vec;
use core::fmt::Debug;

use proptest::prelude::*;

use super::control::{Ctrl, CtrlError, CtrlRequest, CtrlResponse, CtrlStatus, Gref, GrefList};
use super::control::{HashAlgorithm, HashType};
use super::*;

/// Reads words, writes the message, and compares: all bits but those that are padding are kept.
fn kept<W: Wire<Words = [u32; N]> + Copy + Debug + PartialEq, const N: usize>(
    words: [u32; N],
    padding: [u32; N],
) -> Result<(), TestCaseError> {
    let message = W::from_words(words);
    let written = message.to_words();
    for ((word, written), padding) in words.into_iter().zip(written).zip(padding) {
        prop_assert_eq!(written, word & !padding, "{:?}", message);
    }
    prop_assert_eq!(W::from_words(written), message);
    Ok(())
}

/// Extras, the known kinds often, with data that often makes sense.
fn extras() -> impl Strategy<Value = Extra> {
    let number = || prop_oneof![0..6_u8, any::<u8>()];
    let data = (number(), number(), number(), any::<[u8; 3]>());
    (number(), any::<u8>(), data).prop_map(|(kind, flags, (a, b, c, [d, e, f]))| Extra {
        kind,
        flags,
        data: [a, b, c, d, e, f],
    })
}

/// Control requests, the known types often, with numbers at and about the limits.
fn requests() -> impl Strategy<Value = CtrlRequest> {
    let number = || prop_oneof![0..4_u32, 30..50_u32, 120..140_u32, 500..520_u32, any::<u32>()];
    let kind = prop_oneof![0..12_u16, any::<u16>()];
    (any::<u16>(), kind, [number(), number(), number()]).prop_map(|(id, kind, data)| CtrlRequest {
        id,
        kind,
        data,
    })
}

proptest! {
    #[test]
    fn any_words_are_a_message(words in any::<[u32; 4]>()) {
        let [a, b, c, _] = words;
        kept::<TxRequest, 3>([a, b, c], [0; 3])?;
        kept::<TxResponse, 1>([a], [0])?;
        kept::<TxSlot, 3>([a, b, c], [0; 3])?;
        kept::<RxRequest, 2>([a, b], [0xffff_0000, 0])?;
        kept::<RxResponse, 2>([a, b], [0; 2])?;
        kept::<RxSlot, 2>([a, b], [0; 2])?;
        kept::<Extra, 2>([a, b], [0; 2])?;
        kept::<CtrlRequest, 4>(words, [0; 4])?;
        kept::<CtrlResponse, 3>([a, b, c], [0; 3])?;
        kept::<Gref, 2>([a, b], [0; 2])?;
    }

    /// An extra says one thing at most, and what it says is what is written again.
    #[test]
    fn extras_say_what_they_are(extra in extras()) {
        let gso = extra.gso().map(Extra::from_gso);
        let multicast = extra.multicast().map(Extra::from_multicast);
        let hash = extra.hash().map(Extra::from_hash);
        let xdp = extra.xdp_headroom().map(Extra::from_xdp_headroom);
        let said: Vec<Extra> = [gso, multicast, hash, xdp].into_iter().flatten().collect();
        prop_assert!(said.len() <= 1);
        let Some(said) = said.first() else { return Ok(()) };
        prop_assert_eq!(said.kind, extra.kind);
        // All but what pads the kind's data.
        let meant = match extra.kind {
            Extra::GSO => 3,
            Extra::XDP => 2,
            _ => 6,
        };
        prop_assert_eq!(&said.data[..meant], &extra.data[..meant]);
        prop_assert_eq!(said.gso(), extra.gso());
        prop_assert_eq!(said.multicast(), extra.multicast());
        prop_assert_eq!(said.hash(), extra.hash());
        prop_assert_eq!(said.xdp_headroom(), extra.xdp_headroom());
    }

    #[test]
    fn control_requests_are_understood_or_refused(request in requests(), queues in 0..5_u32) {
        match request.parse(queues) {
            Ok(ctrl) => {
                let again = CtrlRequest::new(request.id, ctrl);
                prop_assert_eq!(again.parse(queues), Ok(ctrl));
                prop_assert_eq!((again.id, again.kind), (request.id, request.kind));
                // Words that say nothing are zero now, the others are what they were.
                for (again, word) in again.data.into_iter().zip(request.data) {
                    prop_assert!(again == word || again == 0);
                }
            }
            Err(bad) => {
                let known = (1..=10).contains(&request.kind);
                prop_assert_eq!(bad != CtrlError::UnknownType(request.kind), known);
                let answer = request.answer(bad.status(), 0);
                prop_assert_eq!((answer.id, answer.kind), (request.id, request.kind));
                prop_assert_eq!(answer.status(), Some(bad.status()));
                prop_assert_ne!(answer.status(), Some(CtrlStatus::Success));
            }
        }
    }
}

/// Each length and index at its limit, and one beyond.
#[test]
fn control_requests_at_their_limits() {
    let list = |queue, len| GrefList { queue, gref: 9, len };
    let good = [
        Ctrl::GetHashFlags,
        Ctrl::SetHashFlags(0),
        Ctrl::SetHashFlags(0xf),
        Ctrl::SetHashKey { gref: u32::MAX, len: 0 },
        Ctrl::SetHashKey { gref: 0, len: 40 },
        Ctrl::GetHashMappingSize,
        Ctrl::SetHashMappingSize(128),
        Ctrl::SetHashMapping { gref: 9, len: 128, offset: 0 },
        Ctrl::SetHashMapping { gref: 9, len: 1, offset: 127 },
        Ctrl::SetHashAlgorithm(HashAlgorithm::None),
        Ctrl::SetHashAlgorithm(HashAlgorithm::Toeplitz),
        Ctrl::GetGrefMappingSize { queue: 1 },
        Ctrl::AddGrefMapping(list(1, 512)),
        Ctrl::DelGrefMapping(list(0, 1)),
    ];
    for ctrl in good {
        assert_eq!(CtrlRequest::new(7, ctrl).parse(2), Ok(ctrl));
    }
    let bad = [
        (Ctrl::SetHashFlags(0x10), CtrlError::Invalid),
        (Ctrl::SetHashKey { gref: 9, len: 41 }, CtrlError::TooLarge),
        (Ctrl::SetHashMappingSize(129), CtrlError::Invalid),
        (Ctrl::SetHashMapping { gref: 9, len: 129, offset: 0 }, CtrlError::TooLarge),
        (Ctrl::SetHashMapping { gref: 9, len: 1, offset: 128 }, CtrlError::TooLarge),
        (Ctrl::SetHashMapping { gref: 9, len: 2, offset: u32::MAX }, CtrlError::TooLarge),
        (Ctrl::GetGrefMappingSize { queue: 2 }, CtrlError::Invalid),
        (Ctrl::AddGrefMapping(list(2, 1)), CtrlError::Invalid),
        (Ctrl::AddGrefMapping(list(1, 513)), CtrlError::Invalid),
        (Ctrl::DelGrefMapping(list(0, u32::MAX)), CtrlError::Invalid),
    ];
    for (ctrl, why) in bad {
        assert_eq!(CtrlRequest::new(7, ctrl).parse(2), Err(why), "{ctrl:?}");
    }
    let raw = |kind, first| CtrlRequest { id: 7, kind, data: [first, 0, 0] }.parse(2);
    assert_eq!(raw(CtrlRequest::SET_HASH_ALGORITHM, 2), Err(CtrlError::Invalid));
    for kind in [CtrlRequest::INVALID, 11, u16::MAX] {
        assert_eq!(raw(kind, 0), Err(CtrlError::UnknownType(kind)));
    }
    let gref = |flags| Gref { gref: 9, flags, status: 0xffff }.read_only();
    assert_eq!([gref(0), gref(1)], [Ok(false), Ok(true)]);
    assert_eq!([gref(2), gref(3)], [Err(CtrlError::Invalid); 2]);
    assert_eq!(CtrlRequest::new(7, Ctrl::GetHashFlags).answer(CtrlStatus::Success, 5).data, 5);
    let odd = CtrlResponse { id: 7, kind: 1, status: 4, data: 0 };
    assert_eq!(odd.status(), None);
}

#[test]
fn extras_that_make_no_sense_say_nothing() {
    let extra = |kind, data| Extra { kind, flags: 0, data };
    for address in [[0; 6], [0xfe, 1, 1, 1, 1, 1]] {
        assert_eq!(extra(Extra::MCAST_ADD, address).multicast(), None, "not a group's");
    }
    let group = [1, 0, 0x5e, 0, 0, 1];
    assert_eq!(extra(Extra::MCAST_DEL, group).multicast(), Some(Multicast::Del(group)));
    assert_eq!(extra(Extra::HASH, [4, 1, 0, 0, 0, 0]).hash(), None);
    assert_eq!(extra(Extra::HASH, [3, 2, 0, 0, 0, 0]).hash(), None);
    let hash = Hash { kind: HashType::Ipv6Tcp, algorithm: HashAlgorithm::Toeplitz, value: 0x1234 };
    assert_eq!(extra(Extra::HASH, [3, 1, 0x34, 0x12, 0, 0]).hash(), Some(hash));
    assert_eq!(extra(Extra::XDP, [0xff, 0x7f, 9, 9, 9, 9]).xdp_headroom(), Some(0x7fff));
    assert_eq!(extra(Extra::XDP, [0, 0x80, 0, 0, 0, 0]).xdp_headroom(), None);
}
