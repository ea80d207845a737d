//! Unikraft: pages posted one by one before anybody knows of the ring, all keys and the state in one transaction,
//! no word of scatter-gather, checksums or notifications, references that stay open and are pointed elsewhere.

use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, INIT_WAIT, INITIALISING, Manner, Sends,
    Step, When, exact_flags,
};
use super::slots::{Cut, Ids};

pub const UNIKRAFT: Frontend = Frontend {
    name: "Unikraft",
    connect: &[
        Step::Rings,
        Step::Post,
        Step::Begin,
        Step::Queues(When::Always),
        Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
        Step::Set("request-rx-copy", "1"),
        Step::State(CONNECTED),
        Step::Commit,
        Step::Await(&[CONNECTED]),
        Step::Up,
    ],
    close: &[
        Step::Down,
        Step::State(CLOSING),
        Step::Await(&[CLOSING, CLOSED]),
        Step::State(CLOSED),
        Step::Await(&[CLOSED]),
        Step::State(INITIALISING),
        Step::Await(&[INIT_WAIT]),
        Step::Remove("tx-ring-ref"),
        Step::Remove("rx-ring-ref"),
        Step::Remove("event-channel-tx"),
        Step::Remove("event-channel-rx"),
        Step::Free,
    ],
    when_closing: &[],
    when_closed: &[],
    recover: &[],
    manner: Manner {
        split: true,
        tx_ids: Ids::Stack { first: 255, last: 0 },
        rx_ids: Ids::Slot,
        cut: |bytes| vec![Cut::new(64, bytes.len())],
        buffers: Buffers::Repointed,
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
        masked: true,
        tx_masked: true,
    },
    sends: Sends {
        longest: 1514,
        blank_v4: true,
        blank_v6: false,
        gso_v4: false,
        gso_v6: false,
        chains: false,
    },
    receives: 1514,
};

frontend_tests! {
    UNIKRAFT:
    frontend_unikraft_connects => connects,
    frontend_unikraft_carries_traffic => carries_traffic,
    frontend_unikraft_closes_and_connects_again => closes_and_connects_again,
    frontend_unikraft_is_detached => is_detached,
    frontend_unikraft_is_restored => is_restored,
    #[ignore = "a frontend that writes Connected over an old connection, with new rings, is shut for good"]
    frontend_unikraft_comes_anew => comes_anew,
    frontend_unikraft_sleeps_and_wakes => sleeps_and_wakes,
    frontend_unikraft_writes_its_keys_again => writes_its_keys_again,
    #[ignore = "a feature key rewritten while connected ends the connection for good"]
    frontend_unikraft_changes_features_while_connected => changes_features_while_connected,
}
