//! The two directories of a vif, as one end sees them: its own, and the peer's.
//!
//! ```text
//!   frontend's directory                        backend's directory
//!   /local/domain/F/device/vif/N   ──backend──►  /local/domain/B/backend/vif/F/N
//!                                  ◄─frontend──
//!        state, rings, ...                            state, features, online, ...
//! ```
//!
//! Each end watches its own directory and the peer's, writes only to its own, and takes both
//! watches with it when it goes.

use alloc::format;
use alloc::string::String;

use super::meter::{Meter, Metered};
use super::state::BusState;
use xen_store::nodes::{Reader, join, transact};
use xen_store::{Store, StoreError, Transaction, Watch};

/// How often a transaction is run that meets another one each time, before we come back later.
pub(super) const TRIES: usize = 2;

pub(super) struct Directories<S: Store> {
    store: Metered<S>,
    own: String,
    /// `None` if somebody else watches it.
    own_watch: Option<Watch>,
    /// The watch of somebody who watches many vifs, and our place in it.
    part_of: Option<(Watch, String)>,
    /// What of the peer's directory is watched: `""` all of it, `"/state"` that node.
    watched: &'static str,
    peer: Option<(String, Watch)>,
}

impl<S: Store> Directories<S> {
    /// Watches our directory. The peer's is not known yet.
    pub(super) fn open(store: S, own: String, watched: &'static str) -> Result<Self, StoreError> {
        let mut dirs = Directories::new(store, own, watched);
        dirs.own_watch = Some(dirs.store.watch(&dirs.own)?);
        Ok(dirs)
    }

    /// `watch` is told of changes in our directory, at `place`, and will be of the peer's.
    pub(super) fn part_of(
        store: S,
        own: String,
        watched: &'static str,
        watch: &Watch,
        place: String,
    ) -> Self {
        let mut dirs = Directories::new(store, own, watched);
        dirs.part_of = Some((Watch(watch.0), place));
        dirs
    }

    fn new(store: S, own: String, watched: &'static str) -> Self {
        let store = Metered { store, by: Meter::default() };
        Directories { store, own, own_watch: None, part_of: None, watched, peer: None }
    }

    /// Requests to xenstore so far; wraps.
    pub(super) fn requests(&self) -> u32 {
        self.store.by.requests()
    }

    /// Whether something has changed since this was last asked.
    pub(super) fn take_events(&self) -> bool {
        let fired = |watch: &Watch| self.store.fired(watch);
        let own = self.own_watch.as_ref().is_some_and(fired);
        let peer = self.peer.as_ref().is_some_and(|(_, watch)| fired(watch));
        own || peer
    }

    /// Watches another directory of the peer's, or none.
    pub(super) fn follow(&mut self, dir: Option<&str>) -> Result<(), StoreError> {
        if self.peer_dir() == dir {
            return Ok(());
        }
        if let Some((_, watch)) = self.peer.take() {
            self.store.unwatch(watch);
        }
        if let Some(dir) = dir {
            let path = format!("{dir}{}", self.watched);
            let watch = match &self.part_of {
                None => self.store.watch(&path)?,
                Some((whole, place)) => self.store.watch_also(whole, &path, place)?,
            };
            self.peer = Some((String::from(dir), watch));
        }
        Ok(())
    }

    /// Takes both watches away.
    pub(super) fn forget(&mut self) {
        let peer = self.peer.take().map(|(_, watch)| watch);
        for watch in self.own_watch.take().into_iter().chain(peer) {
            self.store.unwatch(watch);
        }
    }

    pub(super) fn store(&self) -> &Metered<S> {
        &self.store
    }

    pub(super) fn dir(&self) -> &str {
        &self.own
    }

    pub(super) fn peer_dir(&self) -> Option<&str> {
        self.peer.as_ref().map(|(dir, _)| &**dir)
    }

    /// Our directory, to read.
    pub(super) fn own(&self) -> Reader<'_, Metered<S>> {
        Reader { store: &self.store, within: None, dir: &self.own }
    }

    /// The peer's directory, to read, once it is known.
    pub(super) fn peer(&self) -> Option<Reader<'_, Metered<S>>> {
        self.peer_dir().map(|dir| Reader { store: &self.store, within: None, dir })
    }

    /// Does something in a transaction; once more if it met another one.
    pub(super) fn transact<T>(
        &self,
        work: impl FnMut(Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        transact(&self.store, TRIES, work)
    }

    /// What the peer's `state` says.
    pub(super) fn peer_state(&self) -> Result<BusState, StoreError> {
        let value = match self.peer() {
            Some(peer) => peer.bytes("state")?,
            None => None,
        };
        Ok(value.as_deref().map(BusState::parse).unwrap_or_default())
    }

    /// What our own `state` says; `None` if our directory is gone.
    pub(super) fn own_state(
        &self,
        within: Option<Transaction>,
    ) -> Result<Option<BusState>, StoreError> {
        // Whether it is there is not guessed from an answer that says something else.
        match self.store.read(within, &join(&self.own, "state")) {
            Ok(value) => Ok(Some(BusState::parse(&value))),
            // Longer than any that is carried: it is there, and makes no sense.
            Err(StoreError::Quota) => Ok(Some(BusState::Unknown)),
            Err(StoreError::NotFound) => match self.store.list(within, &self.own) {
                Ok(_) | Err(StoreError::Quota) => Ok(Some(BusState::Unknown)),
                Err(StoreError::NotFound) => Ok(None),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Moves our `state` on, and does `more`, in one transaction, like
    /// [`while_state`](Directories::while_state).
    pub(super) fn change_state(
        &self,
        from: BusState,
        to: BusState,
        mut more: impl FnMut(&Self, Transaction) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let state = join(&self.own, "state");
        self.while_state(from, |transaction| {
            more(self, transaction)?;
            self.store.write(Some(transaction), &state, to.digit().as_bytes())
        })
    }

    /// Does something to our directory in one transaction.
    ///
    /// Returns false, and nothing is done, if `state` is no longer what we left there: somebody
    /// has removed the directory (writing would bring back a ghost of it) or made it anew.
    pub(super) fn while_state(
        &self,
        state: BusState,
        mut work: impl FnMut(Transaction) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        self.transact(|transaction| {
            if self.own_state(Some(transaction))? != Some(state) {
                return Ok(false);
            }
            work(transaction)?;
            Ok(true)
        })
    }
}

impl<S: Store> Drop for Directories<S> {
    fn drop(&mut self) {
        self.forget();
    }
}
