//! How the memory there is gets divided: pages for packets, buffers for sockets.
//!
//! ```text
//!  8 MB   image, stacks, page tables   pool    fixed    windows   spare
//! 32 MB   image ...                    pool    fixed    windows                        spare
//! ```

use xen_netfront::netfront::Config;

/// Pages of a queue with both rings full, and those that a burst holds meanwhile.
const PAGES_PER_QUEUE: u64 = 576;
/// Pages that the stack above a vif holds in a burst, and those that it holds in any case.
const PAGES_PER_VIF: u64 = 64;
const PAGES_HELD: u64 = 18;
const PAGE: u64 = 4096;

/// What a vif's stack takes however small its windows are: datagrams of 64 KiB being put together,
/// taken apart and answered.
const FIXED: u64 = 1 << 20;
/// The heap's own waste, xenstore, HTTP answers, reassembly under attack.
const SPARE: u64 = 1 << 20;

/// A TCP window, in bytes: as much as a full receive ring holds. With less, both ends wait for each
/// other more often; with more, as measured, each byte sent costs more.
const LARGEST_WINDOW: u64 = 1 << 20;
const LEAST_WINDOW: u64 = 4 << 10;

/// Who gets how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pages of the pool that all vifs share.
    pub pages: usize,
    /// Bytes of a bulk service's buffer, for each direction in use.
    pub window: usize,
}

impl Sizes {
    /// Divides `free` bytes among `vifs` with this driver, each with `windows` bulk buffers. `None` if
    /// that is not enough to work at all.
    pub fn of(free: u64, vifs: u64, driver: &Config, windows: u64) -> Option<Sizes> {
        let wanted = vifs * (u64::from(driver.queues) * PAGES_PER_QUEUE + PAGES_PER_VIF);
        let least = vifs * driver.least_pages() as u64 + PAGES_HELD;
        let pages = wanted.min(free * 2 / 5 / PAGE);
        let rest = free.checked_sub(pages * PAGE + vifs * FIXED + SPARE)?;
        let window = (rest / (vifs * windows)).min(LARGEST_WINDOW) / PAGE * PAGE;
        (pages >= least && window >= LEAST_WINDOW)
            .then_some(Sizes { pages: pages as usize, window: window as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn queues(queues: u32) -> Config {
        Config::default().with_queues(queues)
    }

    #[test]
    fn plenty_of_memory_gives_all_that_is_of_use() {
        assert_eq!(
            Sizes::of(100 * MB, 1, &queues(1), 14),
            Some(Sizes { pages: 640, window: 1 << 20 })
        );
        let four = Sizes::of(100 * MB, 4, &queues(2), 14).unwrap();
        assert_eq!(four.pages, 4 * (2 * 576 + 64));
    }

    #[test]
    fn a_guest_of_8_mb_works() {
        // What is free there when the image has been loaded.
        let sizes = Sizes::of(6 * MB, 1, &queues(1), 14).unwrap();
        assert!(sizes.pages > 512 && sizes.window >= 64 << 10, "{sizes:?}");
        assert!(Sizes::of(7 * MB, 1, &queues(8), 14).is_some());
    }

    #[test]
    fn whatever_there_is_it_is_never_more_than_that() {
        for free in (0..64 * MB).step_by(100_000) {
            for (vifs, count) in [(1, 1), (1, 8), (4, 2)] {
                let Some(sizes) = Sizes::of(free, vifs, &queues(count), 14) else {
                    assert!(free < 7 * MB * vifs, "{free} bytes are enough");
                    continue;
                };
                let used = sizes.pages as u64 * PAGE + vifs * (FIXED + 14 * sizes.window as u64);
                assert!(used + SPARE <= free, "{used} of {free}");
            }
        }
    }
}
