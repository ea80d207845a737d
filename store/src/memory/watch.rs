//! Watches: who is told of what. One bit each, however often it fires.

use alloc::string::String;
use alloc::vec::Vec;

use super::Perms;
use super::path::{absolute, parent, within};
use super::tree::Tree;
use crate::{StoreError, Watch};

#[derive(Debug)]
pub(super) struct WatchState {
    pub(super) domain: u16,
    path: String,
    fired: bool,
}

impl Tree {
    /// Sets a watch, fired once already. A path that begins with `@` is a special one, such as
    /// `@releaseDomain`.
    pub fn watch(&mut self, domain: u16, path: &str) -> Result<Watch, StoreError> {
        let path = if path.starts_with('@') { path.into() } else { absolute(domain, path)? };
        if domain != 0 && self.watches_of(domain) >= self.quota.watches {
            return Err(StoreError::Quota);
        }
        self.last_watch = self.last_watch.wrapping_add(1);
        self.watches.insert(self.last_watch, WatchState { domain, path, fired: true });
        Ok(Watch(self.last_watch))
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
        match self.watches.get_mut(&watch.0) {
            Some(state) if state.domain == domain => core::mem::take(&mut state.fired),
            Some(_) | None => false,
        }
    }

    /// Sets the bit of a watch named by [`Effects::watches`](super::Effects::watches); tells whose
    /// it is if the watch is still there.
    pub fn fire(&mut self, watch: u32) -> Option<u16> {
        let state = self.watches.get_mut(&watch)?;
        state.fired = true;
        Some(state.domain)
    }

    /// The watches that a change of `path` fires: those on it or above it whose owner may read the
    /// node, or the directory it is in, or could until now (`before`). Of a node that went with a
    /// directory above it, only watches on the very node are told (`exact`).
    pub(super) fn watchers(&self, path: &str, exact: bool, before: Option<&Perms>) -> Vec<u32> {
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
        told.map(|(&id, _)| id).collect()
    }

    /// The watches on a special path such as `@releaseDomain`.
    pub(super) fn watchers_of_special(&self, path: &str) -> Vec<u32> {
        self.watches.iter().filter(|(_, watch)| watch.path == path).map(|(&id, _)| id).collect()
    }
}
