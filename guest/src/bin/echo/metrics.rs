//! The numbers in the text format of Prometheus.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use super::status::{Status, Vif, named};

/// A counter or gauge of a vif.
type Number = (&'static str, &'static str, fn(&Vif) -> u64);

const GAUGES: [Number; 5] = [
    ("up", "Whether both ends are connected", |vif| vif.up.into()),
    ("mtu_bytes", "The largest IP packet", |vif| vif.mtu as u64),
    ("queues", "Pairs of rings", |vif| vif.agreed.queues as u64),
    ("split_event_channels", "Whether each ring has an event channel", |vif| {
        vif.agreed.split.into()
    }),
    ("quarantined_pages", "Pages in quarantine: the backend still maps them", |vif| {
        vif.quarantined as u64
    }),
];

const COUNTERS: [Number; 36] = [
    ("rx_packets", "Packets received", |vif| vif.counters.rx_packets),
    ("rx_bytes", "Bytes received", |vif| vif.counters.rx_bytes),
    ("rx_slots", "Receive slots used", |vif| vif.counters.rx_slots),
    ("rx_gso", "GSO packets received", |vif| vif.counters.rx_gso),
    ("rx_starved", "Slots left empty for want of a page", |vif| vif.counters.no_frame),
    ("tx_packets", "Packets sent", |vif| vif.counters.tx_packets),
    ("tx_bytes", "Bytes sent", |vif| vif.counters.tx_bytes),
    ("tx_slots", "Transmit slots used", |vif| vif.counters.tx_slots),
    ("tx_gso", "GSO packets sent", |vif| vif.counters.tx_gso),
    ("tx_blank", "Packets sent with a blank checksum", |vif| vif.counters.tx_blank),
    ("tx_filled", "Blank checksums filled in by the driver", |vif| vif.counters.tx_filled),
    ("tx_cut", "Large packets cut by the driver", |vif| vif.counters.tx_cut),
    ("tx_gathered", "Packets put into fewer slots by the driver", |vif| vif.counters.tx_gathered),
    ("tx_completed_slots", "Slots answered", |vif| vif.counters.tx_completed),
    ("grants", "Pages granted", |vif| vif.counters.grants),
    ("revokes", "Grants ended", |vif| vif.counters.revokes),
    ("failed_revokes", "Grants the backend was still using", |vif| vif.counters.quarantined),
    ("clears", "Pages cleared before a grant", |vif| vif.counters.clears),
    ("cleared_bytes", "Bytes cleared", |vif| vif.counters.cleared_bytes),
    ("copied_bytes", "Payload copied by the driver", |vif| vif.counters.copied_bytes),
    ("linearised_packets", "Packets gathered or scattered", |vif| vif.adaptor.linearised_packets),
    ("linearised_bytes", "Bytes gathered or scattered", |vif| vif.adaptor.linearised_bytes),
    ("rx_checksums_wrong", "Packets with a wrong checksum", |vif| vif.adaptor.checksums_wrong),
    ("tx_checksums_left", "Checksums left to the driver", |vif| vif.adaptor.checksums_left),
    ("held_back", "Times a packet waited for room to answer", |vif| vif.adaptor.held_back),
    ("held_without_memory", "Times a packet waited for memory to answer", |vif| {
        vif.adaptor.held_without_memory
    }),
    ("events_sent", "Events sent to the backend", |vif| vif.counters.events_sent),
    ("events_received", "Events the backend woke us by", |vif| vif.events),
    ("connects", "Times the vif was connected", |vif| vif.counters.connects),
    ("faults", "Protocol violations by the backend", |vif| vif.counters.faults),
    ("stalls", "Times the backend answered nothing for too long", |vif| vif.counters.stalls),
    ("crippled", "Times the backend held too many pages", |vif| vif.counters.crippled),
    ("rx_errors", "Slots the backend reported as failed", |vif| {
        vif.counters.rx_drops.backend_error
    }),
    ("tx_errors", "Slots the backend answered with an error", |vif| {
        vif.counters.tx_drops.backend_error
    }),
    ("rx_dropped", "Packets received and dropped", |vif| vif.counters.rx_drops.total()),
    ("tx_dropped", "Packets, or slots, not sent", |vif| vif.counters.tx_drops.total()),
];

/// All of it.
pub fn render(status: &Status) -> String {
    let mut text = String::with_capacity(8 << 10);
    // Writing to a string can't fail.
    let _ = write(&mut text, status);
    text
}

fn write(out: &mut String, status: &Status) -> core::fmt::Result {
    let mut single = |name: &str, about: &str, value: f64| {
        head(out, name, about, "gauge")?;
        writeln!(out, "{name} {value}")
    };
    single("guest_uptime_seconds", "Time since the domain was built", status.uptime)?;
    single("guest_free_memory_bytes", "Free memory", status.free_memory as f64)?;
    single("guest_pool_pages", "Pages for packets", status.pool.size as f64)?;
    single("guest_pool_free_pages", "Those nobody holds", status.pool.free as f64)?;
    single("guest_pool_high_water_pages", "The most ever held", status.pool.high_water as f64)?;

    for (numbers, kind, suffix) in
        [(&GAUGES[..], "gauge", ""), (&COUNTERS[..], "counter", "_total")]
    {
        for (name, about, value) in numbers {
            let name = format!("xen_netfront_{name}{suffix}");
            head(out, &name, about, kind)?;
            for vif in &status.vifs {
                writeln!(out, "{name}{{vif=\"{}\"}} {}", vif.number, value(vif))?;
            }
        }
    }

    let name = "xen_netfront_feature";
    head(out, name, "Whether a direction has a feature", "gauge")?;
    for vif in &status.vifs {
        for (direction, features) in [("tx", vif.agreed.transmit), ("rx", vif.agreed.receive)] {
            for (feature, on) in named(features) {
                let (vif, on) = (vif.number, u8::from(on));
                writeln!(
                    out,
                    "{name}{{vif=\"{vif}\",direction=\"{direction}\",feature=\"{feature}\"}} {on}"
                )?;
            }
        }
    }

    for (name, about, kind) in [
        ("echo_connections", "Connections now", "gauge"),
        ("echo_served_total", "Connections, datagrams or requests served", "counter"),
    ] {
        head(out, name, about, kind)?;
        for vif in &status.vifs {
            for service in &vif.services {
                let value = if kind == "gauge" { service.connected as u64 } else { service.served };
                let (vif, service) = (vif.number, service.name);
                writeln!(out, "{name}{{vif=\"{vif}\",service=\"{service}\"}} {value}")?;
            }
        }
    }
    Ok(())
}

fn head(out: &mut String, name: &str, about: &str, kind: &str) -> core::fmt::Result {
    writeln!(out, "# HELP {name} {about}.\n# TYPE {name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example;
    use alloc::collections::BTreeSet;

    #[test]
    fn every_vif_has_every_number_in_the_format_of_prometheus() {
        let text = render(&example());
        for line in [
            "guest_uptime_seconds 3.25",
            "guest_pool_free_pages 100",
            "xen_netfront_up{vif=\"0\"} 1",
            "xen_netfront_up{vif=\"2\"} 0",
            "xen_netfront_rx_packets_total{vif=\"2\"} 11",
            "xen_netfront_grants_total{vif=\"0\"} 300",
            "xen_netfront_feature{vif=\"0\",direction=\"tx\",feature=\"gso-v6\"} 1",
            "xen_netfront_feature{vif=\"0\",direction=\"rx\",feature=\"gso-v6\"} 0",
            "echo_connections{vif=\"0\",service=\"tcp_echo\"} 1",
            "echo_served_total{vif=\"0\",service=\"tcp_echo\"} 5",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        // Each name is announced once, before its first value, and no value comes twice.
        let (mut announced, mut values) = (BTreeSet::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(announced.insert(rest.split(' ').next().unwrap()), "{line}");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(values.insert(name), "{line}");
                assert!(announced.contains(name.split('{').next().unwrap()), "{line}");
            }
        }
    }
}
