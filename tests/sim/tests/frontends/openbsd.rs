//! OpenBSD: no look at anybody's state, keys one by one and 4 at once, no pages until `ifconfig up`, and one id
//! for all requests of an mbuf that crosses a page.

use super::script::{Ahead, Buffers, CONNECTED, Frontend, Manner, Sends, Step, no_flags};
use super::slots::{Cut, Ids, contiguous, headers, somewhere};

pub const OPENBSD: Frontend = Frontend {
    name: "OpenBSD",
    connect: &[
        Step::Rings,
        Step::Queue(&["rx-ring-ref"]),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::Queue(&["tx-ring-ref"]),
        Step::SetIfOffered("feature-sg"),
        Step::Set("feature-no-csum-offload", "1"),
        Step::Queue(&["event-channel"]),
        Step::State(CONNECTED),
        // `xnf_init`
        Step::Post,
        Step::Up,
    ],
    // All that it ever does is to mask its interrupt.
    close: &[Step::Down],
    when_closing: &[],
    when_closed: &[],
    recover: &[],
    manner: Manner {
        split: false,
        tx_ids: Ids::Counting(0),
        rx_ids: Ids::Slot,
        cut,
        buffers: Buffers::Anew,
        tx_flags: no_flags,
        later_flags: 0,
        tx_most: 256,
        batches: true,
        collects: false,
        tx_event: Ahead::Half,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: true,
        tx_masked: false,
    },
    sends: Sends {
        longest: 9014,
        blank_v4: false,
        blank_v6: false,
        gso_v4: false,
        gso_v6: false,
        chains: true,
    },
    receives: 9014,
};

/// Two mbufs, either of which may cross pages: requests of one mbuf have one id.
pub fn cut(bytes: &[u8]) -> Vec<Cut> {
    let head = headers(bytes);
    let mbuf = |at, len| {
        let number = |(number, cut)| Cut { same_id: number > 0, ..cut };
        contiguous(at, len).into_iter().enumerate().map(number)
    };
    let first = mbuf(somewhere(bytes, 4096), head);
    first.chain(mbuf(somewhere(&bytes[1..], 4096), bytes.len() - head)).collect()
}

frontend_tests! {
    OPENBSD:
    frontend_openbsd_connects => connects,
    frontend_openbsd_carries_traffic => carries_traffic,
    frontend_openbsd_is_detached => is_detached,
    frontend_openbsd_is_restored => is_restored,
    #[ignore = "a frontend that writes Connected over an old connection, with new rings, is shut for good"]
    frontend_openbsd_comes_anew => comes_anew,
    frontend_openbsd_sleeps_and_wakes => sleeps_and_wakes,
    frontend_openbsd_writes_its_keys_again => writes_its_keys_again,
    #[ignore = "a feature key rewritten while connected ends the connection for good"]
    frontend_openbsd_changes_features_while_connected => changes_features_while_connected,
    #[ignore = "a closed backend does not connect a frontend that says Connected without Initialising"]
    frontend_openbsd_connects_to_a_closed_backend => connects_to_a_closed_backend,
}
