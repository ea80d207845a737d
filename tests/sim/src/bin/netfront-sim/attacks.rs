//! What a hostile backend does: each kind of attack, as a script of the simulated host's grammar.

use fastrand::Rng;
use xen_sim::hostile::{BadScript, Script, Side, Step};

/// How an attack is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Behind the honest backend's back, on the rings it serves.
    Beside,
    /// The same; but where domains run on threads, the honest backend is gone from then on, and a new
    /// one comes after it. Who writes into a ring writes over requests that the honest backend may
    /// not have read: it would copy some other page then, and of a blank checksum nobody could
    /// tell. So it would when the client, told of another state, has given the pages to its next
    /// connection.
    Over,
    /// In the place of the honest backend, which is gone for as long as it takes.
    Instead,
}

/// A kind of attack.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name in reports.
    pub name: &'static str,
    how: How,
    script: fn(&mut Rng) -> String,
}

impl Kind {
    /// How it is made where domains run on `threads`, or by turns.
    pub fn how(&self, threads: bool) -> How {
        if self.how == How::Over && !threads { How::Beside } else { self.how }
    }

    /// An attack of this kind. Numbers in it are up to chance.
    pub fn script(&self, rng: &mut Rng) -> Result<Script, BadScript> {
        let mut script: Script = (self.script)(rng).parse()?;
        if self.how != How::Instead {
            // It looks where the rings are.
            script.0.insert(0, Step::Connect {});
        }
        if self.name == ANYTHING {
            script.0.extend(anything(rng));
        }
        Ok(script)
    }
}

const ANYTHING: &str = "anything at all";

const fn beside(name: &'static str, script: fn(&mut Rng) -> String) -> Kind {
    Kind { name, how: How::Beside, script }
}

const fn over(name: &'static str, script: fn(&mut Rng) -> String) -> Kind {
    Kind { name, how: How::Over, script }
}

const fn instead(name: &'static str, script: fn(&mut Rng) -> String) -> Kind {
    Kind { name, how: How::Instead, script }
}

fn ring(rng: &mut Rng) -> &'static str {
    if rng.bool() { "tx" } else { "rx" }
}

/// All kinds.
pub const KINDS: [Kind; 20] = [
    beside("responses from the future", |rng| {
        format!("index {} rsp_prod page+{}; notify", ring(rng), rng.u32(257..=65536))
    }),
    beside("responses taken back", |rng| {
        format!("index {} rsp_prod page-{}; notify", ring(rng), rng.u32(1..=300))
    }),
    beside("request index overwritten", |rng| {
        format!("index {} req_prod page+{}; notify", ring(rng), rng.u32(257..=65536))
    }),
    over("an id out of range", |rng| format!("tx-response {} 0; push tx; notify", rng.u16(256..))),
    over("an id nobody waits for", |_| {
        (0..256).map(|id| format!("tx-response {id} 0; ")).collect::<String>() + "push tx; notify"
    }),
    over("an answer given twice", |_| {
        "respond tx 1; tx-response last 0; push tx; notify".to_owned()
    }),
    over("a NULL out of nowhere", |_| "tx-response 7 1; push tx; notify".to_owned()),
    over("errors for everything", |rng| {
        let one = "tx-response next -1; ".repeat(rng.usize(1..=20));
        one + "push tx; notify"
    }),
    over("a page that is not next", |rng| {
        format!("rx-response {} 0 0 60; push rx; notify", rng.u16(..))
    }),
    over("bytes beyond the page", |rng| {
        let len = rng.u16(4001..=4096);
        format!("rx-response next {} 0 {len}; push rx; notify", rng.u16(96..))
    }),
    over("a packet without an end", |_| {
        "rx-response next 0 4 100; ".repeat(40) + "push rx; notify"
    }),
    over("extras nobody asked for", |rng| {
        let kind = rng.u8(..);
        format!("rx-response next 0 8 100; rx-extra {kind} 1 0 0; push rx; notify")
    }),
    over("noise all over a ring", |rng| format!("fill {} {}; notify", ring(rng), rng.u32(..))),
    beside("a storm of events", |_| "storm 255; storm 255".to_owned()),
    over("states in any order", |rng| {
        let states = 0..rng.usize(2..8);
        states.map(|_| format!("state {}; silence {}; ", rng.u8(..10), rng.u8(..3))).collect()
    }),
    over("garbage in xenstore", |rng| {
        let junk = ["99999999999", "-1", "\\xff\\x00\\x20", "4\\x004"];
        let junk = junk[rng.usize(..junk.len())];
        format!("key \"feature-sg\" \"{junk}\"; key \"state\" \"{junk}\"; silence 2; state 4")
    }),
    beside("pages held on to", |rng| {
        let kept = "keep rx; keep tx; map page1; map ring-tx; ".to_owned();
        format!("{kept}index rx rsp_prod page+{}; notify", rng.u32(257..=65536))
    }),
    instead("a backend that restarts", |_| String::new()),
    instead("a backend that answers nothing", |rng| {
        format!("state 5; state 6; connect; honest 20; silence {}; drop", rng.u16(50..300))
    }),
    instead(ANYTHING, |_| "state 5; state 6; connect; honest 20".to_owned()),
];

/// Random steps, without those that end the interface for good or take longer than a moment.
fn anything(rng: &mut Rng) -> Vec<Step> {
    let mut steps = Script::random(rng, Side::Backend, 40).0;
    steps.retain(|step| match step {
        Step::Vanish {} | Step::Key { .. } | Step::Unkey { .. } => false,
        Step::Silence { millis } => millis.0 < 20,
        _ => true,
    });
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_makes_scripts() {
        for seed in 0..100 {
            let mut rng = Rng::with_seed(seed);
            for kind in KINDS {
                assert!(kind.script(&mut rng).is_ok(), "{} with seed {seed}", kind.name);
            }
        }
    }

    #[test]
    fn what_an_honest_backend_has_not_read_is_not_written_over_while_it_serves() {
        let mut rng = Rng::with_seed(1);
        for kind in KINDS.iter().filter(|kind| kind.how(true) == How::Beside) {
            let harmless = |step: &Step| {
                use Step::{Connect, Index, Keep, Map, Notify, Storm};
                matches!(
                    step,
                    Connect {} | Index { .. } | Notify {} | Storm { .. } | Keep { .. } | Map { .. }
                )
            };
            for _ in 0..100 {
                let script = kind.script(&mut rng).unwrap();
                assert!(script.0.iter().all(harmless), "{}: {script}", kind.name);
            }
        }
    }

    #[test]
    fn every_kind_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
    }
}
