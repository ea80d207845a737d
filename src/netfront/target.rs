//! How many pages lie posted for receiving.
//!
//! ```text
//!   ceiling ┤            ┌───────────┐ half used up between two looks: twice as many
//!           │      ┌─────┘           └──┐
//!   floor   ┼──────┘                    └── many looks with hardly any used: a quarter fewer
//! ```
//!
//! A page that has been posted comes back only with a packet in it, so fewer are a matter of not
//! posting again. Pages are posted an eighth of the target at a time.

use crate::wire::{MAX_SLOTS, RING_SIZE};

/// Slots that a packet may take, extras included, either way. A queue that can't have so many pages
/// posted, or as many requests in flight, does not carry every packet: the largest would wait for ever.
pub(super) const LARGEST: u32 = MAX_SLOTS as u32 + 2;

/// The least pages that are posted, as configured.
pub(super) fn floor(floor: u16, ceiling: u16) -> u32 {
    u32::from(floor).clamp(LARGEST, self::ceiling(ceiling))
}

fn ceiling(ceiling: u16) -> u32 {
    u32::from(ceiling).clamp(LARGEST, RING_SIZE as u32)
}

/// Looks with little to do before the target goes down.
const CALM: u32 = 64;

pub(super) struct Target {
    pages: u32,
    floor: u32,
    ceiling: u32,
    calm: u32,
}

impl Target {
    pub(super) fn new(floor: u16, ceiling: u16) -> Target {
        let (floor, ceiling) = (self::floor(floor, ceiling), self::ceiling(ceiling));
        Target { pages: floor, floor, ceiling, calm: 0 }
    }

    /// The least, and how many it is now.
    pub(super) fn floor(&self) -> u32 {
        self.floor
    }

    /// There are no more pages than `most` to be had: that will have to do for now.
    pub(super) fn make_do(&mut self, most: u32) {
        self.pages = self.pages.min(most);
    }

    /// How many pages are to be posted now, where `posted` are.
    #[inline]
    pub(super) fn wanted(&self, posted: u32) -> u32 {
        let wanted = self.pages.saturating_sub(posted);
        if wanted * 8 < self.pages && posted >= LARGEST { 0 } else { wanted }
    }

    /// Packets have come, and `left` of the pages posted are still empty.
    #[inline]
    pub(super) fn adapt(&mut self, left: u32) {
        if left < self.pages / 2 {
            self.calm = 0;
            self.pages = (self.pages * 2).min(self.ceiling);
        } else if left < self.pages - self.pages / 4 {
            self.calm = 0;
        } else {
            self.calm += 1;
            if self.calm == CALM {
                self.calm = 0;
                self.pages = (self.pages - self.pages / 4).max(self.floor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_traffic_between_floor_and_ceiling() {
        let mut target = Target::new(64, 256);
        assert_eq!(target.pages, 64);
        for expected in [128, 256, 256] {
            target.adapt(target.pages / 2 - 1);
            assert_eq!(target.pages, expected);
        }
        let mut looks = 0;
        while target.pages > 64 {
            target.adapt(target.pages - 1);
            looks += 1;
        }
        assert_eq!(looks, 5 * CALM); // 192, 144, 108, 81, 64
        target.adapt(64);
        assert_eq!(target.pages, 64);
    }

    #[test]
    fn work_in_between_keeps_it_where_it_is() {
        let mut target = Target::new(20, 256);
        target.adapt(0);
        for look in 0..1000 {
            target.adapt(if look % 50 == 0 { 25 } else { 40 });
        }
        assert_eq!(target.pages, 40);
    }

    #[test]
    fn the_largest_packet_always_fits() {
        for (floor, ceiling) in [(0, 0), (300, 5), (1, 18)] {
            assert_eq!(Target::new(floor, ceiling).pages, LARGEST);
        }
        assert_eq!(Target::new(u16::MAX, u16::MAX).pages, 256);
    }

    #[test]
    fn pages_are_posted_several_at_a_time_and_the_largest_packet_waits_for_none() {
        let target = Target::new(64, 64);
        assert_eq!([64, 60, 57].map(|posted| target.wanted(posted)), [0; 3]);
        assert_eq!([56, 30, 0].map(|posted| target.wanted(posted)), [8, 34, 64]);
        let target = Target::new(22, 22);
        assert_eq!([22, 21, 20, 19].map(|posted| target.wanted(posted)), [0, 0, 0, 3]);
    }
}
