//! Two ends that keep to the rules, and a world that does not.

use std::time::Duration;

use fastrand::Rng;
use xen_sim::{Chaos, Ctx, Next, Outcome};

use super::{any_chaos, any_plan, any_shapes, trace};
use crate::pair::{Blow, Pair, RECOVERY, limits};

pub fn play(seed: u64, rng: &mut Rng, flaky: bool) -> u64 {
    let plan = any_plan(seed, rng);
    let mut pair = Pair::new(plan);
    pair.host.trace_store(true);
    let mut chaos = any_chaos(rng);
    if flaky {
        chaos.conflicts = rng.f64() * 0.9;
    } else if rng.u8(..4) == 0 {
        chaos.lost = 0.1;
        pair.impatient = true;
    }
    pair.host.set_chaos(chaos.clone());

    let blows = (0..rng.usize(..12)).map(|_| any_blow(rng));
    let mut blows: Vec<Blow> = blows.collect();
    let mut pauses = Rng::with_seed(seed);
    let (ups, downs) = (rng.usize(..300), rng.usize(..300));
    pair.front.borrow_mut().outbox = any_shapes(rng, ups, plan.mtu);
    pair.back.borrow_mut().outbox = any_shapes(rng, downs, plan.mtu);
    let mut tries = 0;
    let outcome = pair.run(limits(Duration::from_secs(600)), |_: &mut Ctx| {
        let Some(blow) = blows.last() else { return Next::Done };
        tries += 1;
        if blow.strike(&pair) || tries > 400 {
            // What takes longer than that never ends: garbage stands in its way.
            if tries > 400 && *blow == Blow::CloseFront {
                Blow::RestartFront.strike(&pair);
            }
            blows.pop();
            tries = 0;
            let longest = [10, 1000, 100_000][pauses.usize(..3)];
            Next::Sleep(Duration::from_micros(pauses.u64(..longest)))
        } else {
            Next::Sleep(Duration::from_millis(5))
        }
    });
    assert_eq!(outcome, Outcome::Done, "the blows; {}", pair.describe());

    recover(&pair);
    let trace = trace(&pair);
    pair.tear_down();
    trace
}

fn any_blow(rng: &mut Rng) -> Blow {
    match rng.u8(..4) {
        0 => Blow::random_garbage(rng),
        1 => Blow::random_shortage(rng),
        _ => Blow::random_reconnect(rng),
    }
}

/// Fate relents: what still waits is sent, and everything that was accepted is accounted for.
fn recover(pair: &Pair) {
    for blow in [Blow::Hog(false), Blow::Hold(0), Blow::CopyFaults(None)] {
        blow.strike(pair);
    }
    let lost = if pair.impatient { 0.1 } else { 0.0 };
    pair.host.set_chaos(Chaos { lost, spurious: 0.0, ..Chaos::rough() });
    // Whatever the garbage has led to, this puts an end to it.
    pair.toolstack.remove_vif(&pair.vif);
    pair.run_until("both ends let go", RECOVERY, |pair| {
        !pair.front.borrow().is_up() && !pair.back.borrow().is_connected()
    });
    pair.toolstack.add_vif(&pair.vif);
    pair.run_until("the link comes up", RECOVERY, Pair::is_up);
    pair.settle();
    pair.ping();
}
