//! What either end says about itself in its `state` node.

use xen_store::values::parse_u32;

/// `enum xenbus_state` (xen/io/xenbus.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BusState {
    /// 0, and whatever can't be read or makes no sense.
    #[default]
    Unknown = 0,
    /// 1: starting; as a frontend: ready for a new connection.
    Initialising = 1,
    /// 2: the backend has written what it offers and waits for the frontend's rings.
    InitWait = 2,
    /// 3: waiting for the peer. Network devices do without it.
    Initialised = 3,
    /// 4: as a frontend: rings are published; as a backend: rings are mapped, traffic may flow.
    Connected = 4,
    /// 5: closing, because of an error or an unplug.
    Closing = 5,
    /// 6: closed; a backend in this state has nothing of ours mapped.
    Closed = 6,
    /// 7: being reconfigured.
    Reconfiguring = 7,
    /// 8: reconfigured.
    Reconfigured = 8,
}

impl BusState {
    /// All of them, in order.
    pub const ALL: [BusState; 9] = [
        BusState::Unknown,
        BusState::Initialising,
        BusState::InitWait,
        BusState::Initialised,
        BusState::Connected,
        BusState::Closing,
        BusState::Closed,
        BusState::Reconfiguring,
        BusState::Reconfigured,
    ];

    /// What a node says; [`BusState::Unknown`] for anything that is not a state's number.
    pub fn parse(value: &[u8]) -> BusState {
        parse_u32(value)
            .and_then(|number| usize::try_from(number).ok())
            .and_then(|index| BusState::ALL.get(index).copied())
            .unwrap_or_default()
    }

    /// The number, as it is written to the node.
    pub const fn digit(self) -> &'static str {
        match self {
            BusState::Unknown => "0",
            BusState::Initialising => "1",
            BusState::InitWait => "2",
            BusState::Initialised => "3",
            BusState::Connected => "4",
            BusState::Closing => "5",
            BusState::Closed => "6",
            BusState::Reconfiguring => "7",
            BusState::Reconfigured => "8",
        }
    }
}

impl core::fmt::Display for BusState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_and_nothing_else_is_one() {
        for state in BusState::ALL {
            assert_eq!(BusState::parse(state.digit().as_bytes()), state);
            assert_eq!(state.digit(), alloc::format!("{}", state as u8));
        }
        let garbage: [&[u8]; 10] = [
            b"",
            b"9",
            b"-1",
            b"44",
            b"4 4",
            b"4\x004",
            b"0x4",
            b"\xff\xfe",
            b"four",
            &[b'4'; 4096],
        ];
        for value in garbage {
            assert_eq!(BusState::parse(value), BusState::Unknown, "{value:?}");
        }
        for four in [&b" 4\n"[..], b"4\0", b"04"] {
            assert_eq!(BusState::parse(four), BusState::Connected);
        }
    }
}
