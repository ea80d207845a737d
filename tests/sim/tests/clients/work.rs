//! Who does work, and how much: nobody without an event.

use std::time::Duration;

use xen_netfront::netback::Config;
use xen_sim::Counts;

use super::World;

const MS: Duration = Duration::from_millis(1);

#[test]
fn idle_clients_cost_nothing() {
    let mut world = World::new(Config::default());
    let mut guests: Vec<_> = (0..20).map(|number| world.add_client(number)).collect();
    world.run(100 * MS);
    assert_eq!(world.clients.next_deadline(), None);
    let before = world.back.counts();
    for _ in 0..1000 {
        assert!(!world.turn());
    }
    assert_eq!(world.back.counts() - before, Counts::default());

    // One sends, and nobody else is looked at.
    let (_, client) = &mut guests[7];
    client.send(&[(0, 0, 100)]);
    world.run(MS);
    let counts = world.back.counts() - before;
    assert_eq!((counts.copies, counts.store_calls, world.received.len()), (1, 0, 1));
}
