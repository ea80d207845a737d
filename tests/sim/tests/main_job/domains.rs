//! Several client domains beside each other.

use crate::run::{json, number, run, stdout};

/// What each client's part of the report says.
fn of_clients(report: &serde_json::Value, key: &str) -> Vec<f64> {
    report["clients"].as_array().unwrap().iter().map(|client| number(client, key)).collect()
}

#[test]
fn each_client_has_streams_of_its_own() {
    let report = json("--domains 4 --bytes 1M");
    assert_eq!(number(&report, "domains"), 4.0);
    let mebi = f64::from(1 << 20);
    assert_eq!(of_clients(&report, "uploaded_bytes"), [mebi; 4]);
    assert_eq!(of_clients(&report, "downloaded_bytes"), [mebi; 4]);
    assert_eq!(number(&report, "bytes"), 8.0 * mebi);
    let packets = of_clients(&report, "packets");
    assert!(packets.iter().all(|&packets| packets > 50.0), "{packets:?}");
    assert_eq!(number(&report, "packets"), packets.iter().sum::<f64>());
    for key in ["drops", "reconnects", "quarantined_pages", "front_copies_per_packet"] {
        assert_eq!(number(&report, key), 0.0, "{key}: {report}");
    }
}

#[test]
fn every_client_is_attacked_and_survives() {
    let report = json("--domains 3 --hostile --bytes 2M --seed 2");
    assert_eq!(of_clients(&report, "uploaded_bytes"), [f64::from(2 << 20); 3]);
    let attacks = of_clients(&report, "attacks");
    assert!(attacks.iter().all(|&attacks| attacks > 0.0), "{report}");
    assert_eq!(number(&report, "attacks"), attacks.iter().sum::<f64>());
    assert!(number(&report, "reconnects") > 0.0, "{report}");
    assert!(number(&report, "longest_outage_ms") <= 1000.0, "{report}");
}

#[test]
fn the_table_has_a_row_for_each() {
    let text = stdout(&run("--domains 2 --bytes 256k"));
    assert!(text.contains(", 2 clients"), "{text}");
    let rows = text.lines().skip_while(|line| !line.starts_with("client ")).skip(1);
    let rows: Vec<_> = rows.map(|row| row.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(rows.len(), 2, "{text}");
    for (row, number) in rows.iter().zip(["1", "2"]) {
        assert_eq!(row[..3], [number, "0.2", "0.2"], "{text}");
    }
}
