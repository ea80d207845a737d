//! First in, first out: what waits, in memory that grows by need and is asked for first.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// The least that is allocated.
const LEAST: usize = 8;

/// A queue in a ring of slots, a power of two of them. Whoever takes something out takes it out of its slot:
/// what is left over there has nothing to drop.
pub(super) struct Fifo<T> {
    slots: Vec<T>,
    first: usize,
    len: usize,
}

impl<T: Default> Fifo<T> {
    pub(super) fn new() -> Fifo<T> {
        Fifo { slots: Vec::new(), first: 0, len: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether it has memory for so many more.
    #[inline]
    pub(super) fn has_memory(&self, more: usize) -> bool {
        self.slots.len() - self.len >= more
    }

    /// Sees to memory for so many more.
    #[cold]
    #[inline(never)]
    pub(super) fn grow(&mut self, more: usize) -> Result<(), TryReserveError> {
        if self.has_memory(more) {
            return Ok(());
        }
        // What is asked for is bounded by those who ask.
        let size = (self.len + more).next_power_of_two().max(LEAST);
        let mut slots = Vec::new();
        slots.try_reserve_exact(size)?;
        while let Some(item) = self.pop() {
            slots.push(core::mem::take(item));
        }
        let len = slots.len();
        slots.resize_with(size, T::default);
        *self = Fifo { slots, first: 0, len };
        Ok(())
    }

    #[inline]
    fn at(&self, number: usize) -> usize {
        self.first.wrapping_add(number) & self.slots.len().wrapping_sub(1)
    }

    /// Puts one at the end: there is memory for it.
    #[inline]
    pub(super) fn push(&mut self, item: T) {
        debug_assert!(self.has_memory(1), "nobody has asked for memory");
        let at = self.at(self.len);
        if let Some(slot) = self.slots.get_mut(at) {
            // What is left over there holds nothing, so it need not be looked at.
            core::mem::forget(core::mem::replace(slot, item));
            self.len += 1;
        }
    }

    /// The first one.
    #[inline]
    pub(super) fn first(&mut self) -> Option<&mut T> {
        if self.len == 0 { None } else { self.slots.get_mut(self.first) }
    }

    /// Takes the [first](Fifo::first) one out, which is there.
    #[inline]
    pub(super) fn skip(&mut self) {
        self.len = self.len.saturating_sub(1);
        self.first = self.at(1);
    }

    /// Takes the first one out, in its place.
    pub(super) fn pop(&mut self) -> Option<&mut T> {
        self.len = self.len.checked_sub(1)?;
        let at = self.first;
        self.first = self.at(1);
        self.slots.get_mut(at)
    }

    /// Takes the last one out, in its place.
    pub(super) fn pop_last(&mut self) -> Option<&mut T> {
        self.len = self.len.checked_sub(1)?;
        let at = self.at(self.len);
        self.slots.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::proptest;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_queue_however_it_grows(steps in vec((0..8_u8, 1..20_usize), 0..400)) {
            let (mut fifo, mut model) = (Fifo::new(), VecDeque::new());
            for (n, (step, more)) in steps.into_iter().enumerate() {
                match step {
                    0..=4 => {
                        if !fifo.has_memory(1) {
                            fifo.grow(more).unwrap();
                        }
                        assert!(fifo.has_memory(1));
                        fifo.push(Some(Box::new(n)));
                        model.push_back(n);
                    }
                    5 if !model.is_empty() => {
                        let popped = fifo.first().and_then(Option::take);
                        assert_eq!(popped.as_deref().copied(), model.pop_front());
                        fifo.skip();
                    }
                    5 | 6 => {
                        let popped = fifo.pop().and_then(Option::take);
                        assert_eq!(popped.as_deref().copied(), model.pop_front());
                    }
                    _ => {
                        let popped = fifo.pop_last().and_then(Option::take);
                        assert_eq!(popped.as_deref().copied(), model.pop_back());
                    }
                }
                let first = fifo.first().and_then(|it| it.as_deref().copied());
                assert_eq!((first, fifo.len()), (model.front().copied(), model.len()));
            }
        }
    }

    #[test]
    fn an_empty_queue_gives_nothing() {
        let mut none = Fifo::<u32>::new();
        assert_eq!(none.first(), None);
        assert_eq!(none.len(), 0);
        assert_eq!(none.pop(), None);
        assert_eq!(none.len(), 0);
        assert_eq!(none.pop_last(), None);
        assert!(!none.has_memory(1));
    }
}
