//! Numbers that others cannot guess: a ChaCha20 generator, seeded by the processor.
//!
//! ```text
//!  RDRAND, checked and retried ──┐
//!                                xor ──► 256 bits ──► ChaCha20 ──► numbers
//!  counter's jitter ─────────────┤                       │
//!                                └─────── at each stir ──┘
//! ```
//!
//! Without RDRAND, or with one that repeats itself, there is only the counter, which whoever sees
//! us run can guess in part. The log says so.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Words in a seed.
const WORDS: usize = 4;
/// How often the processor may say that it has no number right now (Intel's manual asks for 10).
const RETRIES: u32 = 10;

/// Where seeds come from.
pub trait Sources {
    /// A random number from the processor. `None`: not now, or it makes none.
    fn hardware(&mut self) -> Option<u64>;
    /// The processor's counter.
    fn counter(&mut self) -> u64;
}

/// A seed, and whether others could find it out.
#[derive(Debug)]
struct Seed {
    words: [u64; WORDS],
    guessable: bool,
}

impl Seed {
    fn gather(sources: &mut impl Sources) -> Seed {
        let mut seed = Seed { words: [0; WORDS], guessable: false };
        let mut last = 0;
        for word in &mut seed.words {
            let number = (0..RETRIES).find_map(|_| sources.hardware());
            // Some processors answer the same for ever after they have slept.
            let sound = |&number: &u64| number != 0 && number != u64::MAX && number != last;
            match number.filter(sound) {
                Some(number) => *word = number,
                None => seed.guessable = true,
            }
            last = number.unwrap_or(0);
            *word ^= jitter(sources);
        }
        seed
    }
}

/// What little is to be had from how long things take.
fn jitter(sources: &mut impl Sources) -> u64 {
    let mut mixed = 0u64;
    for _ in 0..64 {
        mixed = (mixed ^ sources.counter()).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }
    mixed
}

/// The generator.
pub struct Generator(ChaCha20Rng);

impl Generator {
    /// A seeded one, and whether its numbers can be guessed.
    pub fn new(sources: &mut impl Sources) -> (Generator, bool) {
        let seed = Seed::gather(sources);
        (Generator(from_words(seed.words)), seed.guessable)
    }

    /// Seeds it anew, with what it is and with fresh numbers: nobody who knew it before knows it
    /// afterwards, and of two copies each goes its own way. Whether its numbers can be guessed.
    pub fn stir(&mut self, sources: &mut impl Sources) -> bool {
        let mut seed = Seed::gather(sources);
        for word in &mut seed.words {
            *word ^= self.0.next_u64();
        }
        self.0 = from_words(seed.words);
        seed.guessable
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

fn from_words(words: [u64; WORDS]) -> ChaCha20Rng {
    let mut seed = [0; WORDS * 8];
    for (bytes, word) in seed.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    ChaCha20Rng::from_seed(seed)
}

#[cfg(target_os = "none")]
pub(crate) use machine::*;

#[cfg(target_os = "none")]
mod machine {
    use spin::Mutex;
    use x86_64::instructions::random::RdRand;

    use super::{Generator, Sources};
    use crate::clock;

    struct Processor(Option<RdRand>);

    impl Processor {
        fn this() -> Processor {
            Processor(RdRand::new())
        }
    }

    impl Sources for Processor {
        fn hardware(&mut self) -> Option<u64> {
            self.0?.get_u64()
        }

        fn counter(&mut self) -> u64 {
            clock::counter()
        }
    }

    static GENERATOR: Mutex<Option<Generator>> = Mutex::new(None);

    /// Fills `bytes` with random ones.
    pub fn fill(bytes: &mut [u8]) {
        let mut generator = GENERATOR.lock();
        let generator = generator.get_or_insert_with(|| {
            let (generator, guessable) = Generator::new(&mut Processor::this());
            warn_if(guessable);
            generator
        });
        generator.fill(bytes);
    }

    /// After a suspend: the same generator may live on elsewhere.
    pub fn stir() {
        if let Some(generator) = GENERATOR.lock().as_mut() {
            warn_if(generator.stir(&mut Processor::this()));
        }
    }

    fn warn_if(guessable: bool) {
        if guessable {
            log::warn!("the processor has no good RDRAND: random numbers can be guessed");
        }
    }
}

impl core::fmt::Debug for Generator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Generator")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A processor whose RDRAND answers by a rule, and whose counter counts.
    struct Fake<F>(F, u64);

    impl<F: FnMut() -> Option<u64>> Sources for Fake<F> {
        fn hardware(&mut self) -> Option<u64> {
            (self.0)()
        }
        fn counter(&mut self) -> u64 {
            self.1 += 1000;
            self.1
        }
    }

    fn drawn(generator: &mut Generator) -> [u8; 32] {
        let mut bytes = [0; 32];
        generator.fill(&mut bytes);
        bytes
    }

    fn counting(step: u64) -> impl FnMut() -> Option<u64> {
        let mut next = 1;
        move || {
            next += step;
            Some(next)
        }
    }

    #[test]
    fn a_processor_that_is_busy_is_asked_again() {
        let mut calls = 0;
        let tenth = move || {
            calls += 1;
            (calls % 10 == 0).then_some(calls)
        };
        assert!(!Generator::new(&mut Fake(tenth, 0)).1);
        let mut calls = 0;
        let eleventh = move || {
            calls += 1;
            (calls % 11 == 0).then_some(calls)
        };
        assert!(Generator::new(&mut Fake(eleventh, 0)).1);
    }

    #[test]
    fn a_processor_without_good_numbers_is_told_apart() {
        for stuck in [None, Some(0), Some(u64::MAX), Some(0x1234)] {
            let (mut generator, guessable) = Generator::new(&mut Fake(|| stuck, 0));
            assert!(guessable, "{stuck:?}");
            // Still better than nothing: another moment, other numbers.
            let (mut later, _) = Generator::new(&mut Fake(|| stuck, 1));
            assert_ne!(drawn(&mut generator), drawn(&mut later));
        }
        assert!(!Generator::new(&mut Fake(counting(1), 0)).1);
    }

    #[test]
    fn other_numbers_of_the_processor_give_others_of_ours() {
        let draw = |step| drawn(&mut Generator::new(&mut Fake(counting(step), 0)).0);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn copies_go_their_own_ways_once_stirred() {
        let copy = || Generator::new(&mut Fake(counting(1), 0)).0;
        let (mut here, mut there, mut neither) = (copy(), copy(), copy());
        assert!(!here.stir(&mut Fake(counting(3), 0)));
        assert!(!there.stir(&mut Fake(counting(5), 0)));
        let all = [drawn(&mut here), drawn(&mut there), drawn(&mut neither)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        // What it was counts too, where there is no RDRAND.
        let (mut a, mut b) = (copy(), Generator::new(&mut Fake(counting(2), 0)).0);
        a.stir(&mut Fake(|| None, 0));
        b.stir(&mut Fake(|| None, 0));
        assert_ne!(drawn(&mut a), drawn(&mut b));
    }
}
