//! Which vifs a backend has: the directories below `backend/vif` of our own domain.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use xen_grant::DomId;

use super::attention::Attention;
use crate::platform::Instant;
use xen_store::nodes::found;
use xen_store::values::{parse_domain, parse_u32};
use xen_store::{Store, StoreError, Watch};

const ROOT: &str = "backend/vif";

/// The most vifs that are dealt with at a time. Further ones wait until there is room.
pub const MAX_VIFS: usize = 256;

/// The most domains whose vifs are listed in one poll; the next one goes on.
const MAX_DOMAINS: usize = 64;

/// The most names that are looked at in one directory. (What xenstore lists in 4096 bytes.)
const MAX_NAMES: usize = 2048;

/// A vif: the frontend's domain, and the vif's number there.
pub type VifId = (DomId, u32);

/// What has changed since the poll before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VifChanges {
    /// New vifs: open a [`BackBus`](super::BackBus) for each, soon. (One that vanished and is back
    /// may still have its old one, which then sees to it.)
    pub appeared: Vec<VifId>,
    /// Vifs whose directory is gone. Their `BackBus` notices too, and ends by
    /// [`Remove`](super::BackStep::Remove).
    pub vanished: Vec<VifId>,
}

/// The vifs of a backend.
pub struct Clients<S: Store> {
    store: S,
    watch: Option<Watch>,
    known: BTreeSet<VifId>,
    attention: Attention,
    scan: Option<Scan>,
}

/// A look at all that is there, in parts.
#[derive(Default)]
struct Scan {
    /// Domains to be listed.
    left: Vec<u16>,
    present: BTreeSet<VifId>,
}

impl<S: Store> Clients<S> {
    /// Watches `backend/vif` of our own domain.
    pub fn open(store: S) -> Result<Clients<S>, StoreError> {
        let watch = Some(store.watch(ROOT)?);
        let (known, attention) = (BTreeSet::new(), Attention::new());
        Ok(Clients { store, watch, known, attention, scan: None })
    }

    /// What has changed. Each vif is reported once when it appears, and once when it vanishes.
    ///
    /// Nothing is asked of xenstore unless the watch has fired (it does for every change below a
    /// vif, too), and then at most 65 requests are made; what is left is seen to by the next poll.
    pub fn poll(&mut self, now: Instant) -> VifChanges {
        if self.attention.rests(now) {
            return VifChanges::default();
        }
        if self.watch.as_ref().is_some_and(|watch| self.store.fired(watch)) {
            self.attention.ask();
        }
        if !self.attention.is_asked() && self.scan.is_none() {
            return VifChanges::default();
        }
        match self.scan() {
            Ok(scan) if scan.left.is_empty() => {
                self.attention.served();
                self.compare(&scan.present)
            }
            Ok(scan) => {
                self.scan = Some(scan);
                VifChanges::default()
            }
            Err(error) => {
                let delay = self.attention.failed(now);
                log::debug!("{ROOT}: {error}; trying again in {delay:?}");
                VifChanges::default()
            }
        }
    }

    /// When to call [`poll`](Clients::poll) at the latest; `None` if only an event can matter.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.attention.deadline(Instant(0)).or(self.scan.as_ref().map(|_| Instant(0)))
    }

    /// A vif is done with ([`BackStep::Remove`](super::BackStep::Remove)). Should its directory be
    /// there again, it is a new vif.
    pub fn forget(&mut self, vif: VifId) {
        if self.known.remove(&vif) {
            self.attention.ask();
        }
    }

    fn compare(&mut self, present: &BTreeSet<VifId>) -> VifChanges {
        let vanished: Vec<VifId> = self.known.difference(present).copied().collect();
        for vif in &vanished {
            self.known.remove(vif);
        }
        let room = MAX_VIFS.saturating_sub(self.known.len());
        let appeared: Vec<VifId> = present.difference(&self.known).copied().take(room).collect();
        self.known.extend(&appeared);
        VifChanges { appeared, vanished }
    }

    /// Goes on with the scan, or begins one.
    fn scan(&mut self) -> Result<Scan, StoreError> {
        let mut scan = match self.scan.take() {
            Some(scan) => scan,
            None => {
                let left = self.names(ROOT, parse_domain)?;
                // What changes from now on asks for another.
                self.attention.looked();
                Scan { left, ..Scan::default() }
            }
        };
        for domain in scan.left.split_off(scan.left.len().saturating_sub(MAX_DOMAINS)) {
            for index in self.names(&format!("{ROOT}/{domain}"), parse_u32)? {
                scan.present.insert((DomId(domain), index));
            }
        }
        Ok(scan)
    }

    /// The names in a directory that are numbers, each written as such a number is.
    fn names<N: core::fmt::Display>(
        &self,
        dir: &str,
        number: impl Fn(&[u8]) -> Option<N>,
    ) -> Result<Vec<N>, StoreError> {
        let names = found(self.store.list(None, dir))?.unwrap_or_default();
        let canonical = |name: &alloc::string::String| {
            number(name.as_bytes()).filter(|number| format!("{number}") == *name)
        };
        Ok(names.iter().take(MAX_NAMES).filter_map(canonical).collect())
    }
}

impl<S: Store> Drop for Clients<S> {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            self.store.unwatch(watch);
        }
    }
}

impl<S: Store> core::fmt::Debug for Clients<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Clients({} vifs)", self.known.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xenbus::tests::fake::FakeXen;

    const NOW: Instant = Instant(0);

    fn changes(appeared: &[(u16, u32)], vanished: &[(u16, u32)]) -> VifChanges {
        let vifs = |list: &[(u16, u32)]| list.iter().map(|(d, i)| (DomId(*d), *i)).collect();
        VifChanges { appeared: vifs(appeared), vanished: vifs(vanished) }
    }

    #[test]
    fn each_vif_is_reported_once() {
        let xen = FakeXen::new();
        let mut clients = Clients::open(xen.domain(5)).unwrap();
        assert_eq!(clients.poll(NOW), changes(&[], &[]));

        xen.set("/local/domain/5/backend/vif/7/0/state", "1");
        xen.set("/local/domain/5/backend/vif/7/3/state", "1");
        xen.set("/local/domain/5/backend/vif/30/0/state", "1");
        assert_eq!(clients.poll(NOW), changes(&[(7, 0), (7, 3), (30, 0)], &[]));
        assert_eq!(clients.poll(NOW), changes(&[], &[]));
        xen.set("/local/domain/5/backend/vif/7/0/state", "2");
        assert_eq!(clients.poll(NOW), changes(&[], &[]));

        xen.remove("/local/domain/5/backend/vif/7");
        xen.set("/local/domain/5/backend/vif/8/0/state", "1");
        assert_eq!(clients.poll(NOW), changes(&[(8, 0)], &[(7, 0), (7, 3)]));

        // Removed and made anew between two polls: only its owner can tell.
        xen.remove("/local/domain/5/backend/vif/8/0");
        xen.set("/local/domain/5/backend/vif/8/0/state", "1");
        assert_eq!(clients.poll(NOW), changes(&[], &[]));
        clients.forget((DomId(8), 0));
        assert!(clients.next_deadline().is_some());
        assert_eq!(clients.poll(NOW), changes(&[(8, 0)], &[]));
        drop(clients);
        assert_eq!(xen.watches(), 0);
    }

    #[test]
    fn nothing_is_read_without_a_watch_event() {
        let xen = FakeXen::new();
        let mut clients = Clients::open(xen.domain(5)).unwrap();
        let _ = clients.poll(NOW);
        let before = xen.operations();
        for _ in 0..100 {
            let _ = clients.poll(NOW);
        }
        assert_eq!(xen.operations(), before);
    }

    #[test]
    fn p3_names_that_are_no_vifs_are_passed_over() {
        let xen = FakeXen::new();
        let root = "/local/domain/5/backend/vif";
        for name in
            ["x", "07/0", "-1/0", "32752/0", "65536/0", "7/-1", "7/00", "7/x", "7/4294967296"]
        {
            xen.set(&format!("{root}/{name}/state"), "1");
        }
        xen.set(&format!("{root}/7/4294967295/state"), "1");
        let mut clients = Clients::open(xen.domain(5)).unwrap();
        assert_eq!(clients.poll(NOW), changes(&[(7, u32::MAX)], &[]));
    }

    #[test]
    fn b11_a_flood_of_vifs_is_bounded_and_loses_none_that_was_there() {
        let xen = FakeXen::new();
        xen.set("/local/domain/5/backend/vif/900/0/state", "1");
        let mut clients = Clients::open(xen.domain(5)).unwrap();
        assert_eq!(clients.poll(NOW), changes(&[(900, 0)], &[]));
        for index in 0..2 * MAX_VIFS {
            xen.set(&format!("/local/domain/5/backend/vif/6/{index}/state"), "1");
        }
        let found = clients.poll(NOW);
        assert_eq!((found.appeared.len(), found.vanished.len()), (MAX_VIFS - 1, 0));
        xen.remove("/local/domain/5/backend/vif/6");
        let found = clients.poll(NOW);
        assert_eq!((found.appeared.len(), found.vanished.len()), (0, MAX_VIFS - 1));
    }

    #[test]
    fn n3_many_domains_are_looked_at_a_part_at_a_time() {
        let xen = FakeXen::new();
        let domains = 3 * MAX_DOMAINS as u16;
        let mut clients = Clients::open(xen.domain(5)).unwrap();
        for domain in 1..=domains {
            xen.set(&format!("/local/domain/5/backend/vif/{domain}/0/state"), "1");
        }
        let (mut polls, mut seen) = (0, Vec::new());
        while clients.next_deadline().is_some() {
            let before = xen.operations();
            let found = clients.poll(NOW);
            assert!(xen.operations() - before <= 65);
            polls += 1;
            if found != VifChanges::default() {
                seen.push((polls, found));
            }
            if polls == 2 {
                // Behind the look: it takes another.
                xen.remove(&format!("/local/domain/5/backend/vif/{domains}"));
                xen.set(&format!("/local/domain/5/backend/vif/{}/0/state", domains + 1), "1");
            }
        }
        let all: Vec<_> = (1..=domains).map(|domain| (domain, 0)).collect();
        let later = changes(&[(domains + 1, 0)], &[(domains, 0)]);
        assert_eq!(seen, [(3, changes(&all, &[])), (6, later)]);
    }

    #[test]
    fn a_store_that_fails_is_asked_again() {
        let xen = FakeXen::new();
        xen.set("/local/domain/5/backend/vif/7/0/state", "1");
        let mut clients = Clients::open(xen.domain(5)).unwrap();
        xen.fail_operations(2);
        assert_eq!(clients.poll(NOW), changes(&[], &[]));
        let then = clients.next_deadline().unwrap();
        assert!(then > NOW);
        assert_eq!(clients.poll(then), changes(&[], &[]));
        let later = clients.next_deadline().unwrap();
        assert!(later.since(then) > then.since(NOW));
        assert_eq!(clients.poll(later), changes(&[(7, 0)], &[]));
        assert_eq!(clients.next_deadline(), None);
    }
}
