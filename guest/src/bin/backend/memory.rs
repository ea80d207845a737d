//! How the memory there is gets divided: a pool for the uplink, one for the clients, and what as many
//! clients as fit take of the heap.

use xen_netfront::{netback, netfront};

/// A page of a pool, and the pool's record of it.
const PAGE: u64 = 4096 + 64;
/// What clients may have queued of what the uplink received, and a burst of its own.
const HELD_PAGES: usize = 768;
/// Pages that a client is to find in the pool: a ring full of single pages.
const CLIENT_PAGES: u64 = 128;
/// A client's share of the heap, with one queue, and what each further queue takes.
const CLIENT_HEAP: u64 = 48 << 10;
const QUEUE_HEAP: u64 = 32 << 10;
/// The heap's own waste, xenstore, the switch.
const SPARE: u64 = 1 << 20;
/// What xenstored allows a domain by default, and what the domain itself has of it.
const NODES: usize = 1000 - 60;
const WATCHES: usize = 128 - 8;

/// Who gets how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pages of the uplink's pool.
    pub uplink: usize,
    /// Pages of the clients' pool.
    pub pages: usize,
    /// How many clients fit, in memory and in xenstore.
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
        let rest = free.checked_sub(uplink as u64 * PAGE + SPARE)?;
        let heap = CLIENT_HEAP + u64::from(client.max_queues - 1) * QUEUE_HEAP;
        let clients = (rest / (heap + CLIENT_PAGES * PAGE)) as usize;
        let clients = clients.min(client.clients_within(NODES, WATCHES)).min(netback::MAX_CLIENTS);
        let pages = (rest - clients as u64 * heap) / PAGE;
        // One client alone may want more than its share.
        (clients > 0 && pages >= client.least_pages() as u64).then_some(Sizes {
            uplink,
            pages: pages as usize,
            clients,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn forty_clients_and_an_uplink_fit_32_mb() {
        let uplink = netfront::Config::default();
        let sizes = Sizes::of(30 * MB, Some(&uplink), &netback::Config::default()).unwrap();
        assert!(sizes.clients >= 40, "{sizes:?}");
        assert!(sizes.uplink >= uplink.least_pages());
    }

    #[test]
    fn more_memory_does_not_make_room_in_xenstore() {
        let client = netback::Config::default();
        let sizes = Sizes::of(1000 * MB, None, &client).unwrap();
        assert_eq!(sizes.clients, client.clients_within(NODES, WATCHES));
        assert_eq!(sizes.uplink, 0);
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
                let used = (sizes.uplink + sizes.pages) as u64 * PAGE;
                assert!(
                    used + SPARE + sizes.clients as u64 * CLIENT_HEAP <= free,
                    "{used} of {free}"
                );
            }
        }
    }
}
