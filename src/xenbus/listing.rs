//! Which vifs a backend is to look at: what has changed in, or below, `backend/vif` of our own domain.
//!
//! One watch serves for all vifs: it remembers where something has changed. Only if that is not known the
//! directories are listed, one at a time.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use xen_grant::DomId;

use super::attention::Attention;
use super::meter::{Meter, Metered};
use crate::platform::Instant;
use xen_store::nodes::found;
use xen_store::values::{parse_domain, parse_u32};
use xen_store::{Changes, Store, StoreError, Watch};

const ROOT: &str = "backend/vif";

/// A vif's place below it: the frontend's domain, and the vif's number there.
const DEPTH: usize = 2;

/// The most names that are looked at in one directory. (What xenstore lists in 4096 bytes.)
const MAX_NAMES: usize = 2048;

/// A vif: the frontend's domain, and the vif's number there.
pub type VifId = (DomId, u32);

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    /// This vif: it may be new, gone, or changed.
    At(VifId),
    /// All vifs that are known. Those that are not follow.
    All,
}

/// The vifs of a backend.
pub(crate) struct Listing<S: Store> {
    store: Metered<S>,
    watch: Option<Watch>,
    attention: Attention,
    /// The domains that there are have to be listed,
    all: bool,
    /// and the vifs of these.
    domains: BTreeSet<u16>,
}

impl<S: Store> Listing<S> {
    /// Watches `backend/vif` of our own domain.
    pub(crate) fn open(store: S) -> Result<Listing<S>, StoreError> {
        let store = Metered { store, by: Meter::default() };
        let watch = Some(store.watch_below(ROOT, DEPTH)?);
        let (attention, domains) = (Attention::new(), BTreeSet::new());
        Ok(Listing { store, watch, attention, all: false, domains })
    }

    /// The watch, to which each vif adds what it watches besides.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    /// Requests to xenstore so far; wraps.
    pub(crate) fn requests(&self) -> u32 {
        self.store.by.requests()
    }

    /// Says what is to be looked at. Nothing is asked of xenstore unless a directory has to be listed, and
    /// then one is.
    pub(crate) fn poll(&mut self, now: Instant, mut look: impl FnMut(Look)) {
        let changes = self.watch.as_ref().map(|watch| self.store.changes(watch));
        match changes.unwrap_or_default() {
            Changes::None => {}
            Changes::At(places) => {
                for place in &places {
                    match place.split_once('/') {
                        Some((domain, index)) => {
                            let vif = number(domain, parse_domain).zip(number(index, parse_u32));
                            if let Some((domain, index)) = vif {
                                look(Look::At((DomId(domain), index)));
                            }
                        }
                        // The directory of a domain, with all that is in it.
                        None => self.domains.extend(number(place, parse_domain)),
                    }
                }
            }
            Changes::Anywhere => {
                look(Look::All);
                self.all = true;
            }
        }
        if self.is_done() || self.attention.rests(now) {
            return;
        }
        match self.list(&mut look) {
            Ok(()) => self.attention.served(),
            Err(error) => {
                let delay = self.attention.failed(now, error);
                log::debug!("{ROOT}: {error}; trying again in {delay:?}");
            }
        }
    }

    /// When to call [`poll`](Listing::poll) at the latest; `None` if only an event can matter.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.is_done() { None } else { Some(self.attention.retry_at().unwrap_or(now)) }
    }

    /// Lists all that is there once more.
    pub(crate) fn list_anew(&mut self) {
        self.all = true;
    }

    fn is_done(&self) -> bool {
        !self.all && self.domains.is_empty()
    }

    /// Lists one directory.
    fn list(&mut self, look: &mut impl FnMut(Look)) -> Result<(), StoreError> {
        if self.all {
            self.domains = self.numbers(ROOT, parse_domain)?.into_iter().collect();
            self.all = false;
        } else if let Some(&domain) = self.domains.first() {
            for index in self.numbers(&format!("{ROOT}/{domain}"), parse_u32)? {
                look(Look::At((DomId(domain), index)));
            }
            self.domains.remove(&domain);
        }
        Ok(())
    }

    /// The names in a directory that are numbers.
    fn numbers<N: core::fmt::Display>(
        &self,
        dir: &str,
        parse: impl Fn(&[u8]) -> Option<N>,
    ) -> Result<Vec<N>, StoreError> {
        let names = found(self.store.list(None, dir))?.unwrap_or_default();
        Ok(names.iter().take(MAX_NAMES).filter_map(|name| number(name, &parse)).collect())
    }
}

/// A number that is written as such a number is.
fn number<N: core::fmt::Display>(name: &str, parse: impl Fn(&[u8]) -> Option<N>) -> Option<N> {
    parse(name.as_bytes()).filter(|number| format!("{number}") == *name)
}

impl<S: Store> Drop for Listing<S> {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            self.store.unwatch(watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xenbus::tests::fake::{FakeStore, FakeXen};

    const NOW: Instant = Instant(0);

    fn poll(listing: &mut Listing<FakeStore>, now: Instant) -> Vec<Look> {
        let mut looks = Vec::new();
        listing.poll(now, |look| looks.push(look));
        looks
    }

    /// Polls until there is nothing left to list.
    fn all(listing: &mut Listing<FakeStore>) -> Vec<Look> {
        let mut looks = poll(listing, NOW);
        while listing.next_deadline(NOW).is_some() {
            looks.extend(poll(listing, NOW));
        }
        looks
    }

    fn at<const N: usize>(vifs: [(u16, u32); N]) -> [Look; N] {
        vifs.map(|(domain, index)| Look::At((DomId(domain), index)))
    }

    #[test]
    fn what_is_there_is_listed_and_then_only_what_changes() {
        let xen = FakeXen::new();
        let root = "/local/domain/5/backend/vif";
        for vif in ["7/0", "7/3", "30/0"] {
            xen.set(&format!("{root}/{vif}/state"), "1");
        }
        let mut listing = Listing::open(xen.domain(5)).unwrap();
        let expected = [[Look::All].as_slice(), &at([(7, 0), (7, 3), (30, 0)])].concat();
        assert_eq!(all(&mut listing), expected);

        let before = xen.operations();
        assert_eq!(poll(&mut listing, NOW), []);
        for node in ["7/0/state", "7/0/online", "8/1/state"] {
            xen.set(&format!("{root}/{node}"), "2");
        }
        // A domain's directory is made with its first vif.
        assert_eq!(poll(&mut listing, NOW), at([(7, 0), (8, 1)]));
        assert_eq!(xen.operations(), before, "nothing has to be asked");
        xen.remove(&format!("{root}/7/0"));
        assert_eq!(poll(&mut listing, NOW), at([(7, 0)]));

        // A domain's directory alone: what is in it.
        xen.remove(&format!("{root}/7"));
        assert_eq!(poll(&mut listing, NOW), []);
        assert_eq!(xen.operations(), before + 1);
        drop(listing);
        assert_eq!(xen.watches(), 0);
    }

    #[test]
    fn n3_a_poll_lists_one_directory() {
        let xen = FakeXen::new();
        for domain in 1..=200 {
            xen.set(&format!("/local/domain/5/backend/vif/{domain}/0/state"), "1");
        }
        let mut listing = Listing::open(xen.domain(5)).unwrap();
        let (mut polls, mut looks) = (0, Vec::new());
        while polls == 0 || listing.next_deadline(NOW).is_some() {
            let before = xen.operations();
            looks.extend(poll(&mut listing, NOW));
            assert!(xen.operations() - before <= 1);
            polls += 1;
        }
        assert_eq!((polls, looks.len()), (201, 201));
    }

    #[test]
    fn p3_names_that_are_no_vifs_are_passed_over() {
        let xen = FakeXen::new();
        let root = "/local/domain/5/backend/vif";
        let names =
            ["x", "07/0", "-1/0", "32752/0", "65536/0", "7/-1", "7/00", "7/x", "7/4294967296"];
        for name in names {
            xen.set(&format!("{root}/{name}/state"), "1");
        }
        xen.set(&format!("{root}/7/4294967295/state"), "1");
        let mut listing = Listing::open(xen.domain(5)).unwrap();
        let expected = [Look::All, Look::At((DomId(7), u32::MAX))];
        assert_eq!(all(&mut listing), expected);
        // As places of events likewise.
        for name in names {
            xen.set(&format!("{root}/{name}/state"), "2");
        }
        assert_eq!(poll(&mut listing, NOW), []);
    }

    #[test]
    fn a_store_that_fails_is_asked_again() {
        let xen = FakeXen::new();
        xen.set("/local/domain/5/backend/vif/7/0/state", "1");
        let mut listing = Listing::open(xen.domain(5)).unwrap();
        xen.fail_operations(2);
        assert_eq!(poll(&mut listing, NOW), [Look::All]);
        let then = listing.next_deadline(NOW).unwrap();
        assert!(then > NOW);
        assert_eq!(poll(&mut listing, then), []);
        let later = listing.next_deadline(then).unwrap();
        assert!(later.since(then) > then.since(NOW));
        assert_eq!(poll(&mut listing, later), []);
        assert_eq!(poll(&mut listing, later), at([(7, 0)]));
        assert_eq!(listing.next_deadline(later), None);
    }
}
