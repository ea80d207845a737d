//! How the memory there is gets divided: a pool for the uplink, and as many clients as fit.

use xen_netfront::{netback, netfront};

const PAGE: u64 = 4096;
/// What clients may have queued of what the uplink received, and a burst of its own.
const HELD_PAGES: usize = 768;
/// A client's share of the heap, with one queue, and what each further queue takes.
const CLIENT_HEAP: u64 = 64 << 10;
const QUEUE_HEAP: u64 = 32 << 10;
/// The heap's own waste, xenstore, the switch.
const SPARE: u64 = 1 << 20;

/// Who gets how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pages of the uplink's pool.
    pub uplink: usize,
    /// Pages of a client's pool.
    pub client: usize,
    /// How many clients fit.
    pub clients: usize,
}

impl Sizes {
    /// Divides `free` bytes. `None` if there is not enough for the uplink and one client.
    pub fn of(
        free: u64,
        uplink: Option<&netfront::Config>,
        client: &netback::Config,
    ) -> Option<Sizes> {
        let uplink = uplink.map_or(0, |uplink| uplink.least_pages() + HELD_PAGES);
        let pages = client.least_pages();
        let each = pages as u64 * PAGE + CLIENT_HEAP + u64::from(client.max_queues) * QUEUE_HEAP;
        let rest = free.checked_sub(uplink as u64 * PAGE + SPARE)?;
        let clients = (rest / each) as usize;
        (clients > 0).then_some(Sizes { uplink, client: pages, clients })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn eight_clients_and_an_uplink_fit_32_mb() {
        let client = netback::Config::default().with_queue_frames(256);
        let sizes = Sizes::of(30 * MB, Some(&netfront::Config::default()), &client).unwrap();
        assert!(sizes.clients >= 8, "{sizes:?}");
        assert!(sizes.uplink >= netfront::Config::default().least_pages());
    }

    #[test]
    fn whatever_there_is_it_is_never_more_than_that() {
        for free in (0..64 * MB).step_by(100_000) {
            for queues in [1, 8] {
                let client = netback::Config::default().with_max_queues(queues);
                let Some(sizes) = Sizes::of(free, Some(&netfront::Config::default()), &client)
                else {
                    assert!(free < 10 * MB, "{free} bytes are enough");
                    continue;
                };
                let used = (sizes.uplink + sizes.clients * sizes.client) as u64 * PAGE;
                assert!(used + SPARE <= free, "{used} of {free}");
            }
        }
    }
}
