//! Linux: everything in one transaction once the backend waits, rings told of before it is connected, an event
//! for each packet that wants one, both families of GSO.

use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, GONE, INIT_WAIT, INITIALISING, Manner,
    Sends, Step, When, exact_flags,
};
use super::slots::{Cut, Ids, contiguous, headers, somewhere};

pub const LINUX: Frontend = Frontend {
    name: "Linux",
    connect: &[
        Step::State(INITIALISING),
        Step::Await(&[INIT_WAIT]),
        Step::Rings,
        Step::Begin,
        Step::Queues(When::Offered),
        Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::Set("feature-sg", "1"),
        Step::Set("feature-gso-tcpv4", "1"),
        Step::Set("feature-gso-tcpv6", "1"),
        Step::Set("feature-ipv6-csum-offload", "1"),
        Step::Commit,
        // `xennet_connect` kicks the backend, which has not bound the channels yet.
        Step::Notify,
        Step::Post,
        Step::State(CONNECTED),
        Step::Up,
    ],
    // `xennet_bus_close`
    close: &[
        Step::Down,
        Step::State(CLOSING),
        Step::Await(&[CLOSING, CLOSED, GONE]),
        Step::State(CLOSED),
        Step::Await(&[CLOSED, GONE]),
        Step::Free,
    ],
    when_closing: &[Step::Down, Step::State(CLOSED), Step::Await(&[CLOSED, GONE]), Step::Free],
    when_closed: &[Step::Down, Step::State(CLOSED), Step::Free],
    // `xenbus_reset_frontend`: a kernel that was started by another, or after it crashed.
    recover: &[Step::Cycle {
        until: INIT_WAIT,
        answers: &[(CONNECTED, CLOSING), (CLOSING, CLOSED), (CLOSED, INITIALISING)],
    }],
    manner: Manner {
        split: true,
        tx_ids: Ids::Stack { first: 0, last: 255 },
        rx_ids: Ids::Slot,
        cut,
        buffers: Buffers::Anew,
        tx_flags: exact_flags,
        later_flags: 0,
        tx_most: 256,
        batches: false,
        collects: true,
        tx_event: Ahead::Next,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: false,
        tx_masked: false,
    },
    sends: Sends {
        longest: 9014,
        blank_v4: true,
        blank_v6: true,
        gso_v4: true,
        gso_v6: true,
        chains: true,
    },
    receives: 9014,
};

/// The linear part, which may cross a page but has 14 bytes before it does, then fragments of compound
/// pages. What would take more than 18 requests is linearised first.
pub fn cut(bytes: &[u8]) -> Vec<Cut> {
    let head = if bytes.len() <= 256 { bytes.len() } else { headers(bytes) };
    let mut cuts = contiguous(somewhere(bytes, 4096 - 14), head);
    cuts.extend(contiguous(somewhere(&bytes[head / 2..], 4096), bytes.len() - head));
    if cuts.len() > 18 { contiguous(2, bytes.len()) } else { cuts }
}

frontend_tests! {
    LINUX:
    frontend_linux_connects => connects,
    frontend_linux_carries_traffic => carries_traffic,
    frontend_linux_closes_and_connects_again => closes_and_connects_again,
    frontend_linux_is_detached => is_detached,
    frontend_linux_is_restored => is_restored,
    frontend_linux_comes_anew => comes_anew,
    frontend_linux_sleeps_and_wakes => sleeps_and_wakes,
    frontend_linux_writes_its_keys_again => writes_its_keys_again,
    #[ignore = "a feature key rewritten while connected ends the connection for good"]
    frontend_linux_changes_features_while_connected => changes_features_while_connected,
}
