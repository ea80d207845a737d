//! Vifs come, connect and go: what xenstore says of them, a bounded part at a time.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{ClientChange, Clients, MAX_CLIENTS, NEVER, NOTHING, Refusal, Slot, id};
use crate::netback::budget::Budget;
use crate::netback::vif::Vif;
use crate::platform::{BackendPlatform, Instant};
use crate::xenbus::{Look, VifId};
use xen_store::Store;

/// After so many requests to xenstore a call of [`Clients::service`] begins nothing more.
const SLICE: u32 = 12;

impl<P: BackendPlatform, S: Store + Clone> Clients<P, S> {
    /// Sees to xenbus and to timers, a part at a time. [`turn`](Clients::turn) does too: for who polls
    /// otherwise.
    pub fn service(&mut self) {
        let now = self.platform.now();
        self.wake_due(now);
        if self.allowance.rests_until(now).is_some() {
            return;
        }
        self.look(now);
        let mut spent = self.listing.requests().wrapping_sub(self.paid);
        self.paid = self.listing.requests();
        let mut left = self.asked;
        while spent < SLICE
            && let Some(number) = left.next_from(self.next_asked)
        {
            left.remove(number);
            self.asked.remove(number);
            self.next_asked = number + 1;
            self.with(number, |this, vif, _| spent += vif.service(&mut this.scratch, SLICE));
            self.remove_if_gone(number);
            self.tell_of_refusal(number);
        }
        self.allowance.spend(spent, now);
    }

    /// Those whose time has come have something to do. Returns whose comes next.
    pub(super) fn wake_due(&mut self, now: Instant) -> Instant {
        if let Some(due) = self.due.filter(|due| *due > now) {
            return due;
        }
        let mut next = NEVER;
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.due.bus <= now {
                slot.due.bus = NEVER;
                self.asked.insert(number);
            }
            if slot.due.packets <= now {
                slot.due.packets = NEVER;
                self.busy.insert(number);
            }
            next = next.min(slot.due.bus).min(slot.due.packets);
        }
        self.due = Some(next);
        next
    }

    /// Looks which vifs there are, and where something has changed.
    fn look(&mut self, now: Instant) {
        let mut looks = Vec::new();
        self.listing.poll(now, |look| looks.push(look));
        for look in looks {
            match look {
                Look::All => {
                    for number in self.open.values().copied().collect::<Vec<_>>() {
                        self.ask(number);
                    }
                }
                Look::At(vif) => match self.open.get(&vif) {
                    Some(&number) => self.ask(number),
                    None => self.add(vif),
                },
            }
        }
    }

    fn ask(&mut self, number: usize) {
        self.asked.insert(number);
        self.with(number, |_, vif, _| vif.ask());
    }

    /// A vif that is not known: it may be new.
    fn add(&mut self, vif: VifId) {
        let Some(watch) = self.listing.watch().filter(|_| !self.is_closing) else { return };
        if self.open.len() >= MAX_CLIENTS {
            let (domain, number) = (vif.0.0, vif.1);
            log::warn!(
                "domain {domain}, vif {number}: not even looked at: there are {MAX_CLIENTS}"
            );
            self.has_unseen = true;
            self.refused += 1;
            return;
        }
        let account = self.budget.account();
        let is_refused = account.is_none();
        let (platform, store, pool) = (self.platform.clone(), self.store.clone(), &self.pool);
        let terms = (self.config, account.unwrap_or_else(|| Budget::of_one(0)));
        let mut opened = Vif::part_of(platform, store, watch, pool, vif, terms, SLICE);
        if is_refused {
            opened.set_refused(None);
        }
        if let Some(up) = self.carrier {
            opened.set_carrier(up);
        }
        opened.pause_receive(self.is_paused);
        let opened = Some(Box::new(opened));
        let number = match self.slots.iter().position(|slot| slot.is.is_none()) {
            Some(number) => number,
            None => {
                let waker = self.ready.waker(self.slots.len());
                self.slots.push(Slot {
                    generation: 0,
                    vif: None,
                    waker,
                    is: None,
                    due: NOTHING,
                    was_connected: (false, 0),
                    is_known: false,
                    refusal: None,
                });
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(number) {
            slot.vif = opened;
            slot.is = Some(vif);
            slot.refusal = is_refused.then_some(Refusal::Unsaid);
        }
        self.open.insert(vif, number);
        self.asked.insert(number);
    }

    fn remove_if_gone(&mut self, number: usize) {
        let Some(slot) = self.slots.get_mut(number) else { return };
        let Some(vif) = slot.vif.take_if(|vif| vif.is_gone()) else { return };
        let client = id(number, slot.generation);
        slot.generation = slot.generation.wrapping_add(1);
        let is_known = core::mem::take(&mut slot.is_known);
        (slot.due, slot.was_connected, slot.is) = (NOTHING, (false, 0), None);
        slot.refusal = None;
        self.due = None;
        self.open.remove(&vif.id());
        self.ports.retain(|_, other| *other != number);
        for set in [&mut self.asked, &mut self.busy, &mut self.touched] {
            set.remove(number);
        }
        if is_known {
            let (id, counters) = (vif.id(), Box::new(*vif.counters()));
            self.tell(client, ClientChange::Gone { vif: id, counters });
        }
        // What it had is there for another.
        drop(vif);
        self.admit_another();
        if core::mem::take(&mut self.has_unseen) {
            self.listing.list_anew();
        }
    }

    /// Says of a vif that is there that there is no room for it.
    fn tell_of_refusal(&mut self, number: usize) {
        let served = self.slots.iter().filter(|slot| slot.is.is_some() && slot.refusal.is_none());
        let served = served.count();
        let Some(slot) = self.slots.get_mut(number) else { return };
        if let (Some((domain, vif)), Some(Refusal::Unsaid)) = (slot.is, slot.refusal) {
            log::warn!(
                "domain {}, vif {vif}: not served: {served} are, and no more can be",
                domain.0
            );
            slot.refusal = Some(Refusal::Said);
            self.refused += 1;
        }
    }

    /// Serves a vif for which there was no room, if there is now.
    fn admit_another(&mut self) {
        let refused = self.slots.iter().position(|slot| slot.refusal.is_some());
        let Some((number, account)) = refused.zip(self.budget.account()) else { return };
        if let Some(slot) = self.slots.get_mut(number) {
            slot.refusal = None;
        }
        self.asked.insert(number);
        self.with(number, |_, vif, _| vif.set_refused(Some(account)));
    }
}
