//! Watches: who is told of what. One bit each, however often it fires.

use xen_grant::DomId;
use xen_netfront::store::StoreError;

use super::MAX_WATCHES;
use super::path::within;
use super::tree::StoreState;

pub(super) struct WatchState {
    pub(super) domain: DomId,
    path: String,
    fired: bool,
}

impl StoreState {
    /// Sets a watch, fired once already.
    pub(super) fn add_watch(&mut self, id: DomId, path: String) -> Result<u32, StoreError> {
        if id != DomId(0) && self.watches_of(id) >= MAX_WATCHES {
            return Err(StoreError::Quota);
        }
        self.last_watch += 1;
        self.watches.insert(self.last_watch, WatchState { domain: id, path, fired: true });
        Ok(self.last_watch)
    }

    pub(super) fn remove_watch(&mut self, id: DomId, watch: u32) {
        if self.watches.get(&watch).is_some_and(|state| state.domain == id) {
            self.watches.remove(&watch);
        }
    }

    pub(super) fn watches_of(&self, id: DomId) -> usize {
        self.watches.values().filter(|watch| watch.domain == id).count()
    }

    pub(super) fn take_fired(&mut self, id: DomId, watch: u32) -> bool {
        match self.watches.get_mut(&watch) {
            Some(state) if state.domain == id => std::mem::take(&mut state.fired),
            Some(_) | None => false,
        }
    }

    /// Sets a watch's bit; tells whose it is if the watch is still there.
    pub(super) fn set_fired(&mut self, watch: u32) -> Option<DomId> {
        let state = self.watches.get_mut(&watch)?;
        state.fired = true;
        Some(state.domain)
    }

    /// The watches that a change of `path` fires: those on it or above it whose owner may read the
    /// node. `removed` is given for a removal: `Some(true)` for a node that went with a directory
    /// above it, of which only watches on the very node are told.
    pub(super) fn watchers(&self, path: &str, removed: Option<bool>) -> Vec<u32> {
        let Some(node) = self.nodes.get(path) else { return Vec::new() };
        let exact = removed == Some(true);
        let told = self.watches.iter().filter(|(_, watch)| {
            let hit = if exact { watch.path == path } else { within(path, &watch.path) };
            hit && node.perms.of_domain(watch.domain).read
        });
        told.map(|(&id, _)| id).collect()
    }

    /// The watches on a special path such as `@releaseDomain`.
    pub(super) fn watchers_of_special(&self, path: &str) -> Vec<u32> {
        self.watches.iter().filter(|(_, watch)| watch.path == path).map(|(&id, _)| id).collect()
    }
}
