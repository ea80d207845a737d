//! MirageOS: frames in halves of pages that stay granted, so that one reference is in flight twice; receive ids that
//! count through all of 16 bits; nothing sent or posted before the backend is connected; closed without closing.

use super::script::{
    Ahead, Buffers, CLOSED, CONNECTED, Frontend, GONE, Manner, Sends, Step, no_flags,
};
use super::slots::{Cut, Ids};

pub const MIRAGE: Frontend = Frontend {
    name: "MirageOS",
    connect: &[
        Step::Rings,
        Step::Begin,
        Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
        Step::Set("feature-sg", "1"),
        Step::Set("feature-gso-tcpv4", "1"),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-rx-flip", "0"),
        Step::Set("feature-rx-notify", "1"),
        Step::Set("feature-smart-poll", "0"),
        Step::Commit,
        Step::State(CONNECTED),
        Step::Await(&[CONNECTED]),
        // `listen`
        Step::Up,
        Step::Post,
    ],
    close: &[Step::Down, Step::State(CLOSED), Step::Await(&[CLOSED, GONE]), Step::Free],
    when_closing: &[],
    when_closed: &[],
    recover: &[],
    manner: Manner {
        split: false,
        tx_ids: Ids::Buffer,
        rx_ids: Ids::Counting(65_000),
        cut,
        buffers: Buffers::Halves,
        tx_flags: no_flags,
        later_flags: 0,
        tx_most: 256,
        batches: false,
        collects: false,
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
        blank_v4: false,
        blank_v6: false,
        gso_v4: false,
        gso_v6: false,
        chains: true,
    },
    receives: 9014,
};

fn cut(bytes: &[u8]) -> Vec<Cut> {
    bytes.chunks(2048).map(|part| Cut::new(0, part.len())).collect()
}

frontend_tests! {
    MIRAGE:
    frontend_mirage_connects => connects,
    frontend_mirage_carries_traffic => carries_traffic,
    frontend_mirage_is_detached => is_detached,
    frontend_mirage_is_restored => is_restored,
    #[ignore = "a frontend that writes Connected over an old connection, with new rings, is shut for good"]
    frontend_mirage_comes_anew => comes_anew,
    frontend_mirage_sleeps_and_wakes => sleeps_and_wakes,
    frontend_mirage_writes_its_keys_again => writes_its_keys_again,
    #[ignore = "a feature key rewritten while connected ends the connection for good"]
    frontend_mirage_changes_features_while_connected => changes_features_while_connected,
    #[ignore = "a closed backend does not connect a frontend that says Connected without Initialising"]
    frontend_mirage_connects_to_a_closed_backend => connects_to_a_closed_backend,
}
