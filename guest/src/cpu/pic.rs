//! The legacy interrupt controllers: a pair of 8259s, the second behind input 2 of the first (Intel
//! 8259A data sheet). A PVH guest has none; other machines that speak Xen's language have (QEMU),
//! with a timer that ticks from the start.
//!
//! Their vectors begin at 8 until somebody says otherwise, where exceptions are: a tick reads as a
//! double fault. So they get vectors of their own, before interrupts are ever on, and every input is
//! masked. What may still come is spurious: an input that was let go before it was taken.

use core::ops::Range;

/// The vectors of both, past those of exceptions.
pub const VECTORS: Range<u8> = 0x20..0x30;

/// What is written to which port, in this order. Where there are none, it goes nowhere.
pub const SILENCE: [(u16, u8); 10] = [
    // ICW1: begin anew; there are two, and ICW4 will come.
    (0x20, 0x11),
    (0xa0, 0x11),
    // ICW2: the first vector of each.
    (0x21, VECTORS.start),
    (0xa1, VECTORS.start + 8),
    // ICW3: which input the second is behind, as a bit and as a number.
    (0x21, 1 << 2),
    (0xa1, 2),
    // ICW4: for this kind of processor.
    (0x21, 1),
    (0xa1, 1),
    // OCW1: all inputs masked.
    (0x21, 0xff),
    (0xa1, 0xff),
];

/// Masks both. Interrupts are off.
#[cfg(target_os = "none")]
pub fn silence() {
    for (port, value) in SILENCE {
        // SAFETY: the ports are the controllers', which nobody else uses, or nobody's.
        unsafe { x86_64::instructions::port::Port::new(port).write(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One 8259, as far as it decides which vector an input raises.
    #[derive(Default)]
    struct Controller {
        /// Initialisation words that are still to come, the next one first.
        expected: Vec<u8>,
        first_vector: u8,
        masked: u8,
        cascade: u8,
    }

    impl Controller {
        /// As the firmware of a PC, or nobody, leaves it.
        fn new() -> Controller {
            Controller { first_vector: 8, ..Controller::default() }
        }

        fn write(&mut self, odd_port: bool, value: u8) {
            if !odd_port {
                assert_eq!(value & 0x10, 0x10, "nothing but ICW1 is written to the even port");
                assert_eq!(value & 0x0f, 1, "edges, a cascade, ICW4");
                (self.expected, self.masked) = (vec![2, 3, 4], 0);
                return;
            }
            if self.expected.is_empty() {
                self.masked = value;
                return;
            }
            match self.expected.remove(0) {
                2 => self.first_vector = value & !7,
                3 => self.cascade = value,
                _ => assert_eq!(value, 1, "8086, ends told, no special modes"),
            }
        }

        /// What an input raises.
        fn raise(&self, input: u8) -> Option<u8> {
            (self.masked & 1 << input == 0).then_some(self.first_vector + input)
        }
    }

    fn silenced() -> [Controller; 2] {
        let mut both = [Controller::new(), Controller::new()];
        for (port, value) in SILENCE {
            assert!([0x20, 0x21, 0xa0, 0xa1].contains(&port));
            both[usize::from(port >= 0xa0)].write(port & 1 == 1, value);
        }
        both
    }

    #[test]
    fn a_timer_is_a_double_fault_until_it_is_silenced() {
        const DOUBLE_FAULT: u8 = 8;
        assert_eq!(Controller::new().raise(0), Some(DOUBLE_FAULT));
        for controller in silenced() {
            assert!((0..8).all(|input| controller.raise(input).is_none()));
        }
    }

    #[test]
    fn whatever_still_comes_is_no_exception() {
        let [first, second] = silenced();
        // An input that is gone when it is taken reads as the last one.
        let spurious = [first.first_vector + 7, second.first_vector + 7];
        assert_eq!(spurious, [0x27, 0x2f]);
        assert!(spurious.iter().all(|vector| VECTORS.contains(vector) && *vector >= 32));
        assert_eq!((first.first_vector, second.first_vector), (VECTORS.start, VECTORS.end - 8));
    }

    #[test]
    fn both_know_how_they_are_connected() {
        let [first, second] = silenced();
        assert!(first.expected.is_empty() && second.expected.is_empty());
        assert_eq!(first.cascade, 1 << second.cascade);
    }
}
