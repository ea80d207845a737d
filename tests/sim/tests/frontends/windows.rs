//! Windows (xenvif): goes by the backend's state alone, through a close cycle if it finds it connected; receive
//! keys first; headers copied into a request of their own, the payload where it lies.

use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, INIT_WAIT, INITIALISING, Manner, Sends,
    Step, When, exact_flags,
};
use super::slots::{Cut, Ids, contiguous, headers, somewhere};

pub const WINDOWS: Frontend = Frontend {
    name: "Windows",
    connect: &[
        // `FrontendPrepare`
        Step::Cycle {
            until: INIT_WAIT,
            answers: &[(CLOSED, INITIALISING), (CONNECTED, CLOSING), (CLOSING, CLOSED)],
        },
        // `FrontendConnect`
        Step::Rings,
        Step::Begin,
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-sg", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::Remove("feature-gso-tcpv4-prefix"),
        Step::Set("feature-gso-tcpv4", "1"),
        Step::Remove("feature-gso-tcpv6-prefix"),
        Step::Set("feature-gso-tcpv6", "1"),
        Step::Set("feature-no-csum-offload", "0"),
        Step::Set("feature-ipv6-csum-offload", "1"),
        Step::Queue(&["rx-ring-ref", "event-channel-rx"]),
        Step::Queue(&["tx-ring-ref", "event-channel-tx"]),
        Step::Queues(When::Always),
        Step::Commit,
        Step::Cycle { until: CONNECTED, answers: &[(INIT_WAIT, CONNECTED), (CLOSING, CLOSED)] },
        // `ReceiverEnable`
        Step::Post,
        Step::Up,
    ],
    close: CLOSE,
    // Told by `online`, it asks to be ejected, and closes.
    when_closing: CLOSE,
    when_closed: &[Step::Down, Step::Free],
    recover: &[],
    manner: Manner {
        split: true,
        // `XENVIF_TRANSMITTER_MAXIMUM_FRAGMENT_ID`
        tx_ids: Ids::Stack { first: 0x3ff, last: 0 },
        rx_ids: Ids::Slot,
        cut,
        buffers: Buffers::Anew,
        tx_flags: exact_flags,
        later_flags: 0,
        tx_most: 256,
        batches: true,
        collects: false,
        tx_event: Ahead::Next,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: true,
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

/// `FrontendClose`: also from a backend that only waits.
const CLOSE: &[Step] = &[
    Step::Down,
    Step::Cycle {
        until: CLOSED,
        answers: &[(CONNECTED, CLOSING), (INIT_WAIT, CLOSING), (CLOSING, CLOSED)],
    },
    Step::Free,
];

/// Headers, then the payload; what takes too many requests is copied into whole pages.
pub fn cut(bytes: &[u8]) -> Vec<Cut> {
    let head = headers(bytes);
    let payload = |at| contiguous(at, bytes.len() - head);
    let mut cuts = vec![Cut::new(0, head)];
    let granted = payload(somewhere(bytes, 4096));
    cuts.extend(if granted.len() > 17 { payload(0) } else { granted });
    cuts
}

frontend_tests! {
    WINDOWS:
    frontend_windows_connects => connects,
    frontend_windows_carries_traffic => carries_traffic,
    frontend_windows_closes_and_connects_again => closes_and_connects_again,
    frontend_windows_is_detached => is_detached,
    frontend_windows_is_restored => is_restored,
    frontend_windows_comes_anew => comes_anew,
    frontend_windows_sleeps_and_wakes => sleeps_and_wakes,
    frontend_windows_writes_its_keys_again => writes_its_keys_again,
    #[ignore = "a feature key rewritten while connected ends the connection for good"]
    frontend_windows_changes_features_while_connected => changes_features_while_connected,
}
