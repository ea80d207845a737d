//! Which request ids are out, and what waits for their return.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::PeerFault;

/// No further id is free.
const NONE: u16 = u16::MAX;

/// What belongs to one id. An id is free, staged (pushed but not published), published, free:
/// `value` is there in the two states in the middle, and `index` tells those two apart.
struct Entry<T> {
    value: Option<T>,
    /// The ring index of its request.
    index: u32,
    /// The next free id.
    next: u16,
}

/// Up to `N` requests in flight, each with an id below `N` and something of ours that its
/// response brings back.
///
/// `N` is the ring's size, a power of two. Ids are handed out last in, first out, so that a quiet
/// device keeps to a few warm entries.
pub struct InFlight<T, const N: usize> {
    entries: Box<[Entry<T>; N]>,
    first_free: u16,
    len: u16,
}

impl<T, const N: usize> InFlight<T, N> {
    const VALID: () = assert!(N.is_power_of_two() && N < NONE as usize);

    /// All ids free.
    pub fn new() -> InFlight<T, N> {
        const { Self::VALID };
        let entries: Vec<Entry<T>> = (1..=N as u16)
            .map(|next| Entry {
                value: None,
                index: 0,
                next: if next == N as u16 { NONE } else { next },
            })
            .collect();
        match <Box<[Entry<T>; N]>>::try_from(entries.into_boxed_slice()) {
            Ok(entries) => InFlight { entries, first_free: 0, len: 0 },
            Err(_) => unreachable!("N entries were made"),
        }
    }

    /// Ids in flight.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether no id is in flight.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a free id for the request at ring index `index`; gives the value back when none is
    /// free.
    #[inline]
    pub fn insert(&mut self, index: u32, value: T) -> Result<u16, T> {
        let id = self.first_free;
        let Some(entry) = self.entries.get_mut(usize::from(id)) else { return Err(value) };
        self.first_free = entry.next;
        entry.index = index;
        entry.value = Some(value);
        self.len += 1;
        Ok(id)
    }

    /// Ends the request `id` that the peer has answered. `published` is the ring's
    /// [`published`](crate::FrontRing::published) index.
    #[inline]
    pub fn complete(&mut self, id: u16, published: u32) -> Result<T, PeerFault> {
        let Some(entry) = self.entries.get_mut(usize::from(id)) else {
            return Err(PeerFault::UnknownId(id));
        };
        // At most N requests lie between what was popped and what is staged, so a published one
        // is 1 to N behind, and a staged one is not.
        if published.wrapping_sub(entry.index).wrapping_sub(1) >= N as u32 {
            return Err(PeerFault::NotOutstanding(id));
        }
        let Some(value) = entry.value.take() else { return Err(PeerFault::NotOutstanding(id)) };
        entry.next = self.first_free;
        self.first_free = id;
        self.len -= 1;
        Ok(value)
    }

    /// Takes back everything that is in flight, whatever its state: the ring is gone.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        let (first_free, len) = (&mut self.first_free, &mut self.len);
        self.entries.iter_mut().enumerate().filter_map(move |(id, entry)| {
            let value = entry.value.take()?;
            entry.next = *first_free;
            *first_free = id as u16;
            *len -= 1;
            Some(value)
        })
    }
}

impl<T, const N: usize> Default for InFlight<T, N> {
    fn default() -> Self {
        InFlight::new()
    }
}
