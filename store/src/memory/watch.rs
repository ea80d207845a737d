//! Watches: who is told of what, and where it was if it wants to know. Little each, however often it fires.

use alloc::string::String;
use alloc::vec::Vec;

use super::path::{absolute, parent, within};
use super::tree::Tree;
use super::{Event, Perms};
use crate::changes::place_below;
use crate::{Changes, StoreError, Watch};

#[derive(Debug)]
pub(super) struct WatchState {
    pub(super) domain: u16,
    pub(super) path: String,
    /// Of how many names are the places that it remembers.
    depth: usize,
    fired: Changes,
    /// The watch whose events its own are, and at which place.
    part_of: Option<(u32, String)>,
}

impl Tree {
    /// Sets a watch, fired once already. A path that begins with `@` is a special one, such as
    /// `@releaseDomain`.
    pub fn watch(&mut self, domain: u16, path: &str) -> Result<Watch, StoreError> {
        self.watch_below(domain, path, 0)
    }

    /// Sets a watch that remembers places of at most `depth` names, fired once already.
    pub fn watch_below(
        &mut self,
        domain: u16,
        path: &str,
        depth: usize,
    ) -> Result<Watch, StoreError> {
        let path = if path.starts_with('@') { path.into() } else { absolute(domain, path)? };
        if domain != 0 && self.watches_of(domain) >= self.quota.watches {
            return Err(StoreError::Quota);
        }
        self.last_watch = self.last_watch.wrapping_add(1);
        let fired = Changes::Anywhere;
        self.watches
            .insert(self.last_watch, WatchState { domain, path, depth, fired, part_of: None });
        Ok(Watch(self.last_watch))
    }

    /// Sets a watch whose events are those of another one of the domain's, fired once already.
    pub fn watch_also(
        &mut self,
        domain: u16,
        watch: &Watch,
        path: &str,
        place: &str,
    ) -> Result<Watch, StoreError> {
        let part = self.watch(domain, path)?;
        if let Some(state) = self.watches.get_mut(&part.0) {
            state.fired = Changes::None;
            state.part_of = Some((watch.0, place.into()));
        }
        self.note_at(domain, watch.0, place);
        Ok(part)
    }

    /// Takes a watch of the domain's away.
    pub fn unwatch(&mut self, domain: u16, watch: &Watch) {
        if self.watches.get(&watch.0).is_some_and(|state| state.domain == domain) {
            self.watches.remove(&watch.0);
        }
    }

    /// How many watches a domain has.
    pub fn watches_of(&self, domain: u16) -> usize {
        self.watches.values().filter(|watch| watch.domain == domain).count()
    }

    /// Whether a watch of the domain's has fired since this was last asked.
    pub fn fired(&mut self, domain: u16, watch: &Watch) -> bool {
        self.changes(domain, watch) != Changes::None
    }

    /// Where a watch of the domain's has fired since this was last asked.
    pub fn changes(&mut self, domain: u16, watch: &Watch) -> Changes {
        match self.watches.get_mut(&watch.0) {
            Some(state) if state.domain == domain => core::mem::take(&mut state.fired),
            Some(_) | None => Changes::None,
        }
    }

    /// Delivers a watch event of [`Effects::events`](super::Effects::events); tells whose the watch is
    /// if it is still there.
    pub fn fire(&mut self, event: &Event) -> Option<u16> {
        let state = self.watches.get_mut(&event.watch)?;
        let domain = state.domain;
        match &state.part_of {
            None => {
                let place = place_below(&event.path, &state.path).unwrap_or_default();
                state.fired.note(place, state.depth);
            }
            Some((whole, place)) => {
                let (whole, place) = (*whole, place.clone());
                self.note_at(domain, whole, &place);
            }
        }
        Some(domain)
    }

    /// A part of a watch has fired.
    fn note_at(&mut self, domain: u16, watch: u32, place: &str) {
        if let Some(whole) = self.watches.get_mut(&watch).filter(|whole| whole.domain == domain) {
            whole.fired.note(place, usize::MAX);
        }
    }

    /// The events of a change of `path`: of watches on it or above it whose owner may read the node,
    /// or the directory it is in, or could until now (`before`). Of a node that went with a directory
    /// above it, only watches on the very node are told (`exact`).
    pub(super) fn watchers(&self, path: &str, exact: bool, before: Option<&Perms>) -> Vec<Event> {
        let Some(node) = self.node(None, path) else { return Vec::new() };
        let above = parent(path).and_then(|above| self.node(None, above));
        let readable = |domain: u16| {
            let perms = [Some(&node.perms), above.map(|node| &node.perms), before];
            perms.into_iter().flatten().any(|perms| perms.of_domain(domain).read)
        };
        let told = self.watches.iter().filter(|(_, watch)| {
            let hit = if exact { watch.path == path } else { within(path, &watch.path) };
            hit && readable(watch.domain)
        });
        told.map(|(&watch, _)| Event { watch, path: path.into() }).collect()
    }

    /// The watches on a special path such as `@releaseDomain`.
    pub(super) fn watchers_of_special(&self, path: &str) -> Vec<Event> {
        let told = self.watches.iter().filter(|(_, watch)| watch.path == path);
        told.map(|(&watch, _)| Event { watch, path: path.into() }).collect()
    }
}
