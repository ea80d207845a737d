//! What is printed in the end: a table, or one JSON object.

use core::fmt::{self, Display, Formatter};
use core::time::Duration;
use std::collections::BTreeMap;

use packet_views::features::Features;
use serde::Serialize;

use crate::args::Args;
use crate::findings::{Findings, OfClient, Transfer};
use crate::hostile::{LIMIT, Record};
use crate::replay::link_name;

/// A run's results. Everything in the JSON object is the same for the same options, so the wall
/// clock is not in there, except for domains on threads.
///
/// Figures per packet are of the time between warm-up and the end. The others are of the whole
/// run. Copies are of payload, by this project's crates; what is gathered for a stack that wants
/// one slice counts as linearised, and what the hypervisor copies as grant copies. Allocations are
/// of driver, adaptor and stack together. Hypercalls leave events out, which have a figure of
/// their own.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    ok: bool,
    /// What is not as it should be, if anything.
    problems: Vec<String>,
    seed: u64,
    domains: u8,
    mtu: usize,
    trusted: bool,
    /// Queues of a vif, its channels, and what may be left to the backend, as agreed. Without any
    /// if they never came to an agreement.
    queues: usize,
    split_event_channels: bool,
    scatter_gather: bool,
    checksum_offload: bool,
    gso: bool,
    /// Large packets, both ways.
    large_packets: u64,
    /// Packets that the clients sent with a blank checksum.
    blank_checksums: u64,
    /// Packets that the clients' drivers made fit in software for a backend that takes less.
    offloads_in_software: u64,
    bytes: u64,
    uploaded_bytes: u64,
    downloaded_bytes: u64,
    packets: u64,
    threads: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    real_seconds: Option<f64>,
    mbit_per_s: f64,
    /// Packets that the figures per packet are of.
    measured_packets: u64,
    front_slots_per_packet: f64,
    front_copies_per_packet: f64,
    front_allocations_per_packet: f64,
    front_grant_copies_per_packet: f64,
    front_hypercalls_per_packet: f64,
    front_events_per_packet: f64,
    front_grants_per_packet: f64,
    front_clears_per_packet: f64,
    back_slots_per_packet: f64,
    back_copies_per_packet: f64,
    back_allocations_per_packet: f64,
    back_grant_copies_per_packet: f64,
    back_hypercalls_per_packet: f64,
    back_events_per_packet: f64,
    back_grants_per_packet: f64,
    back_clears_per_packet: f64,
    linearised_bytes: u64,
    back_linearised_bytes: u64,
    drops: u64,
    drops_by_reason: BTreeMap<&'static str, u64>,
    quarantined_pages: usize,
    /// Pages that were in quarantine at some time.
    quarantined_ever: u64,
    reconnects: u64,
    attacks: u64,
    attacks_by_kind: BTreeMap<&'static str, u64>,
    attacks_with_reconnect: u64,
    longest_outage_ms: f64,
    longest_outage_kind: &'static str,
    longest_stall_ms: f64,
    /// The packets of the file that was replayed, and the bytes of the longest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_packets: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_longest: Option<usize>,
    /// Packets that the file has besides: other link types; the one within which it ends. Packets
    /// that had a frame check sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_left_out: Option<BTreeMap<String, usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_ends_within: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_without_fcs: Option<usize>,
    /// Packets in the file that was written, and how many of them came with a blank checksum.
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_filled_in: Option<u64>,
    /// It was told to end before all was done.
    interrupted: bool,
    clients: Vec<ClientReport>,
}

/// The results of one client.
#[derive(Clone, Debug, Serialize)]
struct ClientReport {
    uploaded_bytes: u64,
    downloaded_bytes: u64,
    packets: u64,
    reconnects: u64,
    attacks: u64,
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
        let agreed = end.agreed.or(warm.agreed);
        let features = agreed.map_or(Features::NONE, |agreed| agreed.features);
        let replay = found.replay.as_ref();
        Report {
            ok: problems.is_empty(),
            problems,
            seed: args.seed,
            domains: args.domains,
            mtu: found.mtu,
            trusted: args.trusted != 0,
            queues: agreed.map_or(0, |agreed| agreed.queues),
            split_event_channels: agreed.is_some_and(|agreed| agreed.split),
            scatter_gather: features.scatter_gather,
            checksum_offload: features.checksum_v4,
            gso: features.gso_v4,
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
        Table { report: self, wall, width }
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

fn megabits(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 * 8.0 / seconds / 1e6 } else { 0.0 }
}

/// What a client and its backend have agreed on, in words.
pub struct Agreement {
    /// Queues of the vif; none if they never came to an agreement.
    pub queues: usize,
    /// An event channel for each ring.
    pub split: bool,
    /// Packets of several pages.
    pub scatter_gather: bool,
    /// Checksums are left to the other end.
    pub checksum: bool,
    /// Large packets.
    pub gso: bool,
}

impl Display for Agreement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.queues == 0 {
            return f.write_str("nothing: they were never connected");
        }
        let on = |feature| if feature { "on" } else { "off" };
        let s = if self.queues == 1 { "" } else { "s" };
        write!(f, "{} queue{s}, split channels {}, ", self.queues, on(self.split))?;
        let (sg, checksum, gso) = (on(self.scatter_gather), on(self.checksum), on(self.gso));
        write!(f, "scatter-gather {sg}, checksum offload {checksum}, GSO {gso}")
    }
}

/// A line on what is in a capture.
pub fn captured(f: &mut Formatter<'_>, packets: u64, filled: u64) -> fmt::Result {
    writeln!(
        f,
        "captured        {packets} packets, as the drivers take and hand them up; checksums that \
         are left to others are filled in ({filled})"
    )
}

/// Columns of the table of clients.
const CLIENTS_WIDTH: usize = 68;

/// A report as a table.
pub struct Table<'a> {
    report: &'a Report,
    wall: Duration,
    width: Option<usize>,
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let r = self.report;
        let (up, down) = (mebi(r.uploaded_bytes), mebi(r.downloaded_bytes));
        let verdict = if r.ok { "every byte checked" } else { "NOT OK" };
        writeln!(f, "transferred     {up} MiB up, {down} MiB down, {verdict}")?;
        let domains =
            if r.domains > 1 { format!(", {} clients", r.domains) } else { String::new() };
        if r.interrupted {
            writeln!(f, "interrupted     before all was done")?;
        }
        writeln!(f, "options         seed {}, mtu {}{domains}", r.seed, r.mtu)?;
        let agreed = Agreement {
            queues: r.queues,
            split: r.split_event_channels,
            scatter_gather: r.scatter_gather,
            checksum: r.checksum_offload,
            gso: r.gso,
        };
        writeln!(f, "agreed          {agreed}")?;
        if let (Some(packets), Some(longest)) = (r.replayed_packets, r.replayed_longest) {
            writeln!(
                f,
                "replayed        {packets} packets of up to {longest} bytes, {}",
                if r.interrupted { "not all of them" } else { "all of them both ways" }
            )?;
            self.left_out(f)?;
        }
        let wall = self.wall.as_secs_f64();
        write!(f, "throughput      ")?;
        if let Some(seconds) = r.virtual_seconds {
            writeln!(
                f,
                "{:.0} Mbit/s in virtual time ({seconds:.3} s; a cost model, no measurement)",
                r.mbit_per_s
            )?;
            write!(f, "                ")?;
        }
        if let Some(seconds) = r.real_seconds {
            writeln!(f, "{:.0} Mbit/s between domains on threads ({seconds:.3} s)", r.mbit_per_s)?;
            write!(f, "                ")?;
        }
        writeln!(
            f,
            "{:.0} Mbit/s by the wall clock ({wall:.2} s for both domains and the host)",
            megabits(r.bytes, wall)
        )?;
        writeln!(f, "packets         {} through the ring, both ways", r.packets)?;
        writeln!(
            f,
            "offloads        {} large packets, {} blank checksums, {} done in software",
            r.large_packets, r.blank_checksums, r.offloads_in_software
        )?;
        if let (Some(packets), Some(filled)) = (r.captured_packets, r.captured_filled_in) {
            captured(f, packets, filled)?;
        }
        writeln!(f)?;
        self.per_packet(f)?;
        writeln!(f)?;
        writeln!(
            f,
            "linearised      {} bytes at the front, {} at the back",
            r.linearised_bytes, r.back_linearised_bytes
        )?;
        write!(f, "drops           {}", r.drops)?;
        for (at, (reason, count)) in r.drops_by_reason.iter().enumerate() {
            write!(f, "{}{reason} {count}", if at == 0 { ": " } else { ", " })?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "quarantine      {} pages now, {} at some time",
            r.quarantined_pages, r.quarantined_ever
        )?;
        writeln!(f, "reconnects      {}", r.reconnects)?;
        if r.attacks > 0 {
            self.attacks(f)?;
        }
        if r.domains > 1 {
            self.clients(f)?;
        }
        r.problems.iter().try_for_each(|problem| writeln!(f, "PROBLEM         {problem}"))
    }
}

impl Table<'_> {
    fn per_packet(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let r = self.report;
        let rows = [
            ("slots", r.front_slots_per_packet, r.back_slots_per_packet),
            ("payload copies, ours", r.front_copies_per_packet, r.back_copies_per_packet),
            (
                "grant copies, Xen's",
                r.front_grant_copies_per_packet,
                r.back_grant_copies_per_packet,
            ),
            ("allocations, all", r.front_allocations_per_packet, r.back_allocations_per_packet),
            ("hypercalls but events", r.front_hypercalls_per_packet, r.back_hypercalls_per_packet),
            ("events sent", r.front_events_per_packet, r.back_events_per_packet),
            ("pages granted", r.front_grants_per_packet, r.back_grants_per_packet),
            ("pages cleared", r.front_clears_per_packet, r.back_clears_per_packet),
        ];
        writeln!(f, "per packet      of {} packets after warm-up", r.measured_packets)?;
        writeln!(f, " {:<21} {:>8} {:>8}", "", "front", "back")?;
        for (name, front, back) in rows {
            writeln!(f, " {name:<21} {:>8} {:>8}", figure(front), figure(back))?;
        }
        Ok(())
    }

    fn left_out(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let r = self.report;
        for (link, count) in r.replayed_left_out.iter().flatten() {
            writeln!(f, "left out        {count} packets that are {link}, not Ethernet")?;
        }
        if let Some(packet) = r.replayed_ends_within {
            writeln!(f, "left out        packet {packet}: the file ends within it")?;
        }
        match r.replayed_without_fcs {
            None | Some(0) => Ok(()),
            Some(count) => {
                writeln!(f, "left out        the frame check sequence of {count} packets")
            }
        }
    }

    fn clients(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.width.is_some_and(|width| width < CLIENTS_WIDTH) {
            for (number, client) in (1..).zip(&self.report.clients) {
                let (up, down) = (mebi(client.uploaded_bytes), mebi(client.downloaded_bytes));
                let ClientReport { packets, reconnects, attacks, .. } = client;
                writeln!(
                    f,
                    "client {number:<8} {up} MiB up, {down} MiB down, {packets} packets, \
                     {reconnects} reconnects, {attacks} attacks"
                )?;
            }
            return Ok(());
        }
        writeln!(f, "client           MiB up  MiB down   packets  reconnects  attacks")?;
        for (number, client) in (1..).zip(&self.report.clients) {
            let (up, down) = (mebi(client.uploaded_bytes), mebi(client.downloaded_bytes));
            let ClientReport { packets, reconnects, attacks, .. } = client;
            writeln!(
                f,
                "  {number:<12} {up:>8}  {down:>8}  {packets:>8}  {reconnects:>10}  {attacks:>7}"
            )?;
        }
        Ok(())
    }

    fn attacks(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let r = self.report;
        writeln!(
            f,
            "attacks         {}; {} ended in a reconnect, the others did no harm",
            r.attacks, r.attacks_with_reconnect
        )?;
        for (kind, count) in &r.attacks_by_kind {
            writeln!(f, "  {count:>4} x {kind}")?;
        }
        writeln!(
            f,
            "longest outage  {:.1} ms of {} time: {}",
            r.longest_outage_ms,
            if r.threads { "real" } else { "virtual" },
            r.longest_outage_kind
        )?;
        writeln!(f, "longest stall   {:.1} ms until both streams had gone on", r.longest_stall_ms)
    }
}

/// Zero is shown as such, and nothing else is.
fn figure(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        small if small < 0.001 => format!("{small:.0e}"),
        value => format!("{value:.3}"),
    }
}

fn mebi(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}
