//! `--threads`: every domain on a thread of its own, in real time.
//!
//! ```text
//!   main        looks every few milliseconds: progress, counters, is anybody done?
//!   client 1    ┐
//!   client 2    ├ a thread each; they sleep until an event comes
//!   ...         ┘
//!   backend     one thread: one after the other, what serves each client, and what attacks it
//! ```

use core::time::Duration;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use xen_netfront::platform::Instant;
use xen_sim::{Ctx, Domain, Host, Next, Outcome, Task, run_on_thread};

use crate::error::Stop;
use crate::hostile::Director;
use crate::lock;
use crate::world::{Pair, Phase};

/// How often it looks how far things are.
const LOOK: Duration = Duration::from_millis(5);

/// Runs until all clients are done, for `time` at most; the inner error names those that are not.
pub fn drive(
    host: &Host,
    back: &Domain,
    pairs: &[Pair],
    directors: &[Mutex<Director<'_>>],
    phase: Phase,
    time: Option<Duration>,
    look: &mut dyn FnMut(Instant) -> Result<(), Stop>,
) -> Result<Result<(), Outcome>, Stop> {
    let stop = AtomicBool::new(false);
    let deadline = time.map(|time| host.now() + time);
    thread::scope(|scope| {
        let stop = &stop;
        let mut tasks = Turns::default();
        for pair in pairs {
            tasks.add(|ctx: &mut Ctx<'_>| lock(&pair.backend).run(ctx));
        }
        for director in directors {
            tasks.add(|ctx: &mut Ctx<'_>| lock(director).run(ctx));
        }
        let backend = scope.spawn(move || run_on_thread(back, &mut tasks, stop));
        let clients: Vec<_> = pairs
            .iter()
            .map(|pair| {
                let mut task = move |ctx: &mut Ctx<'_>| pair.run_client(phase, ctx);
                scope.spawn(move || run_on_thread(&pair.domain, &mut task, stop))
            })
            .collect();
        let result = loop {
            // A thread that has panicked is found out when the scope ends.
            let done = clients.iter().all(thread::ScopedJoinHandle::is_finished);
            if let Err(error) = look(host.now()) {
                break Err(error);
            }
            if done || backend.is_finished() {
                break Ok(Ok(()));
            }
            if deadline.is_some_and(|deadline| host.now() > deadline) {
                let open = pairs.iter().zip(&clients).filter(|(_, thread)| !thread.is_finished());
                break Ok(Err(Outcome::Time(open.map(|(pair, _)| pair.name()).collect())));
            }
            thread::sleep(LOOK);
        };
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// Several tasks of one domain, by turns.
#[derive(Default)]
struct Turns<'a>(Vec<Turn<'a>>);

struct Turn<'a> {
    task: Box<dyn FnMut(&mut Ctx<'_>) -> Next + Send + 'a>,
    /// It sleeps until then, whatever happens.
    asleep: Instant,
    /// A watch has fired meanwhile.
    store: bool,
    done: bool,
}

impl<'a> Turns<'a> {
    fn add(&mut self, task: impl FnMut(&mut Ctx<'_>) -> Next + Send + 'a) {
        let task = Box::new(task);
        self.0.push(Turn { task, asleep: Instant(0), store: false, done: false });
    }
}

impl Task for Turns<'_> {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        let mut soonest: Option<Instant> = None;
        for turn in self.0.iter_mut().filter(|turn| !turn.done) {
            turn.store |= ctx.store;
            let again = if turn.asleep > ctx.now {
                Some(turn.asleep)
            } else {
                let store = core::mem::take(&mut turn.store);
                match (turn.task)(&mut Ctx { store, ..*ctx }) {
                    Next::Now => Some(ctx.now),
                    Next::Wait => None,
                    Next::WaitUntil(at) => Some(at),
                    Next::Sleep(time) => {
                        turn.asleep = ctx.now + time;
                        Some(turn.asleep)
                    }
                    Next::Done => {
                        turn.done = true;
                        None
                    }
                }
            };
            soonest = [soonest, again].into_iter().flatten().min();
        }
        match soonest {
            Some(at) if at <= ctx.now => Next::Now,
            Some(at) => Next::WaitUntil(at),
            None => Next::Wait,
        }
    }
}
