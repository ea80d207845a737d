//! Which request ids are out, and what waits for their return.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::{PeerFault, fill};

/// No further id is free.
const NONE: u16 = u16::MAX;

/// One id. In its life it is free, staged (pushed but not published), published, and free again.
struct Entry<F, B> {
    /// There while the id is free.
    free: Option<F>,
    /// There while it is staged or published: `index` tells which.
    busy: Option<B>,
    /// While busy, the ring index of its request.
    index: u32,
    /// While free, the next free id.
    next: u16,
}

/// Up to `N` requests in flight, each with an id below `N`.
///
/// An id owns an `F` while it is free and a `B` while it is in flight: a grant reference, say, and
/// the page that it grants. So whatever a request needs is at hand, and nothing is searched for,
/// locked or allocated. `N` is the ring's size, a power of two. Ids are handed out last in, first
/// out, so that a quiet device keeps to a few warm entries.
pub struct InFlight<F, B, const N: usize> {
    entries: Box<[Entry<F, B>; N]>,
    first_free: u16,
    free: u16,
    retired: u16,
}

impl<F, B, const N: usize> InFlight<F, B, N> {
    const VALID: () = assert!(N.is_power_of_two() && N < NONE as usize);

    /// One free id for each of `owned`, up to `N`; ids for which there is none are retired.
    pub fn new(owned: impl IntoIterator<Item = F>) -> InFlight<F, B, N> {
        const { Self::VALID };
        let mut owned = owned.into_iter();
        let mut entries: Vec<Entry<F, B>> = Vec::with_capacity(N);
        let (mut first_free, mut free) = (NONE, 0);
        for id in 0..N as u16 {
            let entry = Entry { free: owned.next(), busy: None, index: 0, next: first_free };
            if entry.free.is_some() {
                (first_free, free) = (id, free + 1);
            }
            entries.push(entry);
        }
        let retired = N as u16 - free;
        match <Box<[Entry<F, B>; N]>>::try_from(entries.into_boxed_slice()) {
            Ok(entries) => InFlight { entries, first_free, free, retired },
            Err(_) => unreachable!("N entries were made"),
        }
    }

    /// Ids in flight.
    pub fn len(&self) -> usize {
        N - usize::from(self.free) - usize::from(self.retired)
    }

    /// Whether no id is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids that can be started.
    #[inline]
    pub fn free(&self) -> usize {
        usize::from(self.free)
    }

    /// Ids that own nothing.
    pub fn retired(&self) -> usize {
        usize::from(self.retired)
    }

    /// The next free id, if there is one.
    #[inline]
    pub fn vacant(&mut self) -> Option<Vacant<'_, F, B>> {
        // Without a free id this is some entry that owns nothing.
        let entry = &mut self.entries[usize::from(self.first_free) % N];
        entry.free.is_some().then_some(Vacant {
            entry,
            first_free: &mut self.first_free,
            free: &mut self.free,
        })
    }

    /// Ends the request `id` that the peer has answered. `published` is the ring's
    /// [`published`](crate::FrontRing::published) index. `end` makes what was in flight into what
    /// the free id owns from now on; without that (`None`) the id is retired.
    #[inline]
    pub fn complete(
        &mut self,
        id: u16,
        published: u32,
        end: impl FnOnce(B) -> Option<F>,
    ) -> Result<(), PeerFault> {
        // What is staged is less than N ahead. What is published may be any way behind: answers
        // come in whatever order, and one may be overtaken by more than a ring of others.
        let busy = self.entries.get_mut(usize::from(id)).and_then(|entry| {
            let ahead = entry.index.wrapping_sub(published);
            let busy = entry.busy.take_if(|_| ahead >= N as u32)?;
            Some((entry, busy))
        });
        let Some((entry, busy)) = busy else { return Err(refuse::<N>(id)) };
        match end(busy) {
            Some(owned) => {
                fill(&mut entry.free, owned);
                entry.next = self.first_free;
                self.first_free = id;
                self.free += 1;
            }
            None => self.retired += 1,
        }
        Ok(())
    }

    /// Gives something to own to an id that was retired, which is free again then; gives it back if
    /// there is none.
    pub fn restore(&mut self, owned: F) -> Result<(), F> {
        let is_retired = |entry: &Entry<F, B>| entry.free.is_none() && entry.busy.is_none();
        let Some(id) = self.entries.iter().position(is_retired) else { return Err(owned) };
        let entry = &mut self.entries[id];
        entry.free = Some(owned);
        entry.next = self.first_free;
        // Fewer than NONE.
        self.first_free = id as u16;
        self.free += 1;
        self.retired -= 1;
        Ok(())
    }

    /// Takes everything out, whatever its state: the ring is gone. What is in flight is ended by
    /// `end`; what free ids own comes out of the iterator.
    pub fn dissolve(self, mut end: impl FnMut(B) -> Option<F>) -> impl Iterator<Item = F> {
        let entries = (*self.entries).into_iter();
        entries.filter_map(move |entry| entry.free.or_else(|| entry.busy.and_then(&mut end)))
    }
}

/// A free id, about to be used; see [`InFlight::vacant`].
pub struct Vacant<'a, F, B> {
    entry: &'a mut Entry<F, B>,
    first_free: &'a mut u16,
    free: &'a mut u16,
}

impl<F, B> Vacant<'_, F, B> {
    /// Starts the request at ring index `index`: makes what the id owned into what the response
    /// will bring back. Returns the id, and what else `make` returns.
    #[inline]
    pub fn start<R>(self, index: u32, make: impl FnOnce(F) -> (B, R)) -> Option<(u16, R)> {
        let (busy, rest) = make(self.entry.free.take()?);
        fill(&mut self.entry.busy, busy);
        self.entry.index = index;
        *self.free -= 1;
        let id = core::mem::replace(self.first_free, self.entry.next);
        Some((id, rest))
    }
}

/// What is wrong with a response that is not to a published request.
#[cold]
#[inline(never)]
fn refuse<const N: usize>(id: u16) -> PeerFault {
    if usize::from(id) < N { PeerFault::NotOutstanding(id) } else { PeerFault::UnknownId(id) }
}

impl<F, B, const N: usize> core::fmt::Debug for InFlight<F, B, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("InFlight")
            .field("free", &self.free())
            .field("in_flight", &self.len())
            .field("retired", &self.retired())
            .finish_non_exhaustive()
    }
}

impl<F, B> core::fmt::Debug for Vacant<'_, F, B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Vacant({})", self.first_free)
    }
}
