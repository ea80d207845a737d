//! Whose event has come: a bit for each client, set from wherever events are seen.

use alloc::sync::Arc;
use alloc::task;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Waker;

use packet_views::Wake;

use super::MAX_CLIENTS;

const WORDS: usize = MAX_CLIENTS / 64;

/// Clients, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set([u64; WORDS]);

impl Set {
    pub(super) fn insert(&mut self, client: usize) {
        if let Some(word) = self.0.get_mut(client / 64) {
            *word |= 1 << (client % 64);
        }
    }

    pub(super) fn remove(&mut self, client: usize) {
        if let Some(word) = self.0.get_mut(client / 64) {
            *word &= !(1 << (client % 64));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    pub(super) fn extend(&mut self, others: Set) {
        self.0.iter_mut().zip(others.0).for_each(|(word, more)| *word |= more);
    }

    /// The first one from `start` on; after the last comes the first again.
    pub(super) fn next_from(&self, start: usize) -> Option<usize> {
        let start = start % MAX_CLIENTS;
        self.first_from(start).or_else(|| self.first_from(0))
    }

    fn first_from(&self, start: usize) -> Option<usize> {
        let first = self.0.get(start / 64)? >> (start % 64);
        if first != 0 {
            return Some(start + first.trailing_zeros() as usize);
        }
        let later = self.0.iter().enumerate().skip(start / 64 + 1);
        let mut found = later.filter(|(_, word)| **word != 0);
        found.next().map(|(number, word)| number * 64 + word.trailing_zeros() as usize)
    }
}

/// The bits that events set, and who waits for any of them.
#[derive(Debug, Default)]
pub(super) struct Ready {
    words: [AtomicU64; WORDS],
    pub(super) wake: Wake,
}

impl Ready {
    pub(super) fn mark(&self, client: usize) {
        if let Some(word) = self.words.get(client / 64) {
            word.fetch_or(1 << (client % 64), Ordering::Release);
        }
    }

    /// Those that are marked, which are not any more.
    pub(super) fn take(&self) -> Set {
        let mut set = Set::default();
        for (taken, word) in set.0.iter_mut().zip(&self.words) {
            if word.load(Ordering::Relaxed) != 0 {
                *taken = word.swap(0, Ordering::Acquire);
            }
        }
        set
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// What marks a client when it is woken. Waking neither allocates nor frees: the client's slot keeps it.
    pub(super) fn waker(self: &Arc<Self>, client: usize) -> Waker {
        Waker::from(Arc::new(Marker { ready: self.clone(), client }))
    }
}

struct Marker {
    ready: Arc<Ready>,
    client: usize,
}

impl task::Wake for Marker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.mark(self.client);
        self.ready.wake.wake();
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_goes_round(
            members in proptest::collection::btree_set(0..MAX_CLIENTS, 0..20),
            start in 0..2 * MAX_CLIENTS,
        ) {
            let mut set = Set::default();
            members.iter().for_each(|member| set.insert(*member));
            prop_assert_eq!(set.is_empty(), members.is_empty());
            let (mut at, mut seen) = (start, Vec::new());
            while let Some(member) = set.next_from(at) {
                seen.push(member);
                set.remove(member);
                at = member + 1;
            }
            let start = start % MAX_CLIENTS;
            let later = members.range(start..).chain(members.range(..start));
            prop_assert!(later.eq(&seen));
        }
    }

    #[test]
    fn an_event_marks_its_client_and_wakes_who_waits() {
        let ready = Arc::new(Ready::default());
        let wakers = [0, 63, 64, 255].map(|client| (client, ready.waker(client)));
        for (client, waker) in wakers {
            assert!(ready.is_empty());
            waker.wake_by_ref();
            waker.wake();
            assert!(!ready.is_empty());
            let taken = ready.take();
            assert_eq!((taken.next_from(0), taken.next_from(200)), (Some(client), Some(client)));
            assert!(ready.take().is_empty());
        }
    }
}
