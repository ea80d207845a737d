//! What a frontend is, as a table.

use xen_netfront::wire::tx_flags;

use super::slots::{Cut, Ids};

pub const INITIALISING: u32 = 1;
pub const INIT_WAIT: u32 = 2;
pub const CONNECTED: u32 = 4;
pub const CLOSING: u32 = 5;
pub const CLOSED: u32 = 6;
/// What a frontend reads of a backend whose directory is gone.
pub const GONE: u32 = 0;

/// A step of a script.
#[derive(Debug)]
pub enum Step {
    /// Waits until the backend's state is one of these.
    Await(&'static [u32]),
    /// Does these unless the backend's state is one of those.
    Unless(&'static [u32], &'static [Step]),
    /// Waits for the state `until`; answers each other state that it sees with one of its own.
    Cycle {
        until: u32,
        answers: &'static [(u32, u32)],
    },
    /// Makes rings and event channels, and grants the rings.
    Rings,
    /// Makes receive requests, as many as this frontend keeps.
    Post,
    /// Sends an event on every channel, whether anybody wants one or not.
    Notify,
    Begin,
    Commit,
    /// Writes these keys of each queue: `event-channel` is two of them if channels are split.
    Queue(&'static [&'static str]),
    /// Writes `multi-queue-num-queues`.
    Queues(When),
    Set(&'static str, &'static str),
    /// Writes the key if the backend's directory has the same as `1`.
    SetIfOffered(&'static str),
    /// Removes a key, which need not be there.
    Remove(&'static str),
    State(u32),
    /// The interface is up: events get through, packets may be sent.
    Up,
    /// The interface is down: its events are masked.
    Down,
    /// Ends all grants, which nobody may be using any more, and closes the channels.
    Free,
}

/// When a frontend says how many queues it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// If the backend offers several.
    Offered,
    /// If it has several.
    Several,
}

/// How far ahead a frontend asks for the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// At the next response.
    Next,
    /// When half of what is in flight is answered.
    Half,
    /// It never says: it polls, or looks when it has something to send.
    Never,
}

/// Where a frontend's data lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// In a page granted for one request.
    Anew,
    /// In halves of pages that stay granted.
    Halves,
    /// In a page of its own, by a reference that stays open and is pointed elsewhere for the next request.
    Repointed,
}

/// What a packet's checksum is, as its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    Blank,
    There,
}

/// What a frontend does with its rings.
#[derive(Clone, Copy)]
pub struct Manner {
    /// Separate channels for both rings if the backend offers that.
    pub split: bool,
    pub tx_ids: Ids,
    pub rx_ids: Ids,
    /// How a packet is cut into requests.
    pub cut: fn(&[u8]) -> Vec<Cut>,
    pub buffers: Buffers,
    /// Flags of a packet's first request beside those that follow from its shape.
    pub tx_flags: fn(Sum) -> u16,
    /// Flags of its further ones.
    pub later_flags: u16,
    /// The most requests in flight.
    pub tx_most: u32,
    /// Publishes what it has to send at once, not packet by packet.
    pub batches: bool,
    /// Takes responses after it has sent, not only when an event came.
    pub collects: bool,
    pub tx_event: Ahead,
    pub rx_event: Ahead,
    /// Requests that it keeps posted.
    pub rx_fill: u32,
    /// How many must be missing before it posts again.
    pub rx_refill: u32,
    /// Looks at its rings without an event.
    pub polls: bool,
    /// Its channels are masked until it is up.
    pub masked: bool,
    /// Events of its transmit ring are never unmasked.
    pub tx_masked: bool,
}

/// What a frontend sends, if the backend takes it.
#[derive(Clone, Copy)]
pub struct Sends {
    /// Bytes of its longest plain packet.
    pub longest: usize,
    pub blank_v4: bool,
    pub blank_v6: bool,
    pub gso_v4: bool,
    pub gso_v6: bool,
    /// Whether more than one request a packet.
    pub chains: bool,
}

pub struct Frontend {
    pub name: &'static str,
    /// From the start of its driver until packets flow.
    pub connect: &'static [Step],
    /// Leaves of its own will, so that it can connect again.
    pub close: &'static [Step],
    /// What it does when it sees the backend closing.
    pub when_closing: &'static [Step],
    /// What it does when the backend has closed, or its directory is gone.
    pub when_closed: &'static [Step],
    /// What a kernel that has just booted does before `connect` about a vif that somebody else used.
    pub recover: &'static [Step],
    pub manner: Manner,
    pub sends: Sends,
    /// Bytes of the longest packet that it can receive without GSO.
    pub receives: usize,
}

/// Flags of a frontend that says of its sums what is so.
pub fn exact_flags(sum: Sum) -> u16 {
    match sum {
        Sum::Blank => tx_flags::CSUM_BLANK | tx_flags::DATA_VALIDATED,
        Sum::There => 0,
    }
}

/// Flags of one that says nothing.
pub fn no_flags(_: Sum) -> u16 {
    0
}
