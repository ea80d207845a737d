//! A ring page as raw words, with no regard for what they mean to the other side.

use core::num::Wrapping;
use std::sync::atomic::Ordering;

use crate::{ForeignPage, OwnPage};

use super::token::{Header, Ring, Value};

/// Slots of either ring.
pub(super) const SLOTS: u32 = 256;
/// First word of slot 0.
const FIRST_SLOT: usize = 16;

/// Whose page it is.
pub(super) enum Memory {
    /// Ours, granted to the other side.
    Own(OwnPage),
    /// Mapped.
    Mapped(ForeignPage),
}

/// One ring as one side drives it.
pub(super) struct RawRing {
    ring: Ring,
    memory: Memory,
    /// Which message of the other side comes next.
    pub(super) cons: Wrapping<u32>,
    /// Where our next message goes.
    pub(super) prod: Wrapping<u32>,
}

impl RawRing {
    /// A ring that goes on where the page says the responses are.
    pub(super) fn new(ring: Ring, memory: Memory) -> RawRing {
        let mut raw = RawRing { ring, memory, cons: Wrapping(0), prod: Wrapping(0) };
        raw.prod = Wrapping(raw.header(Header::RspProd));
        raw.cons = raw.prod;
        raw
    }

    /// Sets a new page up as a frontend does.
    pub(super) fn reset(&mut self, start: u32) {
        (self.cons, self.prod) = (Wrapping(start), Wrapping(start));
        let event = start.wrapping_add(1);
        self.set_header(Header::ReqProd, start);
        self.set_header(Header::RspProd, start);
        self.set_header(Header::ReqEvent, event);
        self.set_header(Header::RspEvent, event);
    }

    fn load(&self, word: usize) -> u32 {
        match &self.memory {
            Memory::Own(page) => page.words()[word].load(Ordering::Acquire),
            Memory::Mapped(page) => page.load(word),
        }
    }

    fn store(&self, word: usize, value: u32) {
        match &self.memory {
            Memory::Own(page) => page.words()[word].store(value, Ordering::Release),
            Memory::Mapped(page) => page.store(word, value),
        }
    }

    pub(super) fn header(&self, word: Header) -> u32 {
        self.load(word.word())
    }

    pub(super) fn set_header(&self, word: Header, value: u32) {
        self.store(word.word(), value);
    }

    /// Writes a header word as a script says.
    pub(super) fn apply(&self, word: Header, value: Value) {
        let value = match value {
            Value::Exact(value) => value,
            Value::Page(delta) => self.header(word).wrapping_add_signed(delta),
            Value::Own(delta) => self.prod.0.wrapping_add_signed(delta),
        };
        self.set_header(word, value);
    }

    fn slot_words(&self) -> usize {
        match self.ring {
            Ring::Tx => 3,
            Ring::Rx => 2,
        }
    }

    fn place(&self, index: u32) -> usize {
        FIRST_SLOT + (index % SLOTS) as usize * self.slot_words()
    }

    /// A slot's words; the third of a receive slot is 0.
    fn slot(&self, index: Wrapping<u32>) -> [u32; 3] {
        let mut words = [0; 3];
        let first = self.place(index.0);
        for (offset, word) in words.iter_mut().take(self.slot_words()).enumerate() {
            *word = self.load(first + offset);
        }
        words
    }

    pub(super) fn set_slot(&self, index: u32, words: [u32; 3]) {
        let first = self.place(index);
        for (offset, word) in words.into_iter().take(self.slot_words()).enumerate() {
            self.store(first + offset, word);
        }
    }

    /// How many messages of the other side are new by this word; none if the number is
    /// impossible, as the other side is broken then.
    pub(super) fn new_messages(&self, word: Header) -> u32 {
        match self.header(word).wrapping_sub(self.cons.0) {
            possible @ 0..=SLOTS => possible,
            _ => 0,
        }
    }

    /// Takes the new messages.
    pub(super) fn take(&mut self, word: Header) -> Vec<[u32; 3]> {
        let new = self.new_messages(word);
        let taken = (0..new).map(|nth| self.slot(self.cons + Wrapping(nth))).collect();
        self.cons += new;
        taken
    }

    /// Puts a message where the next one goes; it is not published yet. As many words as given:
    /// responses are shorter than their slots.
    pub(super) fn put(&mut self, words: &[u32]) {
        let first = self.place(self.prod.0);
        for (offset, &word) in words.iter().take(self.slot_words()).enumerate() {
            self.store(first + offset, word);
        }
        self.prod += 1;
    }

    pub(super) fn fill(&self, seed: u32) {
        let mut rng = fastrand::Rng::with_seed(seed.into());
        (0..1024).for_each(|word| self.store(word, rng.u32(..)));
    }
}
