//! A report as a table.

use core::fmt::{self, Display, Formatter};
use core::time::Duration;
use std::collections::BTreeMap;

use crate::report::{ClientReport, Report, megabits};

/// A number of things: "1 packet", "2 packets".
pub fn count(number: impl TryInto<u64>, thing: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A line on what was dropped, and why.
pub fn drops(f: &mut Formatter<'_>, reasons: &BTreeMap<&'static str, u64>) -> fmt::Result {
    write!(f, "drops           {}", reasons.values().sum::<u64>())?;
    for (at, (reason, count)) in reasons.iter().enumerate() {
        write!(f, "{}{count} {}", if at == 0 { ": " } else { "; " }, in_words(reason))?;
    }
    writeln!(f)
}

/// Who drops packets: how the names of reasons begin, and in words.
const WHO: [(&str, &str); 5] = [
    ("front_rx", "by netfront, received"),
    ("front_tx", "by netfront, to be sent"),
    ("back_from", "by netback, from the client"),
    ("back_to", "by netback, to the client"),
    ("tap", "at the TAP device"),
];

fn in_words(reason: &str) -> String {
    let who = WHO.iter().find_map(|(start, words)| Some((words, reason.strip_prefix(start)?)));
    match who {
        Some((who, "")) => (*who).to_owned(),
        Some((who, why)) => format!("{who} ({})", why.replace('_', " ").trim_start()),
        None => reason.replace('_', " "),
    }
}

/// What the MTU is, and that it was to be more.
pub fn mtu(own: usize, asked: Option<usize>) -> String {
    match asked {
        None => format!("mtu {own}"),
        Some(asked) => format!("mtu {own} (not {asked}: without scatter-gather, one page)"),
    }
}

/// A line on what is in a capture.
pub fn captured(f: &mut Formatter<'_>, packets: u64, filled: u64) -> fmt::Result {
    let packets = count(packets, "packet");
    writeln!(
        f,
        "captured        {packets}, as the drivers take and hand them up; checksums that \
         are left to others are filled in ({filled})"
    )
}

/// Columns of the table of clients.
const CLIENTS_WIDTH: usize = 68;

/// A report as a table, for so many columns.
pub struct Table<'a> {
    report: &'a Report,
    wall: Duration,
    width: Option<usize>,
}

impl<'a> Table<'a> {
    /// A table of this. `wall` is how long this machine took.
    pub fn new(report: &'a Report, wall: Duration, width: Option<usize>) -> Table<'a> {
        Table { report, wall, width }
    }
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
        writeln!(f, "options         seed {}, {}{domains}", r.seed, mtu(r.mtu, r.mtu_asked))?;
        writeln!(f, "agreed          {}", r.agreed)?;
        if let (Some(packets), Some(longest)) = (r.replayed_packets, r.replayed_longest) {
            writeln!(
                f,
                "replayed        {} of up to {longest} bytes, {}",
                count(packets, "packet"),
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
            "offloads        {}, {}, {} done in software",
            count(r.large_packets, "large packet"),
            count(r.blank_checksums, "blank checksum"),
            r.offloads_in_software
        )?;
        if let (Some(packets), Some(filled)) = (r.captured_packets, r.captured_filled_in) {
            captured(f, packets, filled)?;
        }
        writeln!(f)?;
        self.per_packet(f)?;
        writeln!(f)?;
        writeln!(
            f,
            "linearised      {} at the front, {} at the back",
            count(r.linearised_bytes, "byte"),
            r.back_linearised_bytes
        )?;
        drops(f, &r.drops_by_reason)?;
        writeln!(
            f,
            "quarantine      {} now, {} at some time",
            count(r.quarantined_pages, "page"),
            r.quarantined_ever
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
        let packets = count(r.measured_packets, "packet");
        let which = match r.replayed_packets {
            Some(_) => "from the first on: what is set up once counts too",
            None => "after warm-up",
        };
        writeln!(f, "per packet      of {packets} {which}")?;
        writeln!(f, " {:<21} {:>8} {:>8}", "", "front", "back")?;
        for (name, front, back) in rows {
            writeln!(f, " {name:<21} {:>8} {:>8}", figure(front), figure(back))?;
        }
        Ok(())
    }

    fn left_out(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let r = self.report;
        for (link, &packets) in r.replayed_left_out.iter().flatten() {
            let are = if packets == 1 { "is" } else { "are" };
            let packets = count(packets, "packet");
            writeln!(f, "left out        {packets} that {are} {link}, not Ethernet")?;
        }
        if let (Some(packets @ 1..), Some(first)) = (r.replayed_cut, &r.replayed_cut_first) {
            let numbers: Vec<_> = first.iter().map(usize::to_string).collect();
            let s = if packets == 1 { "" } else { "s" };
            writeln!(
                f,
                "left out        {} not captured whole: number{s} {}{} (tcpdump -s 0 captures all)",
                count(packets, "packet"),
                numbers.join(", "),
                if packets > first.len() { ", ..." } else { "" }
            )?;
        }
        if let Some(packet) = r.replayed_ends_within {
            writeln!(f, "left out        packet {packet}: the file ends within it")?;
        }
        match r.replayed_without_fcs {
            None | Some(0) => Ok(()),
            Some(packets) => {
                let packets = count(packets, "packet");
                writeln!(f, "left out        the frame check sequence of {packets}")
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
                    "client {number:<8} {up} MiB up, {down} MiB down, {}, {}, {}",
                    count(*packets, "packet"),
                    count(*reconnects, "reconnect"),
                    count(*attacks, "attack")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural_and_reasons_are_words() {
        assert_eq!(
            (count(0_u64, "page"), count(1_u64, "page")),
            ("0 pages".into(), "1 page".into())
        );
        assert_eq!(in_words("back_to"), "by netback, to the client");
        assert_eq!(in_words("front_rx_bad_extent"), "by netfront, received (bad extent)");
        assert_eq!(in_words("tap_too_long"), "at the TAP device (too long)");
        assert_eq!(in_words("something_else"), "something else");
    }
}
