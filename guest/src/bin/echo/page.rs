//! The page for people: the same numbers as the metrics, fewer, and easier to look at.

use alloc::string::String;
use core::fmt::{self, Write};

use super::status::{Status, Vif, named};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--dim:#888;--on:#1a8f4c;--off:#c0392b}\
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}\
h1{font-weight:600;margin:0}h2{font-size:1.1rem;margin:0}\
p{color:var(--dim);margin:.2rem 0 2rem}\
section{border:1px solid var(--line);border-radius:.8rem;padding:1.2rem 1.4rem;margin:0 0 1.2rem}\
header{display:flex;justify-content:space-between;align-items:baseline}\
small{color:var(--dim)}\
b.up{color:var(--on)}b.down{color:var(--off)}\
table{width:100%;border-collapse:collapse;margin-top:.8rem;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:.25rem 0;border-top:1px solid var(--line);font-weight:400}\
th{color:var(--dim)}th:first-child,td:first-child{text-align:left}\
i{font-style:normal;font-size:.8rem;border-radius:1rem;padding:.1rem .6rem;margin-right:.3rem;\
border:1px solid var(--line);color:var(--dim)}i.on{color:var(--on);border-color:currentColor}\
a{color:inherit}";

/// The page, complete.
pub fn render(status: &Status) -> String {
    let mut text = String::with_capacity(8 << 10);
    // Writing to a string can't fail.
    let _ = write(&mut text, status);
    text
}

fn write(out: &mut String, status: &Status) -> fmt::Result {
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>xen-netfront</title>\
         <style>{STYLE}</style></head><body>\n<h1>xen-netfront</h1>\n<p>"
    )?;
    if let Some(domain) = status.domain {
        write!(out, "Domain {domain}, ")?;
    }
    writeln!(out, "up {} &middot; <a href=\"/metrics\">metrics</a></p>", Time(status.uptime))?;
    for vif in &status.vifs {
        section(out, vif)?;
    }
    let held = status.pool.size.saturating_sub(status.pool.free);
    writeln!(
        out,
        "<section><header><h2>Memory</h2><small>{} unused</small></header>\n<table>\
         <tr><th>Pages for packets<th>in use<th>most ever<th>all\
         <tr><td><td>{held}<td>{}<td>{}</table></section>\n</body></html>",
        Bytes(status.free_memory),
        status.pool.high_water,
        status.pool.size,
    )
}

fn section(out: &mut String, vif: &Vif) -> fmt::Result {
    let (class, link) = if vif.up { ("up", "connected") } else { ("down", "not connected") };
    let trusted = if vif.trusted { "" } else { " &middot; backend not trusted" };
    writeln!(
        out,
        "<section><header><h2>vif {} <b class=\"{class}\">&#9679; {link}</b></h2>\
         <small>{} &middot; mtu {}{trusted}</small></header>",
        vif.number, vif.mac, vif.mtu
    )?;
    for address in &vif.addresses {
        write!(out, "<code>{address}</code> ")?;
    }
    out.push_str("\n<table><tr><th><th>packets<th>bytes<th>slots<th>dropped");
    let counters = &vif.counters;
    for (name, packets, bytes, slots, dropped) in [
        (
            "received",
            counters.rx_packets,
            counters.rx_bytes,
            counters.rx_slots,
            counters.rx_drops.total(),
        ),
        (
            "sent",
            counters.tx_packets,
            counters.tx_bytes,
            counters.tx_slots,
            counters.tx_drops.total(),
        ),
    ] {
        write!(
            out,
            "<tr><td>{name}<td>{}<td>{}<td>{}<td>{}",
            Grouped(packets),
            Bytes(bytes),
            Grouped(slots),
            Grouped(dropped)
        )?;
    }
    out.push_str("</table>\n<table>");
    for (direction, features) in
        [("may send", vif.agreed.transmit), ("may be sent", vif.agreed.receive)]
    {
        write!(out, "<tr><td>{direction}<td>")?;
        for (name, on) in named(features) {
            write!(out, "<i{}>{name}</i>", if on { " class=\"on\"" } else { "" })?;
        }
    }
    let events = if vif.agreed.split { "two event channels" } else { "one event channel" };
    let queues = if vif.agreed.queues == 1 { "queue" } else { "queues" };
    writeln!(
        out,
        "<tr><td>rings<td>{} {queues}, {events} each\
         <tr><td>grants<td>{} given, {} ended, {} in quarantine\
         <tr><td>events sent<td>{}\
         <tr><td>connected<td>{} times, {} faults, {} silences</table>",
        vif.agreed.queues,
        Grouped(counters.grants),
        Grouped(counters.revokes),
        vif.quarantined,
        Grouped(counters.events_sent),
        counters.connects,
        counters.faults,
        counters.stalls,
    )?;
    out.push_str("<table><tr><th>service<th>connections<th>served");
    for service in &vif.services {
        write!(
            out,
            "<tr><td>{}<td>{}<td>{}",
            service.name.replace('_', " "),
            service.connected,
            Grouped(service.served)
        )?;
    }
    out.push_str("</table></section>\n");
    Ok(())
}

/// A number with its thousands apart.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            return write!(f, "{}", self.0);
        }
        write!(f, "{}&#8239;{:03}", Grouped(self.0 / 1000), self.0 % 1000)
    }
}

/// A number of bytes, in the unit that suits it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["B", "kB", "MB", "GB"] {
            if value < 1000.0 {
                let places = usize::from(unit != "B" && value < 100.0);
                return write!(f, "{value:.places$} {unit}");
            }
            value /= 1000.0;
        }
        write!(f, "{value:.1} TB")
    }
}

/// Seconds, as hours, minutes and seconds.
struct Time(f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 as u64;
        write!(f, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example;
    use alloc::string::ToString;

    #[test]
    fn the_page_is_small_and_shows_each_vif() {
        let page = render(&example());
        assert!(page.len() < 8 << 10, "{} bytes", page.len());
        for part in [
            "vif 0 <b class=\"up\"",
            "vif 2 <b class=\"down\"",
            "10.0.0.2/24",
            "00-16-3e-00-00-02",
            "mtu 1500",
            "2 queues, two event channels each",
            "300 given",
            "Domain 7, up 0:00:03",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(!page.contains("<script") && page.ends_with("</html>\n"));
        for tag in ["section", "table", "header", "html", "body", "style"] {
            let count = |text: &str| page.matches(text).count();
            let (open, close) =
                (count(&alloc::format!("<{tag}>")), count(&alloc::format!("</{tag}>")));
            assert!(open == close || tag == "html" && close == 1, "{tag}: {open} and {close}");
        }
    }

    #[test]
    fn numbers_as_people_write_them() {
        assert_eq!(Grouped(999).to_string(), "999");
        assert_eq!(Grouped(1_000_020).to_string(), "1&#8239;000&#8239;020");
        assert_eq!(Bytes(999).to_string(), "999 B");
        assert_eq!(Bytes(1500).to_string(), "1.5 kB");
        assert_eq!(Bytes(250_000_000).to_string(), "250 MB");
        assert_eq!(Bytes(u64::MAX).to_string(), "18446744.1 TB");
        assert_eq!(Time(3725.9).to_string(), "1:02:05");
    }
}
