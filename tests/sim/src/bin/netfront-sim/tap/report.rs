//! What a run with `--tap` comes to.

use core::fmt::{self, Display, Formatter};
use std::collections::BTreeMap;

use serde::Serialize;
use xen_netfront::platform::Instant;

use super::server::Server;
use super::uplink::Uplink;
use crate::agreement::Agreement;
use crate::args::Args;
use crate::capture::Counts;
use crate::table::{captured, count, drops, mtu};

/// The results. "Up" is from Linux to the client, for that is how curl sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    ok: bool,
    problems: Vec<String>,
    tap: String,
    /// Whether offload metadata crosses between Linux and netback.
    vnet_header: bool,
    real_seconds: f64,
    seed: u64,
    mtu: usize,
    /// What was asked for, if that is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu_asked: Option<usize>,
    #[serde(flatten)]
    agreed: Agreement,
    /// Packets and bytes from Linux to the client's backend, and the reverse.
    from_linux_packets: u64,
    from_linux_bytes: u64,
    to_linux_packets: u64,
    to_linux_bytes: u64,
    /// GSO packets, and blank checksums, of these.
    from_linux_gso: u64,
    to_linux_gso: u64,
    from_linux_blank: u64,
    to_linux_blank: u64,
    /// Packets through the client's rings.
    front_rx_packets: u64,
    front_rx_gso: u64,
    front_tx_packets: u64,
    front_tx_gso: u64,
    front_slots: u64,
    front_events: u64,
    http_downloads: u64,
    http_downloaded_bytes: u64,
    http_uploads: u64,
    http_uploaded_bytes: u64,
    echoed_bytes: u64,
    discarded_bytes: u64,
    linearised_bytes: u64,
    drops: u64,
    drops_by_reason: BTreeMap<&'static str, u64>,
    quarantined_pages: usize,
    reconnects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_filled_in: Option<u64>,
}

impl Report {
    pub(super) fn new(
        args: &Args,
        name: &str,
        now: Instant,
        server: &Server,
        uplink: &Uplink,
    ) -> Report {
        let device = server.device();
        let net = device.map(|device| device.inner().below());
        let front = net.map(|net| *net.counters()).unwrap_or_default();
        let back = uplink.vif().counters();
        let tap = uplink.tap().counters();
        let served = server.served();
        let seen = server.seen();
        let reasons = [
            ("tap_too_long", tap.drops.too_long),
            ("tap_other_offload", tap.drops.other_offload),
            ("tap_refused", tap.drops.refused),
            ("tap_no_offload", tap.drops.no_offload),
            ("front_rx", front.rx_drops.total()),
            ("front_tx", front.tx_drops.total()),
            ("back_from", back.from_drops.total()),
            ("back_to", back.to_drops.total()),
        ];
        let drops_by_reason: BTreeMap<_, _> =
            reasons.into_iter().filter(|(_, count)| *count > 0).collect();
        Report {
            ok: true,
            problems: Vec::new(),
            tap: name.to_owned(),
            vnet_header: uplink.tap().has_vnet_header(),
            real_seconds: now.since(Instant(0)).as_secs_f64(),
            seed: args.seed,
            mtu: seen.map_or(0, |seen| seen.mtu),
            mtu_asked: seen.and_then(|seen| args.mtu_if_more(seen.mtu)),
            agreed: seen.map(|seen| seen.agreed).into(),
            from_linux_packets: tap.read.0,
            from_linux_bytes: tap.read.1,
            to_linux_packets: tap.written.0,
            to_linux_bytes: tap.written.1,
            from_linux_gso: tap.gso.0,
            to_linux_gso: tap.gso.1,
            from_linux_blank: tap.blank.0,
            to_linux_blank: tap.blank.1,
            front_rx_packets: front.rx_packets,
            front_rx_gso: front.rx_gso,
            front_tx_packets: front.tx_packets,
            front_tx_gso: front.tx_gso,
            front_slots: front.rx_slots + front.tx_slots,
            front_events: front.events_sent,
            http_downloads: served.http.down.0,
            http_downloaded_bytes: served.http.down.1,
            http_uploads: served.http.up.0,
            http_uploaded_bytes: served.http.up.1,
            echoed_bytes: served.echoed,
            discarded_bytes: served.discarded,
            linearised_bytes: device.map_or(0, |device| device.counters().linearised_bytes),
            drops: drops_by_reason.values().sum(),
            drops_by_reason,
            quarantined_pages: net.map_or(0, |net| net.quarantined()),
            reconnects: front.connects.saturating_sub(1),
            captured_packets: None,
            captured_filled_in: None,
        }
    }

    pub(super) fn add_problems(&mut self, problems: Vec<String>) {
        self.ok &= problems.is_empty();
        self.problems.extend(problems);
    }

    pub(super) fn captured(&mut self, counts: Counts) {
        self.captured_packets = Some(counts.packets);
        self.captured_filled_in = Some(counts.filled);
    }

    /// What is not as it should be.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The table, for so many columns.
    pub fn table(&self, width: Option<usize>) -> Table<'_> {
        Table { report: self, width }
    }

    /// Whether all is as it should be.
    pub fn ok(&self) -> bool {
        self.ok
    }

    /// The JSON object, on one line.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Columns of the table of both directions.
const DIRECTIONS_WIDTH: usize = 64;

/// A report as a table.
pub struct Table<'a> {
    report: &'a Report,
    width: Option<usize>,
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let r = self.report;
        let narrow = self.width.is_some_and(|width| width < DIRECTIONS_WIDTH);
        let header = if r.vnet_header { "offloads cross" } else { "no offload crosses" };
        let mtu = mtu(r.mtu, r.mtu_asked);
        writeln!(f, "{:<15} {:.1} s, {mtu}, {header}", r.tap, r.real_seconds)?;
        writeln!(f, "agreed          {}", r.agreed)?;
        if !narrow {
            writeln!(f, "                   packets         bytes       GSO     blank checksums")?;
        }
        for (name, packets, bytes, gso, blank) in [
            (
                "from Linux",
                r.from_linux_packets,
                r.from_linux_bytes,
                r.from_linux_gso,
                r.from_linux_blank,
            ),
            ("to Linux", r.to_linux_packets, r.to_linux_bytes, r.to_linux_gso, r.to_linux_blank),
        ] {
            if narrow {
                let (packets, bytes) = (count(packets, "packet"), count(bytes, "byte"));
                let (gso, blank) = (count(gso, "GSO packet"), count(blank, "blank checksum"));
                writeln!(f, "{name:<15} {packets}, {bytes}, {gso}, {blank}")?;
                continue;
            }
            writeln!(f, "  {name:<13} {packets:>10}  {bytes:>12}  {gso:>8}  {blank:>8}")?;
        }
        writeln!(
            f,
            "netfront        {} in ({} GSO), {} out ({} GSO), {}, {} sent",
            count(r.front_rx_packets, "packet"),
            r.front_rx_gso,
            r.front_tx_packets,
            r.front_tx_gso,
            count(r.front_slots, "slot"),
            count(r.front_events, "event")
        )?;
        writeln!(
            f,
            "HTTP            {} of {} in all, {} of {}",
            count(r.http_downloads, "download"),
            count(r.http_downloaded_bytes, "byte"),
            count(r.http_uploads, "upload"),
            count(r.http_uploaded_bytes, "byte")
        )?;
        let echoed = count(r.echoed_bytes, "byte");
        writeln!(f, "echoed          {echoed}; discarded {}", r.discarded_bytes)?;
        writeln!(f, "linearised      {}", count(r.linearised_bytes, "byte"))?;
        drops(f, &r.drops_by_reason)?;
        if let (Some(packets), Some(filled)) = (r.captured_packets, r.captured_filled_in) {
            captured(f, packets, filled)?;
        }
        writeln!(f, "quarantine      {} now", count(r.quarantined_pages, "page"))?;
        writeln!(f, "reconnects      {}", r.reconnects)?;
        r.problems.iter().try_for_each(|problem| writeln!(f, "PROBLEM         {problem}"))
    }
}
