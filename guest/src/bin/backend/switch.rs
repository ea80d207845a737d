//! Which station is behind which port, learned from who sends.
//!
//! A port that has as many stations as it may have learns no more until some of them have been silent
//! for long: what one client makes up costs the others nothing, and what is sent to a station that is
//! not known goes to all.

use alloc::collections::BTreeMap;
use core::time::Duration;

use xen_netfront::platform::Instant;

/// How long a station that is not heard is known (IEEE 802.1Q, the ageing time's recommended value).
const AGEING: Duration = Duration::from_secs(300);
/// How often a port that has too many stations is searched for old ones.
const SEARCH: Duration = Duration::from_secs(1);

type Station = [u8; 6];

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way<P> {
    /// To this port.
    To(P),
    /// To all ports but the one that it came from.
    ToAll,
    /// To nobody.
    Nowhere(Why),
}

/// Why a frame goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its station is where it came from.
    Local,
    /// It is for the switch at the other end of a cable (IEEE 802.1Q, reserved addresses): spanning
    /// tree, pause frames, LLDP. No client is one.
    Reserved,
    /// It has no station's address as its source, or no header.
    NoStation,
}

/// The stations that are known.
pub struct Switch<P> {
    stations: BTreeMap<Station, Known<P>>,
    ports: BTreeMap<P, Port>,
}

struct Known<P> {
    port: P,
    heard: Instant,
}

struct Port {
    stations: usize,
    most: usize,
    searched: Option<Instant>,
}

impl<P: Copy + Ord> Switch<P> {
    pub fn new() -> Switch<P> {
        Switch { stations: BTreeMap::new(), ports: BTreeMap::new() }
    }

    /// A port comes, behind which at most so many stations are learned.
    pub fn add(&mut self, port: P, most: usize) {
        self.ports.entry(port).or_insert(Port { stations: 0, most, searched: None });
    }

    /// A port is gone, and with it what was behind it.
    pub fn remove(&mut self, port: P) {
        self.stations.retain(|_, known| known.port != port);
        self.ports.remove(&port);
    }

    /// How many stations are known.
    pub fn stations(&self) -> usize {
        self.stations.len()
    }

    /// Where a frame goes that came from this port and begins with `head`.
    pub fn way(&mut self, from: P, head: &[u8], now: Instant) -> Way<P> {
        let Some((&to, rest)) = head.split_first_chunk::<6>() else {
            return Way::Nowhere(Why::NoStation);
        };
        match rest.first_chunk::<6>() {
            Some(&source) if is_station(source) => self.learn(source, from, now),
            _ => return Way::Nowhere(Why::NoStation),
        }
        if is_reserved(to) {
            return Way::Nowhere(Why::Reserved);
        }
        if is_group(to) {
            return Way::ToAll;
        }
        match self.stations.get(&to) {
            Some(known) if now.since(known.heard) > AGEING => Way::ToAll,
            Some(known) if known.port == from => Way::Nowhere(Why::Local),
            Some(known) => Way::To(known.port),
            None => Way::ToAll,
        }
    }

    fn learn(&mut self, station: Station, from: P, now: Instant) {
        let mut before = None;
        if let Some(known) = self.stations.get_mut(&station) {
            if known.port == from {
                known.heard = now;
                return;
            }
            before = Some(known.port);
        }
        if !self.has_room(from, now) {
            return;
        }
        // It may have been the last one's other port: counts first.
        if let Some(port) = before.and_then(|before| self.ports.get_mut(&before)) {
            port.stations -= 1;
        }
        let Some(port) = self.ports.get_mut(&from) else { return };
        port.stations += 1;
        self.stations.insert(station, Known { port: from, heard: now });
    }

    /// Whether one more may be learned behind this port.
    fn has_room(&mut self, from: P, now: Instant) -> bool {
        let Some(port) = self.ports.get_mut(&from) else { return false };
        if port.stations < port.most {
            return true;
        }
        if port.searched.is_some_and(|searched| now.since(searched) < SEARCH) {
            return false;
        }
        port.searched = Some(now);
        let old = |known: &Known<P>| known.port == from && now.since(known.heard) > AGEING;
        let before = self.stations.len();
        self.stations.retain(|_, known| !old(known));
        port.stations -= before - self.stations.len();
        port.stations < port.most
    }
}

fn is_group(station: Station) -> bool {
    station[0] & 1 != 0
}

fn is_station(station: Station) -> bool {
    !is_group(station) && station != [0; 6]
}

fn is_reserved(station: Station) -> bool {
    matches!(station, [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const START: Instant = Instant(7_000_000_000);
    const BROADCAST: Station = [0xff; 6];

    fn station(number: u32) -> Station {
        let [a, b, c, d] = number.to_be_bytes();
        [2, 0, a, b, c, d]
    }

    fn switch() -> Switch<u8> {
        let mut switch = Switch::new();
        (0..4).for_each(|port| switch.add(port, 3));
        switch
    }

    fn send(switch: &mut Switch<u8>, from: u8, source: Station, to: Station, at: u64) -> Way<u8> {
        let head: Vec<u8> = to.into_iter().chain(source).chain([8, 0]).collect();
        switch.way(from, &head, START + Duration::from_secs(at))
    }

    #[test]
    fn a_station_is_found_where_it_was_heard_last() {
        let mut switch = switch();
        let [one, two] = [station(1), station(2)];
        assert_eq!(send(&mut switch, 0, one, two, 0), Way::ToAll);
        assert_eq!(send(&mut switch, 1, two, one, 0), Way::To(0));
        assert_eq!(send(&mut switch, 0, one, two, 0), Way::To(1));
        // It moves; what is behind one port stays there.
        assert_eq!(send(&mut switch, 2, two, one, 1), Way::To(0));
        assert_eq!(send(&mut switch, 0, one, two, 1), Way::To(2));
        assert_eq!(send(&mut switch, 2, station(3), two, 1), Way::Nowhere(Why::Local));
        assert_eq!(switch.stations(), 3);
    }

    #[test]
    fn groups_go_to_all_but_those_of_switches_to_nobody() {
        let mut switch = switch();
        for to in [BROADCAST, [0x33, 0x33, 0, 0, 0, 1], [0x01, 0x00, 0x5e, 0, 0, 1]] {
            assert_eq!(send(&mut switch, 0, station(1), to, 0), Way::ToAll);
        }
        for last in 0..=15 {
            let to = [0x01, 0x80, 0xc2, 0, 0, last];
            assert_eq!(send(&mut switch, 0, station(1), to, 0), Way::Nowhere(Why::Reserved));
        }
        assert_eq!(send(&mut switch, 0, station(1), [0x01, 0x80, 0xc2, 0, 0, 16], 0), Way::ToAll);
    }

    #[test]
    fn what_no_station_can_have_sent_is_neither_learned_nor_sent_on() {
        let mut switch = switch();
        for source in [BROADCAST, [0; 6], [0x33, 0x33, 0, 0, 0, 1]] {
            let way = send(&mut switch, 0, source, station(1), 0);
            assert_eq!(way, Way::Nowhere(Why::NoStation));
        }
        for len in 0..12 {
            assert_eq!(switch.way(0, &[2; 12][..len], START), Way::Nowhere(Why::NoStation));
        }
        assert_eq!(switch.stations(), 0);
    }

    #[test]
    fn who_is_silent_for_long_is_forgotten() {
        let mut switch = switch();
        let [one, two] = [station(1), station(2)];
        send(&mut switch, 0, one, two, 0);
        assert_eq!(send(&mut switch, 1, two, one, 300), Way::To(0));
        assert_eq!(send(&mut switch, 1, two, one, 301), Way::ToAll);
        send(&mut switch, 0, one, two, 302);
        assert_eq!(send(&mut switch, 1, two, one, 303), Way::To(0));
    }

    #[test]
    fn a_port_that_makes_stations_up_costs_no_other() {
        let mut switch = switch();
        let [one, two] = [station(1), station(2)];
        send(&mut switch, 0, one, BROADCAST, 0);
        for number in 100..1000 {
            send(&mut switch, 1, station(number), BROADCAST, 0);
        }
        assert_eq!(switch.stations(), 1 + 3);
        assert_eq!(send(&mut switch, 2, two, one, 0), Way::To(0));
        assert_eq!(send(&mut switch, 2, two, station(102), 0), Way::To(1));
        assert_eq!(send(&mut switch, 2, two, station(103), 0), Way::ToAll);
        // Even one that is known elsewhere is not taken from there by a full port.
        send(&mut switch, 1, one, BROADCAST, 0);
        assert_eq!(send(&mut switch, 2, two, one, 0), Way::To(0));
        // When its own have aged, there is room for others.
        send(&mut switch, 1, station(100), BROADCAST, 200);
        send(&mut switch, 1, station(500), BROADCAST, 400);
        assert_eq!(send(&mut switch, 2, two, station(500), 400), Way::To(1));
        assert_eq!(send(&mut switch, 2, two, station(100), 400), Way::To(1));
        assert_eq!(send(&mut switch, 2, two, station(101), 400), Way::ToAll);
    }

    #[test]
    fn with_a_port_goes_what_was_behind_it() {
        let mut switch = switch();
        for number in 0..3 {
            send(&mut switch, 1, station(number), BROADCAST, 0);
        }
        // One of them has moved.
        send(&mut switch, 2, station(2), BROADCAST, 0);
        switch.remove(1);
        assert_eq!(send(&mut switch, 0, station(9), station(0), 0), Way::ToAll);
        assert_eq!(send(&mut switch, 0, station(9), station(2), 0), Way::To(2));
        // Who is no port any more teaches nothing, and a new one begins with none.
        send(&mut switch, 1, station(0), BROADCAST, 0);
        assert_eq!(send(&mut switch, 0, station(9), station(0), 0), Way::ToAll);
        switch.add(1, 3);
        for number in 10..14 {
            send(&mut switch, 1, station(number), BROADCAST, 0);
        }
        assert_eq!(switch.stations(), 2 + 3);
    }
}
