//! Whole sessions of our frontend with our backend: any traffic both ways, faults, reconnects.
//! What was accepted arrives unchanged and in order, or is counted as dropped; no page leaks.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod pair;

use std::num::NonZeroU64;
use std::time::Duration;

use fastrand::Rng;
use packet_views::features::Features;
use pair::{Blow, Nap, Pair, Plan, RECOVERY, Shape, limits};
use proptest::prelude::*;
use xen_netfront::{netback, netfront};
use xen_sim::{Chaos, Ctx, Next, Outcome};

/// Without `PROPTEST_CASES`.
const CASES: u32 = if cfg!(debug_assertions) { 64 } else { 400 };

/// A packet of `len` bytes, as far as the MTU allows, in about `fragments` fragments.
#[derive(Clone, Debug)]
struct Traffic {
    up: bool,
    len: usize,
    fragments: usize,
    seed: u64,
    count: usize,
    /// Of flows, some of them to be cut.
    flows: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Traffic),
    Pass(Duration),
    Blow(Blow),
}

#[derive(Clone, Debug)]
struct Session {
    plan: Plan,
    chaos: Chaos,
    /// Events get lost, and both ends look again after a while.
    lossy: bool,
    steps: Vec<Step>,
}

fn traffic() -> impl Strategy<Value = Step> {
    let len =
        prop_oneof![14..=60usize, Just(1514), 14..=5000usize, 4094..=4099usize, 14..=65535usize];
    let numbers = (1..=18usize, any::<u64>(), 1..40usize);
    (any::<bool>(), len, numbers, any::<bool>()).prop_map(
        |(up, len, (fragments, seed, count), flows)| {
            Step::Send(Traffic { up, len, fragments, seed, count, flows })
        },
    )
}

fn fault() -> impl Strategy<Value = Blow> {
    prop_oneof![
        (1..60u64).prop_map(|n| Blow::CopyFaults(NonZeroU64::new(n))),
        Just(Blow::CopyFaults(None)),
        any::<bool>().prop_map(Blow::Hog),
        (0..60usize).prop_map(Blow::Hold),
    ]
}

fn reconnect() -> impl Strategy<Value = Blow> {
    prop_oneof![
        Just(Blow::CloseFront),
        Just(Blow::RestartFront),
        Just(Blow::RestartBack),
        Just(Blow::Detach),
        any::<bool>().prop_map(|at_once| Blow::Pull { at_once }),
    ]
}

fn step(faults: u32, reconnects: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => traffic(),
        10 => (0..3000u64).prop_map(|micros| Step::Pass(Duration::from_micros(micros))),
        faults => fault().prop_map(Step::Blow),
        reconnects => reconnect().prop_map(Step::Blow),
    ]
}

/// Most begin shortly before the ring indices wrap.
fn plan() -> impl Strategy<Value = Plan> {
    let start = prop_oneof![
        3 => (0..400u32).prop_map(|before| u32::MAX - before),
        1 => any::<u32>(),
        1 => Just(0),
    ];
    let mtu = prop_oneof![Just(1500), Just(9000), 68..=65521u16];
    // Often fewer than a batch of packets takes.
    let back_frames = prop_oneof![18..70usize, 70..600usize];
    let frames = (prop_oneof![Just(300usize), 330..900usize], back_frames);
    let queue = (4..300usize, 40..600usize);
    let features = prop::option::weighted(0.8, any::<u64>());
    (any::<u64>(), features, start, mtu, frames, queue, 0..=2048usize).prop_map(
        |(seed, features, ring_start, mtu, frames, queue, headroom)| {
            let plan = Plan {
                seed,
                front: netfront::Config::default()
                    .with_features(Features::NONE)
                    .with_ring_start(ring_start),
                back: netback::Config::default()
                    .with_headroom(headroom)
                    .with_queue_packets(queue.0)
                    .with_queue_frames(queue.1),
                mtu,
                front_frames: frames.0,
                back_frames: frames.1,
            };
            match features {
                Some(seed) => plan.with_any_features(&mut Rng::with_seed(seed)),
                None => plan,
            }
        },
    )
}

fn chaos() -> impl Strategy<Value = (Chaos, bool)> {
    let delay = prop_oneof![Just(0u64), 1..500u64];
    let spurious = prop_oneof![Just(0.0), 0.0..0.3];
    (delay, spurious, any::<bool>(), 0..4u8).prop_map(|(delay, spurious, conflicts, lossy)| {
        let chaos = Chaos {
            delay: Duration::ZERO..Duration::from_micros(delay),
            lost: if lossy == 0 { 0.2 } else { 0.0 },
            spurious,
            conflicts: if conflicts { 0.2 } else { 0.0 },
        };
        (chaos, lossy == 0)
    })
}

fn session(faults: u32, reconnects: u32) -> impl Strategy<Value = Session> {
    let steps = prop::collection::vec(step(faults, reconnects), 0..40);
    (plan(), chaos(), steps).prop_map(|(plan, (chaos, lossy), steps)| Session {
        plan,
        chaos,
        lossy,
        steps,
    })
}

/// Plays a session to its end, and has everything arrive that can.
fn play(session: &Session) -> Pair {
    let mut pair = Pair::new(session.plan);
    pair.impatient = session.lossy;
    pair.host.set_chaos(session.chaos.clone());
    pair.run_until("the link comes up", RECOVERY, Pair::is_up);
    let mut steps = session.steps.iter();
    let mut current = steps.next();
    let outcome = pair.run(limits(Duration::from_secs(3600)), |_: &mut Ctx| {
        let Some(step) = current else { return Next::Done };
        let mut pause = Duration::ZERO;
        let over = match step {
            Step::Send(traffic) => {
                send(&pair, traffic);
                true
            }
            Step::Pass(time) => {
                pause = *time;
                true
            }
            Step::Blow(blow) => {
                pause = Duration::from_micros(200);
                blow.strike(&pair)
            }
        };
        if over {
            current = steps.next();
        }
        Next::Sleep(pause)
    });
    assert_eq!(outcome, Outcome::Done, "{current:?}; {}", pair.describe());
    for blow in [Blow::Hog(false), Blow::Hold(0), Blow::CopyFaults(None)] {
        blow.strike(&pair);
    }
    let mut nap = Nap::default();
    // A connection that was ended a moment ago may still look whole.
    let outcome = pair.run(limits(Duration::from_millis(5)), |_: &mut Ctx| nap.next());
    assert!(matches!(outcome, Outcome::Time(_)), "{outcome}");
    pair.run_until("the link comes up", RECOVERY, Pair::is_up);
    pair.settle();
    pair
}

fn send(pair: &Pair, traffic: &Traffic) {
    let Traffic { up, len, fragments, seed, count, flows } = *traffic;
    let (mut front, mut back) = (pair.front.borrow_mut(), pair.back.borrow_mut());
    let mtu = front.net.as_ref().unwrap().backend().mtu;
    let len = len.min(usize::from(mtu) + 18);
    let mut rng = Rng::with_seed(seed);
    for _ in 0..count {
        let shape = match flows {
            true => Shape::of_flow(&mut rng, len, fragments),
            false => Shape::random(&mut rng, len, fragments),
        };
        if up { front.outbox.push_back(shape) } else { back.outbox.push_back(shape) }
    }
    front.domain.wake();
    back.domain.wake();
}

/// Sees that so many packets were lost on the way up, and down. Of a packet that was cut several
/// may have been, or all that there was room for.
fn assert_lost(pair: &Pair, up: u64, down: u64) -> Result<(), TestCaseError> {
    let (front, back) = (pair.front.borrow(), pair.back.borrow());
    let cut = (front.has_cut(), back.served().unwrap().counters().cut > 0);
    let lost = (pair.up.borrow().lost(), pair.down.borrow().lost());
    match cut.0 {
        true => prop_assert!(lost.0 <= up + front.partial, "{} up, {up} dropped", lost.0),
        false => prop_assert_eq!(lost.0, up),
    }
    match cut.1 {
        true => prop_assert!(lost.1 <= down + back.partial, "{} down, {down} dropped", lost.1),
        false => prop_assert_eq!(lost.1, down),
    }
    Ok(())
}

/// After the session the two still talk to each other, and both can be taken down.
fn conclude(pair: Pair) {
    pair.ping();
    pair.tear_down();
}

fn config() -> ProptestConfig {
    let cases = match std::env::var("PROPTEST_CASES") {
        Ok(_) => ProptestConfig::default().cases,
        Err(_) => CASES,
    };
    // A failing session is printed in full; there is nothing to keep.
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Nothing fails and nobody leaves: all that was accepted arrives, but for segments that there
    /// was no room or no frame for.
    #[test]
    fn undisturbed_sessions_lose_nothing(session in session(0, 0)) {
        let pair = play(&session);
        // Only for want of frames.
        let drops = pair.back.borrow().served().unwrap().counters().from_drops;
        prop_assert_eq!(drops.total(), drops.no_frame);
        assert_lost(&pair, drops.no_frame, 0)?;
        prop_assert_eq!(pair.dropped_down(), pair.back.borrow().partial);
        conclude(pair);
    }

    /// The hypervisor refuses copies, frames run short: what is lost is counted, exactly.
    #[test]
    fn what_faults_cost_is_counted(session in session(3, 0)) {
        let pair = play(&session);
        let counters = *pair.back.borrow().served().unwrap().counters();
        let to = counters.to_drops;
        let down = to.copy_failed + to.disconnected + to.stalled;
        assert_lost(&pair, counters.from_drops.total(), down)?;
        prop_assert_eq!((counters.faults, counters.connects), (0, 1));
        conclude(pair);
    }

    /// Either end goes at any time: what was accepted and has not arrived has been counted.
    #[test]
    fn f11_whoever_leaves_what_is_lost_is_counted(session in session(1, 2)) {
        let pair = play(&session);
        conclude(pair);
    }
}
