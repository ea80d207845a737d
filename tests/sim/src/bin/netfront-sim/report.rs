//! What a run has come to: one JSON object, or the table of `table.rs`.

use core::time::Duration;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::agreement::Agreement;
use crate::args::Args;
use crate::findings::{Findings, OfClient, Transfer};
use crate::hostile::{LIMIT, Record};
use crate::replay::link_name;
use crate::table::Table;

/// A run's results. Everything in the JSON object is the same for the same options, so the wall
/// clock is not in there, except for domains on threads.
///
/// Figures per packet are of the time between warm-up and the end; of a replay, which has none, from
/// the first packet on. The others are of the whole run. Copies are of payload, by this project's crates; what is gathered for a stack that wants
/// one slice counts as linearised, and what the hypervisor copies as grant copies. Allocations are
/// of driver, adaptor and stack together. Hypercalls leave events out, which have a figure of
/// their own.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub(super) ok: bool,
    /// What is not as it should be, if anything.
    pub(super) problems: Vec<String>,
    pub(super) seed: u64,
    pub(super) domains: u8,
    pub(super) mtu: usize,
    /// What was asked for, if that is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mtu_asked: Option<usize>,
    pub(super) trusted: bool,
    #[serde(flatten)]
    pub(super) agreed: Agreement,
    /// Large packets, both ways.
    pub(super) large_packets: u64,
    /// Packets that the clients sent with a blank checksum.
    pub(super) blank_checksums: u64,
    /// Packets that the clients' drivers made fit in software for a backend that takes less.
    pub(super) offloads_in_software: u64,
    pub(super) bytes: u64,
    pub(super) uploaded_bytes: u64,
    pub(super) downloaded_bytes: u64,
    pub(super) packets: u64,
    pub(super) threads: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) virtual_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) real_seconds: Option<f64>,
    pub(super) mbit_per_s: f64,
    /// Packets that the figures per packet are of.
    pub(super) measured_packets: u64,
    pub(super) front_slots_per_packet: f64,
    pub(super) front_copies_per_packet: f64,
    pub(super) front_allocations_per_packet: f64,
    pub(super) front_grant_copies_per_packet: f64,
    pub(super) front_hypercalls_per_packet: f64,
    pub(super) front_events_per_packet: f64,
    pub(super) front_grants_per_packet: f64,
    pub(super) front_clears_per_packet: f64,
    pub(super) back_slots_per_packet: f64,
    pub(super) back_copies_per_packet: f64,
    pub(super) back_allocations_per_packet: f64,
    pub(super) back_grant_copies_per_packet: f64,
    pub(super) back_hypercalls_per_packet: f64,
    pub(super) back_events_per_packet: f64,
    pub(super) back_grants_per_packet: f64,
    pub(super) back_clears_per_packet: f64,
    pub(super) linearised_bytes: u64,
    pub(super) back_linearised_bytes: u64,
    pub(super) drops: u64,
    pub(super) drops_by_reason: BTreeMap<&'static str, u64>,
    pub(super) quarantined_pages: usize,
    /// Pages that were in quarantine at some time.
    pub(super) quarantined_ever: u64,
    pub(super) reconnects: u64,
    pub(super) attacks: u64,
    pub(super) attacks_by_kind: BTreeMap<&'static str, u64>,
    pub(super) attacks_with_reconnect: u64,
    pub(super) longest_outage_ms: f64,
    pub(super) longest_outage_kind: &'static str,
    pub(super) longest_stall_ms: f64,
    /// The packets of the file that was replayed, and the bytes of the longest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_packets: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_longest: Option<usize>,
    /// Packets that the file has besides: other link types; those that were cut when they were
    /// captured, and the numbers of the first ten; the one within which it ends. Packets that had a
    /// frame check sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_left_out: Option<BTreeMap<String, usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_cut: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_cut_first: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_ends_within: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_without_fcs: Option<usize>,
    /// Packets in the file that was written, and how many of them came with a blank checksum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) captured_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) captured_filled_in: Option<u64>,
    /// It was told to end before all was done.
    pub(super) interrupted: bool,
    pub(super) clients: Vec<ClientReport>,
}

/// The results of one client.
#[derive(Clone, Debug, Serialize)]
pub struct ClientReport {
    pub(super) uploaded_bytes: u64,
    pub(super) downloaded_bytes: u64,
    pub(super) packets: u64,
    pub(super) reconnects: u64,
    pub(super) attacks: u64,
}

impl ClientReport {
    fn new(found: &OfClient) -> ClientReport {
        ClientReport {
            uploaded_bytes: found.upload.received.bytes,
            downloaded_bytes: found.download.received.bytes,
            packets: found.packets,
            reconnects: found.connects.saturating_sub(1),
            attacks: found.attacks.as_ref().map_or(0, Record::attacks),
        }
    }
}

impl Report {
    /// The results of a run with these options.
    pub fn new(args: &Args, found: &Findings) -> Report {
        let problems = problems(args, found);
        let (warm, end) = (&found.warm, &found.end);
        let front = (end.front - warm.front).per_packet();
        let back = (end.back - warm.back).per_packet();
        let clients: Vec<_> = found.clients.iter().map(ClientReport::new).collect();
        let sum = |of: fn(&ClientReport) -> u64| clients.iter().map(of).sum();
        let (up, down): (u64, u64) = (sum(|c| c.uploaded_bytes), sum(|c| c.downloaded_bytes));
        let mut attacks = Record::default();
        found.clients.iter().flat_map(|client| &client.attacks).for_each(|one| attacks.add(one));
        let seconds = found.time.as_secs_f64();
        let replay = found.replay.as_ref();
        Report {
            ok: problems.is_empty(),
            problems,
            seed: args.seed,
            domains: args.domains,
            mtu: found.mtu,
            mtu_asked: args.mtu_if_more(found.mtu).filter(|_| replay.is_none()),
            trusted: args.trusted != 0,
            agreed: end.agreed.or(warm.agreed).into(),
            large_packets: end.offloads.large,
            blank_checksums: end.offloads.blank,
            offloads_in_software: end.offloads.in_software,
            bytes: up + down,
            uploaded_bytes: up,
            downloaded_bytes: down,
            packets: sum(|client| client.packets),
            threads: args.threads,
            virtual_seconds: Some(seconds).filter(|_| !args.threads),
            real_seconds: Some(seconds).filter(|_| args.threads),
            mbit_per_s: megabits(up + down, seconds),
            measured_packets: front.packets,
            front_slots_per_packet: front.slots,
            front_copies_per_packet: front.copies,
            front_allocations_per_packet: front.allocations,
            front_grant_copies_per_packet: front.grant_copies,
            front_hypercalls_per_packet: front.hypercalls,
            front_events_per_packet: front.events,
            front_grants_per_packet: front.grants,
            front_clears_per_packet: front.clears,
            back_slots_per_packet: back.slots,
            back_copies_per_packet: back.copies,
            back_allocations_per_packet: back.allocations,
            back_grant_copies_per_packet: back.grant_copies,
            back_hypercalls_per_packet: back.hypercalls,
            back_events_per_packet: back.events,
            back_grants_per_packet: back.grants,
            back_clears_per_packet: back.clears,
            linearised_bytes: end.linearised_bytes.0,
            back_linearised_bytes: end.linearised_bytes.1,
            drops: end.drops.values().sum(),
            drops_by_reason: end.drops.clone(),
            quarantined_pages: end.quarantined.0,
            quarantined_ever: end.quarantined.1,
            reconnects: sum(|client| client.reconnects),
            attacks: attacks.attacks(),
            attacks_by_kind: attacks.kinds,
            attacks_with_reconnect: attacks.reconnected,
            longest_outage_ms: attacks.longest_outage.0.as_secs_f64() * 1e3,
            longest_outage_kind: attacks.longest_outage.1,
            longest_stall_ms: attacks.longest_stall.as_secs_f64() * 1e3,
            replayed_packets: replay.map(|replay| replay.packets),
            replayed_longest: replay.map(|replay| replay.longest),
            replayed_left_out: replay.map(|replay| {
                let others = replay.left_out.others.iter();
                others.map(|(&link, &count)| (link_name(link), count)).collect()
            }),
            replayed_cut: replay.map(|replay| replay.left_out.cut),
            replayed_cut_first: replay.map(|replay| replay.left_out.cut_first.clone()),
            replayed_ends_within: replay.and_then(|replay| replay.left_out.ends_within),
            replayed_without_fcs: replay.map(|replay| replay.left_out.fcs),
            captured_packets: found.capture.map(|capture| capture.packets),
            captured_filled_in: found.capture.map(|capture| capture.filled),
            interrupted: found.interrupted,
            clients,
        }
    }

    /// Whether all is as it should be.
    pub fn ok(&self) -> bool {
        self.ok
    }

    /// The JSON object, on one line.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// What is not as it should be.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The table, for so many columns. `wall` is how long this machine took.
    pub fn table(&self, wall: Duration, width: Option<usize>) -> Table<'_> {
        Table::new(self, wall, width)
    }
}

/// What is not as it should be.
fn problems(args: &Args, found: &Findings) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, client) in (1..).zip(&found.clients) {
        let whose = if args.domains > 1 { format!("client {number}: ") } else { String::new() };
        let wanted = args
            .bytes()
            .filter(|_| args.seconds.is_none() && found.replay.is_none() && !found.interrupted);
        for (name, transfer) in [("upload", &client.upload), ("download", &client.download)] {
            problems.extend(wrong(&format!("{whose}{name}"), transfer));
            if wanted.is_some_and(|bytes| bytes != transfer.received.bytes) {
                problems.push(format!("{whose}{name}: {} bytes arrived", transfer.received.bytes));
            }
        }
        if let Some(attacks) = &client.attacks {
            let (outage, kind) = attacks.longest_outage;
            // In real time others want the processor as well.
            let limit = if args.threads { LIMIT * 10 } else { LIMIT };
            if outage > limit {
                problems.push(format!("{whose}cut off for {outage:?} by {kind}"));
            }
        }
    }
    problems.extend(found.complaints.iter().cloned());
    problems
}

fn wrong(name: &str, transfer: &Transfer) -> Option<String> {
    let Transfer { sent, received, first_wrong } = transfer;
    match first_wrong {
        _ if transfer.is_right() => None,
        Some(at) => Some(format!("{name}: byte {at} or one of the seven after it is wrong")),
        None => Some(format!("{name}: sent {sent:?}, received {received:?}")),
    }
}

/// Megabits a second.
pub fn megabits(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 * 8.0 / seconds / 1e6 } else { 0.0 }
}
