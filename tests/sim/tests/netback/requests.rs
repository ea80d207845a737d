//! Requests that break a rule.

use super::*;

#[test]
fn b2_every_fatal_chain_shuts_the_vif_at_once_and_takes_it_down_later() {
    let extra = |kind, data| TxSlot::from(Extra { kind, flags: 0, data });
    let last_slots = 20;
    for case in 0..9 {
        let (mut bench, mut client) = bench_at(0);
        // Sound packets in front are part of the same batch.
        client.chain(&[(0, 0, 60)], 0, &[]);
        let one = |offset, size, flags| TxSlot::from(request(&client, 1, offset, size, flags, 9));
        let (more, with_extra) = (tx_flags::MORE_DATA, tx_flags::EXTRA_INFO);
        let slots: Vec<TxSlot> = match case {
            0 => vec![one(4096, 14, 0)],
            1 => vec![one(0, 100, more), one(4090, 7, 0)],
            2 => vec![one(0, 60, more)],
            3 => vec![one(0, 60, with_extra)],
            4 => vec![one(0, 60, with_extra), extra(0, [0; 6])],
            5 => vec![one(0, 60, with_extra), extra(77, [0; 6])],
            6 => vec![one(0, 60, with_extra), extra(Extra::GSO, [0, 0, 1, 0, 0, 0])],
            7 => vec![one(0, 60, with_extra), extra(Extra::GSO, [1, 0, 9, 0, 0, 0])],
            _ => (0..last_slots)
                .map(|slot| one(0, 60, if slot + 1 < last_slots { more } else { 0 }))
                .collect(),
        };
        for slot in slots {
            client.push(slot);
        }
        client.show();
        assert_eq!(bench.netback.poll(64, |_| ()), 0, "case {case}");
        assert_eq!(bench.pool.free(), bench.pool.size());
        expect_shut(bench, client);
    }
}

#[test]
fn b10_a_bad_packet_is_answered_and_costs_only_itself() {
    let (mut bench, mut client) = bench_at(0u32.wrapping_sub(9));
    let more = tx_flags::MORE_DATA;
    for round in 0..50 {
        let first = client.chain(&[(0, 0, 60)], 0, &[]);
        // 19 slots.
        client.chain(&[(1, 0, 4); 19], 0, &[]);
        // More bytes in the later slots than in all.
        for (size, flags, id) in [(60, more, 101), (60, more, 102), (60, 0, 103)] {
            let slot = request(&client, 2, 0, size, flags, id);
            client.push(slot);
        }
        // Runts.
        client.chain(&[(3, 0, 13)], 0, &[]);
        client.chain(&[(3, 0, 0)], 0, &[]);
        // Multicast and GSO, which were not offered.
        for kind in [Extra::MCAST_ADD, Extra::MCAST_DEL] {
            client.chain(&[(3, 0, 60)], 0, &[Extra { kind, flags: 0, data: [1; 6] }]);
        }
        let gso = Extra { kind: Extra::GSO, flags: 0, data: [0, 5, 1, 0, 0, 0] };
        client.chain(&[(3, 0, 60), (4, 0, 60)], 0, &[gso]);
        let last = client.chain(&[(4, 0, 60)], 0, &[]);
        client.show();
        assert_eq!(bench.poll(), [first, last]);
        let expected = [
            vec![0],
            vec![-1; 19],
            vec![-1; 3],
            vec![-1, -1],
            vec![-1, 1, -1, 1],
            vec![-1, 1, -1],
            vec![0],
        ];
        let answers = client.answers();
        let statuses: Vec<i16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, expected.concat());
        // Each with its own id, in order.
        let ids: Vec<u16> = answers[20..23].iter().map(|answer| answer.id).collect();
        assert_eq!(ids, [101, 102, 103]);
        let drops = bench.netback.counters().from_drops;
        let n = round + 1;
        assert_eq!((drops.too_many_slots, drops.sizes, drops.runt), (n, n, 2 * n));
        assert_eq!((drops.multicast, drops.gso, drops.total()), (2 * n, n, 7 * n));
    }
    assert!(bench.netback.is_connected());
    assert_eq!((bench.pool.free(), bench.netback.counters().faults), (128, 0));
}
