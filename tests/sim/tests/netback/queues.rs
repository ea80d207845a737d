//! Clients with several queues.

use super::*;

fn config(max_queues: u32) -> Config {
    Config::default()
        .with_max_queues(max_queues)
        .with_features(packet_views::features::Features::ALL)
}

/// A client with so many queues, connected.
fn with_queues(config: Config, count: usize, frames: usize, split: bool) -> (Bench, Vec<Client>) {
    let mut bench = Bench::new(config, frames);
    let mut queues: Vec<_> = (0..count).map(|_| Client::new(&bench.host, &bench.vif, 0)).collect();
    let features = Features { split, ..Features::default() };
    Client::connect_all(&mut queues, &mut bench.netback, &features);
    assert_eq!(bench.netback.queues(), count);
    (bench, queues)
}

/// Everything that the queues have received, each its own.
fn receive(queues: &mut [Client]) -> Vec<Vec<Vec<u8>>> {
    let all = |queue: &mut Client| queue.receive().into_iter().map(|got| got.unwrap().bytes);
    queues.iter_mut().map(|queue| all(queue).collect()).collect()
}

#[test]
fn as_many_queues_as_offered_each_with_channels_of_its_own() {
    for (count, split) in [(2, false), (3, true), (8, false), (8, true)] {
        let (mut bench, mut queues) = with_queues(config(8), count, 256, split);
        let store = bench.back.store();
        let offered = store.get(&format!("{}/multi-queue-max-queues", bench.vif.back_dir()));
        assert_eq!(offered.as_deref(), Some("8"));
        let ports: std::collections::BTreeSet<_> = bench.netback.ports().collect();
        assert_eq!(ports.len(), count * if split { 2 } else { 1 });
        assert_eq!(bench.netback.ports().count(), ports.len());
        assert_eq!(bench.back.mappings(), 2 * count);

        // Each wakes us, and is told of what was done for it, and nobody else is.
        for (turn, queue) in queues.iter_mut().enumerate() {
            while bench.netback.rearm() {}
            let sent = queue.chain(&[(turn, 0, 60)], 0, &[]);
            assert!(queue.show());
            queue.post(1);
            let before = bench.back.counts();
            assert_eq!(bench.poll(), [sent]);
            bench.netback.flush();
            assert_eq!((bench.back.counts() - before).notifies, 1);
            assert_eq!(queue.statuses(), [0]);
        }
        bench.toolstack.begin_detach(&bench.vif);
        bench.netback.service();
        assert!(bench.netback.is_gone());
        assert_eq!((bench.back.mappings(), bench.netback.ports().count()), (0, 0));
        assert_eq!(bench.host.violations(), []);
    }
}

#[test]
fn more_queues_than_offered_are_refused() {
    for (most, asked) in [(1, 2), (2, 3), (8, 9)] {
        let mut bench = Bench::new(config(most), 32);
        let client = |_| Client::new(&bench.host, &bench.vif, 0);
        let mut queues: Vec<_> = (0..asked).map(client).collect();
        bench.netback.service();
        Client::publish_all(&mut queues, &Features::default());
        bench.netback.service();
        assert!(!bench.netback.is_connected());
        assert_eq!((bench.back.mappings(), bench.netback.counters().maps), (0, 0));
        assert_eq!(bench.toolstack.states(&bench.vif).1, Some(5));
    }
    // More than there ever are is not offered.
    let bench = Bench::new(config(1000), 32);
    let mut netback = bench.netback;
    netback.service();
    let offered =
        bench.back.store().get(&format!("{}/multi-queue-max-queues", bench.vif.back_dir()));
    assert_eq!(offered.as_deref(), Some("8"));
}

#[test]
fn a_queue_that_is_not_there_connects_none() {
    for missing in ["queue-2/tx-ring-ref", "queue-0/rx-ring-ref", "queue-1/event-channel"] {
        // Nonsense, and numbers of what does not exist.
        for value in ["x", "4294967295", "4000000"] {
            let mut bench = Bench::new(config(4), 32);
            let client = |_| Client::new(&bench.host, &bench.vif, 0);
            let mut queues: Vec<_> = (0..3).map(client).collect();
            bench.netback.service();
            Client::publish_all(&mut queues, &Features::default());
            let store = queues[0].domain.store();
            store.set(&format!("{}/{missing}", bench.vif.front_dir()), value);
            bench.netback.service();
            assert!(!bench.netback.is_connected(), "{missing} {value}");
            assert_eq!((bench.back.mappings(), bench.netback.ports().count()), (0, 0));
            assert_eq!(bench.toolstack.states(&bench.vif).1, Some(5));
            assert_eq!(bench.host.violations(), []);
        }
    }
}

#[test]
fn a_flow_keeps_to_one_queue_and_flows_use_all() {
    let (mut bench, mut queues) = with_queues(config(4), 4, 1200, false);
    let mut used = [0; 4];
    let mut homes = std::collections::BTreeMap::new();
    for round in 0..6 {
        for queue in &mut queues {
            let room = queue.rx.free() as usize;
            queue.post(room);
        }
        for port in 0..40_u16 {
            let (v6, tcp) = (port % 2 == 0, port % 4 < 2);
            let sent = frames::frame(v6, tcp, port, &pattern(round, 100));
            // Headers in one piece or in crumbs: the same flow.
            let cuts: Vec<usize> = [vec![], vec![20], vec![14, 34], vec![1, 2, 3, 40]]
                [usize::from(port as u8 + round as u8) % 4]
                .clone();
            bench.netback.deliver(bench.packet(&sent, &cuts)).unwrap();
        }
        bench.netback.flush();
        for (number, got) in receive(&mut queues).into_iter().enumerate() {
            for bytes in got {
                let opened = frames::open(&bytes);
                assert!(opened.right && opened.data == pattern(round, 100));
                let port = opened.ports.0;
                assert_eq!(*homes.entry(port).or_insert(number), number, "port {port}");
                used[number] += 1;
            }
        }
    }
    assert_eq!(used.iter().sum::<usize>(), 6 * 40);
    assert!(used.iter().all(|&packets| packets >= 30), "{used:?}");
}

#[test]
fn what_cannot_be_told_apart_keeps_its_order() {
    // Not IP: one flow a pair of stations, whatever it carries.
    let config = config(8).with_queue_packets(2000).with_queue_frames(2000);
    let (mut bench, mut queues) = with_queues(config, 8, 300, true);
    queues.iter_mut().for_each(|queue| queue.post(200));
    for number in 0..200_u8 {
        let mut frame = vec![2; 60];
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        frame[20] = number;
        bench.netback.deliver(bench.plain(&frame)).unwrap();
    }
    bench.netback.flush();
    let got: Vec<_> = receive(&mut queues).into_iter().filter(|got| !got.is_empty()).collect();
    assert_eq!(got.len(), 1);
    assert!(got[0].iter().map(|bytes| bytes[20]).eq(0..200));
}

#[test]
fn b7_queues_share_what_a_client_may_have_waiting() {
    for count in [1, 2, 3, 8] {
        let config = config(8).with_queue_packets(100).with_queue_frames(150);
        let (mut bench, _queues) = with_queues(config, count, 400, false);
        let mut refused = 0;
        for port in 0..2000 {
            let packet = bench.plain(&frames::frame(false, false, port, &[1; 100]));
            refused += usize::from(outcome(bench.netback.deliver(packet)) == Err(None));
        }
        assert_eq!((bench.netback.queued(), refused), (100, 1900));
        assert_eq!(bench.pool.free(), 300);
        assert_eq!(bench.netback.counters().to_given_back, 1900);

        let (mut bench, _queues) = with_queues(config, count, 400, false);
        for port in 0..2000 {
            let packet = frames::frame(false, false, port, &[1; 100]);
            let _ = bench.netback.deliver(bench.packet(&packet, &[50]));
        }
        let held = 400 - bench.pool.free();
        assert!(held <= 150 && held >= 150 - count, "{held} frames in {count} queues");
    }
}

#[test]
fn b7_the_largest_packet_fits_however_many_queues_share_the_bounds() {
    let config = config(8).with_queue_packets(3).with_queue_frames(20);
    let (mut bench, mut queues) = with_queues(config, 8, 400, false);
    let data = pattern(1, 65_535 - 54);
    for port in 0..20 {
        let frame = frames::frame(false, true, port, &data);
        // As many fragments as a packet can have.
        let cuts: Vec<usize> = (1..18).map(|cut| cut * 3700).collect();
        bench.netback.deliver(bench.packet(&frame, &cuts)).unwrap();
        assert_eq!(outcome(bench.netback.deliver(bench.plain(&frame))), Err(None));
        queues.iter_mut().for_each(|queue| queue.post(queue.rx.free().min(16) as usize));
        bench.netback.flush();
        let got: Vec<_> = receive(&mut queues).into_iter().flatten().collect();
        assert!(got == [frame]);
    }
}

#[test]
fn b11_more_queues_are_no_larger_turn() {
    for count in [1, 2, 8] {
        let (mut bench, mut queues) = with_queues(config(8), count, 1000, false);
        let (mut taken, mut answered) = (vec![0; count], 0);
        for _ in 0..60 {
            for (number, queue) in queues.iter_mut().enumerate() {
                answered += queue.answers().len();
                while queue.tx.free() > 0 {
                    queue.chain(&[(number, 0, 1514)], 0, &[]);
                }
                queue.show();
            }
            let before = bench.back.counts();
            let mut packets = 0;
            assert_eq!(
                bench.netback.poll(64, |packet| {
                    packets += 1;
                    let from = (0..count).find(|&number| {
                        let mut first = [0; 8];
                        queues[number].sources[number].0.read(0, &mut first);
                        packet.head().starts_with(&first)
                    });
                    taken[from.unwrap()] += 1;
                }),
                64
            );
            assert_eq!(packets, 64);
            // And no more hypercalls either.
            assert_eq!((bench.back.counts() - before).copy_calls, 1);
        }
        assert!(answered <= 60 * 64);
        // Nobody is left out.
        let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
        assert!(most - least <= 64, "{taken:?}");
    }
}

#[test]
fn b11_a_debt_is_the_clients_whichever_queue_made_it() {
    let (mut bench, mut queues) = with_queues(config(2), 2, 1000, false);
    let huge: Vec<_> = (0..15).map(|page| (page, 0, 4096)).chain([(20, 0, 4095)]).collect();
    queues[0].send(&huge);
    assert_eq!(bench.netback.poll(1, |_| ()), 1);
    queues[1].send(&[(0, 0, 60)]);
    let turns = (0..).take_while(|_| bench.netback.poll(1, |_| ()) == 0).count();
    assert!((20..60).contains(&turns), "{turns}");
}

#[test]
fn an_idle_queue_holds_up_none() {
    let (mut bench, mut queues) = with_queues(config(4), 4, 400, false);
    for (turn, queue) in queues.iter_mut().enumerate() {
        let sent: Vec<_> = (0..50).map(|_| queue.chain(&[(turn, 0, 90)], 0, &[])).collect();
        queue.show();
        let mut got = Vec::new();
        // A small budget is no larger for a queue's turn being a batch, and all of the next one is
        // there for the only queue that has something.
        assert_eq!(bench.netback.poll(7, |packet| got.push(bytes(&packet))), 7);
        assert_eq!(bench.netback.poll(50, |packet| got.push(bytes(&packet))), 43);
        assert_eq!(got, sent);
        queue.answers();
    }
    assert_eq!(bench.netback.poll(50, |_| ()), 0);
}

#[test]
fn b2_one_broken_queue_shuts_the_vif() {
    for (broken, receive) in [(0, false), (2, false), (1, true), (2, true)] {
        let (mut bench, mut queues) = with_queues(config(4), 3, 64, true);
        let page = if receive { &queues[broken].rx_page } else { &queues[broken].tx_page };
        page.words()[REQ_PROD].store(300, Ordering::Release);
        queues[(broken + 1) % 3].send(&[(0, 0, 60)]);
        for port in 0..20 {
            let packet = bench.plain(&frames::frame(false, false, port, &[0; 20]));
            let _ = bench.netback.deliver(packet);
        }
        bench.netback.poll(64, |_| ());
        bench.netback.flush();
        assert!(!bench.netback.is_connected());
        assert!(bench.netback.rearm());
        assert_eq!(bench.back.mappings(), 6);
        bench.netback.service();
        assert_eq!((bench.back.mappings(), bench.netback.counters().faults), (0, 1));
        assert_eq!(bench.pool.free(), 64);

        // And comes back with all of them.
        queues[0].set_state(6);
        bench.netback.service();
        bench.host.advance(Duration::from_secs(1));
        queues[0].set_state(1);
        queues.iter_mut().for_each(Client::reset_rings);
        Client::connect_all(&mut queues, &mut bench.netback, &Features::default());
        for queue in &mut queues {
            let sent = queue.send(&[(0, 0, 100)]);
            assert_eq!(bench.poll(), [sent]);
        }
        assert_eq!(bench.host.violations(), []);
    }
}

#[test]
fn b7_a_queue_that_is_stalled_stalls_no_other() {
    let (mut bench, mut queues) = with_queues(config(2), 2, 64, false);
    let flows: Vec<_> = (0..8).map(|port| frames::frame(false, false, port, &[3; 50])).collect();
    queues[1].post(16);
    for flow in &flows {
        bench.netback.deliver(bench.plain(flow)).unwrap();
    }
    bench.netback.flush();
    let got = queues[1].receive().len();
    assert!((1..8).contains(&got), "both queues have flows");
    let deadline = bench.netback.next_deadline().unwrap();
    assert_eq!(deadline.since(bench.back.now()), Duration::from_secs(10));
    bench.host.advance(Duration::from_secs(10));
    bench.netback.flush();
    assert_eq!((bench.netback.queued(), bench.pool.free()), (0, 64));
    let outcomes: Vec<_> =
        flows.iter().map(|flow| outcome(bench.netback.deliver(bench.plain(flow)))).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), got);
    assert_eq!(
        outcomes.iter().filter(|&&o| o == Err(Some(DeliverErrorKind::Stalled))).count(),
        8 - got
    );
    bench.netback.flush();
    assert_eq!(queues[1].receive().len(), got);
    assert_eq!(bench.netback.counters().stalls, 1);
}

#[test]
fn p1_the_platform_hears_which_channels_had_something() {
    for (split, ports) in [(false, 2), (true, 4)] {
        let (mut bench, mut queues) = with_queues(config(2), 2, 64, split);
        let handled = |bench: &Bench| {
            let counts = bench.netback.ports().map(|port| bench.back.times_handled(port));
            counts.fold((0, 0), |sum, (busy, idle)| (sum.0 + busy, sum.1 + idle))
        };
        let expect = |bench: &mut Bench, busy: u64| {
            let before = handled(bench);
            assert!(!bench.netback.rearm());
            let said = handled(bench);
            let said = (said.0 - before.0, said.1 - before.1);
            assert_eq!(said, (busy, ports - busy), "split: {split}");
        };
        expect(&mut bench, 0);
        // There is something left to do: nothing is handled yet.
        queues[1].send(&[(0, 0, 60)]);
        let before = handled(&bench);
        assert!(bench.netback.rearm());
        assert_eq!(handled(&bench), before);
        assert_eq!(bench.poll().len(), 1);
        expect(&mut bench, 1);
        expect(&mut bench, 0);
        // Refused packets are progress, too: the client had something to say.
        queues[0].send(&[(0, 0, 5)]);
        assert_eq!(bench.poll().len(), 0);
        expect(&mut bench, 1);
        // Pages that a packet waits for, even if they are not enough.
        bench.netback.deliver(bench.plain(&pattern(1, 5000))).unwrap();
        expect(&mut bench, 0);
        queues.iter_mut().for_each(|queue| queue.post(1));
        expect(&mut bench, 1);
        queues.iter_mut().for_each(|queue| queue.post(1));
        expect(&mut bench, 1);
        expect(&mut bench, 0);
        // Both directions of both queues.
        for queue in &mut queues {
            queue.post(8);
            queue.send(&[(0, 0, 60)]);
        }
        for port in 0..8 {
            let packet = bench.plain(&frames::frame(true, true, port, &[1]));
            bench.netback.deliver(packet).unwrap();
        }
        assert_eq!(bench.poll().len(), 2);
        expect(&mut bench, ports);
    }
}

#[test]
fn b10_bad_packets_in_one_queue_cost_no_other() {
    let (mut bench, mut queues) = with_queues(config(3), 3, 200, false);
    let runt = (0, 0, 13);
    for _ in 0..20 {
        queues[0].chain(&[(0, 0, 4); 19], 0, &[]);
        queues[0].show();
        queues[1].send(&[runt]);
        let sent = queues[2].send(&[(1, 7, 77), (2, 0, 0), (3, 0, 9)]);
        assert_eq!(bench.poll(), [sent]);
        assert_eq!(queues[0].statuses(), [-1; 19]);
        assert_eq!(queues[1].statuses(), [-1]);
        assert_eq!(queues[2].statuses(), [0; 3]);
    }
    let drops = bench.netback.counters().from_drops;
    assert_eq!((drops.too_many_slots, drops.runt, drops.total()), (20, 20, 40));
}
