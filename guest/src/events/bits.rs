//! Event channels as bits: what Xen shares with us (the two-level ABI, xen/xen.h `shared_info`),
//! and our own note of which ports have fired.
//!
//! ```text
//! shared with Xen, as 32-bit words                 ours
//!   0 vcpu_info[0].evtchn_upcall_pending  byte 0   recorded[128]  fired, masked, not seen yet
//!   8 vcpu_info[0].evtchn_pending_sel     1 << n   served[128]    seen, masked, being handled
//!       for the ports from 64 n on
//! 800 evtchn_pending[128]                 which ports
//! a00 evtchn_mask[128]                    kept quiet
//! ```
//!
//! A port that fires is masked and recorded: however often its peer fires it again, that costs
//! nothing until we have handled it and unmask it. No step takes a lock and none loops over
//! more than the 128 words, so all of them may run in the upcall.

use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use xen_grant::Words;
use xen_sys::{shared_info, vcpu_info};

/// Words of ports.
const WORDS: usize = 128;
/// Ports that the two-level ABI has.
pub const PORTS: u32 = 4096;

const UPCALL_PENDING: usize =
    (offset_of!(shared_info, vcpu_info) + offset_of!(vcpu_info, evtchn_upcall_pending)) / 4;
const SELECTOR: usize =
    (offset_of!(shared_info, vcpu_info) + offset_of!(vcpu_info, evtchn_pending_sel)) / 4;
const PENDING: usize = offset_of!(shared_info, evtchn_pending) / 4;
const MASK: usize = offset_of!(shared_info, evtchn_mask) / 4;

const _: () = {
    assert!(UPCALL_PENDING == 0 && SELECTOR == 2 && PENDING == 0x200 && MASK == 0x280);
    assert!(MASK + WORDS <= size_of::<Words>() / 4);
};

/// Our note of which ports have fired.
pub struct Bits {
    recorded: [AtomicU32; WORDS],
    served: [AtomicU32; WORDS],
    /// Something else has to be seen to.
    remembered: AtomicBool,
}

impl Default for Bits {
    fn default() -> Bits {
        Bits::new()
    }
}

impl Bits {
    /// Nothing has fired.
    pub const fn new() -> Bits {
        Bits {
            recorded: [const { AtomicU32::new(0) }; WORDS],
            served: [const { AtomicU32::new(0) }; WORDS],
            remembered: AtomicBool::new(false),
        }
    }

    /// Keeps all ports quiet, until [`open`](Bits::open).
    pub fn init(&self, page: &Words) {
        for mask in &page[MASK..MASK + WORDS] {
            mask.store(u32::MAX, Ordering::SeqCst);
        }
    }

    /// The upcall: masks and records every port that has fired.
    ///
    /// The flag is cleared before anything is looked at: Xen sets it again for what fires later,
    /// and raises the callback vector as long as it is set.
    pub fn collect(&self, page: &Words) {
        if page[UPCALL_PENDING].fetch_and(!0xff, Ordering::SeqCst) & 0xff == 0 {
            return;
        }
        let selected = [0, 1].map(|half| page[SELECTOR + half].swap(0, Ordering::SeqCst));
        let is_selected = |word: &usize| selected[word / 64] >> (word / 2 % 32) & 1 == 1;
        for word in (0..WORDS).filter(is_selected) {
            let (pending, mask) = (&page[PENDING + word], &page[MASK + word]);
            let fired = pending.load(Ordering::SeqCst) & !mask.load(Ordering::SeqCst);
            mask.fetch_or(fired, Ordering::SeqCst);
            pending.fetch_and(!fired, Ordering::SeqCst);
            self.recorded[word].fetch_or(fired, Ordering::SeqCst);
        }
    }

    /// Lets a port fire again. One that fired while it was masked is recorded at once.
    pub fn unmask(&self, page: &Words, port: u32) {
        let Some((word, bit)) = place(port) else { return };
        page[MASK + word].fetch_and(!bit, Ordering::SeqCst);
        if page[PENDING + word].fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
            page[MASK + word].fetch_or(bit, Ordering::SeqCst);
            self.recorded[word].fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Keeps a port quiet and forgets that it has fired.
    pub fn mask(&self, page: &Words, port: u32) {
        let Some((word, bit)) = place(port) else { return };
        page[MASK + word].fetch_or(bit, Ordering::SeqCst);
        self.recorded[word].fetch_and(!bit, Ordering::SeqCst);
        self.served[word].fetch_and(!bit, Ordering::SeqCst);
    }

    /// Prepares a port that was just opened: our notes on an earlier channel of the same number
    /// are forgotten. An event that is pending already (`EVTCHNOP_bind_interdomain` makes one)
    /// counts.
    pub fn open(&self, page: &Words, port: u32) {
        self.mask(page, port);
        self.unmask(page, port);
    }

    /// Has the next [`serve`](Bits::serve) say that there is something, whoever takes which events
    /// until then.
    pub fn remember(&self) {
        self.remembered.store(true, Ordering::SeqCst);
    }

    /// Whether the port is recorded; if so it no longer is, and stays masked.
    pub fn take(&self, port: u32) -> bool {
        place(port).is_some_and(|(word, bit)| {
            self.recorded[word].fetch_and(!bit, Ordering::SeqCst) & bit != 0
        })
    }

    /// Hands every recorded port over to be served. Whether there was any, or something to
    /// [`remember`](Bits::remember).
    pub fn serve(&self) -> bool {
        let mut any = self.remembered.swap(false, Ordering::SeqCst);
        for (recorded, served) in self.recorded.iter().zip(&self.served) {
            // Most are 0, and a load is a fraction of a swap.
            if recorded.load(Ordering::SeqCst) == 0 {
                continue;
            }
            let fired = recorded.swap(0, Ordering::SeqCst);
            served.fetch_or(fired, Ordering::SeqCst);
            any |= fired != 0;
        }
        any
    }

    /// Lets every port fire again that has been served.
    pub fn finish(&self, page: &Words) {
        for (word, served) in self.served.iter().enumerate() {
            if served.load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut ports = served.swap(0, Ordering::SeqCst);
            while ports != 0 {
                self.unmask(page, (word * 32) as u32 + ports.trailing_zeros());
                ports &= ports - 1;
            }
        }
    }

    /// Whether the port was being served; if so it no longer is, and stays masked.
    pub fn take_served(&self, port: u32) -> bool {
        place(port).is_some_and(|(word, bit)| {
            self.served[word].fetch_and(!bit, Ordering::SeqCst) & bit != 0
        })
    }

    /// Forgets what has fired.
    pub fn forget(&self) {
        for word in self.recorded.iter().chain(&self.served) {
            word.store(0, Ordering::SeqCst);
        }
        self.remembered.store(false, Ordering::SeqCst);
    }

    /// Whether the port is being served: it has fired and was handed over since the last
    /// [`finish`](Bits::finish).
    pub fn is_served(&self, port: u32) -> bool {
        place(port).is_some_and(|(word, bit)| self.served[word].load(Ordering::SeqCst) & bit != 0)
    }
}

fn place(port: u32) -> Option<(usize, u32)> {
    (port < PORTS).then_some(((port / 32) as usize, 1 << (port % 32)))
}

impl core::fmt::Debug for Bits {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Xen's side of the words.
    struct Xen {
        page: Box<Words>,
        upcalls: u32,
    }

    impl Xen {
        fn new() -> Xen {
            Xen { page: Box::new([const { AtomicU32::new(0) }; 1024]), upcalls: 0 }
        }

        /// What Xen does when somebody fires a port (evtchn_2l_set_pending).
        fn fire(&mut self, port: u32) {
            let (word, bit) = place(port).unwrap();
            if self.page[PENDING + word].fetch_or(bit, Ordering::SeqCst) & bit != 0
                || self.masked(port)
            {
                return;
            }
            let selector = &self.page[SELECTOR + word / 64];
            selector.fetch_or(1 << (word / 2 % 32), Ordering::SeqCst);
            if self.page[UPCALL_PENDING].fetch_or(1, Ordering::SeqCst) & 1 == 0 {
                self.upcalls += 1;
            }
        }

        fn pending(&self, port: u32) -> bool {
            let (word, bit) = place(port).unwrap();
            self.page[PENDING + word].load(Ordering::SeqCst) & bit != 0
        }

        fn masked(&self, port: u32) -> bool {
            let (word, bit) = place(port).unwrap();
            self.page[MASK + word].load(Ordering::SeqCst) & bit != 0
        }
    }

    fn set_up(port: u32) -> (Xen, Bits) {
        let (xen, bits) = (Xen::new(), Bits::new());
        bits.init(&xen.page);
        bits.open(&xen.page, port);
        (xen, bits)
    }

    #[test]
    fn p1_a_port_is_masked_recorded_served_and_unmasked() {
        for port in [1, 31, 32, 63, 64, 2047, 2048, 4095] {
            let (mut xen, bits) = set_up(port);
            assert!(!bits.serve());
            xen.fire(port);
            bits.collect(&xen.page);
            assert!(xen.masked(port));
            assert!(bits.serve());
            assert!(bits.is_served(port));
            assert!(!bits.serve());
            bits.finish(&xen.page);
            assert!(!xen.masked(port) && !bits.is_served(port));
        }
    }

    #[test]
    fn p1_a_storm_costs_one_upcall_per_round() {
        let (mut xen, bits) = set_up(4095);
        for round in 1..=3 {
            for _ in 0..1000 {
                xen.fire(4095);
                bits.collect(&xen.page);
            }
            assert!(bits.serve());
            assert!(!bits.serve());
            bits.finish(&xen.page);
            assert!(xen.upcalls <= round);
        }
    }

    #[test]
    fn p1_nothing_fired_while_masked_is_lost() {
        let (mut xen, bits) = set_up(70);
        xen.fire(70);
        bits.collect(&xen.page);
        assert!(bits.take(70));
        xen.fire(70);
        bits.collect(&xen.page);
        assert!(!bits.take(70), "it is still masked");
        bits.unmask(&xen.page, 70);
        assert!(bits.take(70));
    }

    #[test]
    fn p1_a_handled_port_is_masked_until_somebody_unmasks_it() {
        let (mut xen, bits) = set_up(70);
        xen.fire(70);
        bits.collect(&xen.page);
        bits.serve();
        assert!(bits.take_served(70));
        assert!(!bits.take_served(70) && !bits.is_served(70));
        bits.finish(&xen.page);
        assert!(xen.masked(70));
        bits.unmask(&xen.page, 70);
        xen.fire(70);
        bits.collect(&xen.page);
        assert!(bits.serve());
    }

    #[test]
    fn p1_the_upcall_flag_is_cleared_and_nothing_beside_it() {
        let (mut xen, bits) = set_up(70);
        // The other bytes of its word are Xen's and the vCPU's.
        xen.page[UPCALL_PENDING].store(0xaabb_cc00, Ordering::SeqCst);
        for upcalls in 1..=3 {
            xen.fire(70);
            assert_eq!(xen.page[UPCALL_PENDING].load(Ordering::SeqCst), 0xaabb_cc01);
            bits.collect(&xen.page);
            assert_eq!(xen.page[UPCALL_PENDING].load(Ordering::SeqCst), 0xaabb_cc00);
            assert!(bits.take(70));
            bits.unmask(&xen.page, 70);
            assert_eq!(xen.upcalls, upcalls);
        }
    }

    #[test]
    fn p1_unmasked_while_pending_it_is_as_if_it_fired_then() {
        let (mut xen, bits) = set_up(70);
        bits.mask(&xen.page, 70);
        xen.fire(70);
        bits.unmask(&xen.page, 70);
        // Nobody raises an upcall for it, and nothing of it is left in Xen's words.
        assert_eq!((xen.upcalls, xen.pending(70), xen.masked(70)), (0, false, true));
        assert!(bits.serve() && bits.is_served(70));
        bits.finish(&xen.page);
        assert!(!xen.masked(70) && !bits.serve());
        xen.fire(70);
        assert_eq!(xen.upcalls, 1);
        bits.collect(&xen.page);
        assert!(bits.serve());
    }

    #[test]
    fn p1_a_port_unmasked_for_nothing_is_quiet() {
        let (xen, bits) = set_up(70);
        // Its neighbour in the same word is pending, and masked.
        let (word, bit) = place(71).unwrap();
        xen.page[PENDING + word].fetch_or(bit, Ordering::SeqCst);
        bits.unmask(&xen.page, 70);
        assert!(!bits.serve() && !xen.masked(70) && xen.masked(71) && xen.pending(71));
    }

    #[test]
    fn a_new_channel_knows_nothing_of_an_earlier_one() {
        let (mut xen, bits) = set_up(9);
        // Recorded, but not handed over.
        xen.fire(9);
        bits.collect(&xen.page);
        bits.open(&xen.page, 9);
        assert!(!bits.take(9) && !xen.masked(9));
        // Handed over, but not handled.
        xen.fire(9);
        bits.collect(&xen.page);
        bits.serve();
        bits.open(&xen.page, 9);
        assert!(!bits.is_served(9) && !bits.serve() && !xen.masked(9));
    }

    #[test]
    fn an_event_that_comes_with_a_new_channel_counts() {
        let (mut xen, bits) = set_up(9);
        bits.mask(&xen.page, 9);
        xen.fire(9);
        bits.open(&xen.page, 9);
        assert!(bits.serve() && bits.is_served(9));
    }

    #[test]
    fn what_is_remembered_is_not_taken_away_with_an_event() {
        let (mut xen, bits) = set_up(70);
        xen.fire(70);
        bits.collect(&xen.page);
        assert!(bits.take(70));
        bits.remember();
        // Somebody waits for the same port again.
        bits.unmask(&xen.page, 70);
        xen.fire(70);
        bits.collect(&xen.page);
        assert!(bits.take(70));
        assert!(bits.serve() && !bits.is_served(70));
        assert!(!bits.serve());
    }

    #[test]
    fn nothing_fired_before_is_known_after_forgetting() {
        let (mut xen, bits) = set_up(70);
        bits.open(&xen.page, 71);
        xen.fire(70);
        bits.collect(&xen.page);
        bits.serve();
        xen.fire(71);
        bits.collect(&xen.page);
        bits.remember();
        bits.forget();
        assert!(!bits.is_served(70) && !bits.take(71) && !bits.serve());
    }

    #[test]
    fn a_closed_port_leaves_nothing_to_the_next_with_its_number() {
        let (mut xen, bits) = set_up(9);
        xen.fire(9);
        bits.collect(&xen.page);
        bits.serve();
        bits.mask(&xen.page, 9);
        assert!(!bits.is_served(9));
        bits.finish(&xen.page);
        xen.fire(9);
        bits.collect(&xen.page);
        assert!(!bits.serve());
    }

    #[test]
    fn ports_out_of_range_are_ignored() {
        let (xen, bits) = set_up(PORTS);
        bits.mask(&xen.page, u32::MAX);
        assert!(!bits.take(PORTS) && !bits.is_served(u32::MAX));
    }
}
