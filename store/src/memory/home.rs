//! Domains come and go: the directory that libxl makes for one (`libxl__domain_make`), and what
//! xenstored removes of one that is gone.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::path::{home, within};
use super::tree::Tree;
use super::watch::WatchState;
use super::{Access, Effects, Event, Perms};

/// Directories that a domain reads, and domain 0 writes.
const READABLE: [&str; 4] = ["cpu", "memory", "device", "control"];
/// Nodes that are the domain's own, those of a virtual machine with firmware and of a driver domain
/// left out.
const WRITABLE: [&str; 11] = [
    "device/suspend/event-channel",
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
];

impl Tree {
    /// Makes a domain's home directory as libxl does for a new domain: all of it is domain 0's and the
    /// domain reads it, but `data` and a few more nodes, which are the domain's. What another with its
    /// number has left is removed. Nothing happens if the domain is there already.
    pub fn introduce(&mut self, domain: u16) -> Effects {
        if !self.introduced.insert(domain) {
            return Effects::default();
        }
        let home = home(domain);
        let mut effects = self.remove(0, None, &home).unwrap_or_default();
        if domain == 0 {
            effects.extend(self.write(0, None, &home, b"").unwrap_or_default());
            return effects;
        }
        let readable = Perms::of(0).with(domain, Access::READ);
        effects.extend(self.make(&home, &readable));
        for name in READABLE {
            effects.extend(self.make(&format!("{home}/{name}"), &readable));
        }
        for name in WRITABLE {
            effects.extend(self.make(&format!("{home}/{name}"), &Perms::of(domain)));
        }
        effects
    }

    /// `libxl__xs_mknod`
    fn make(&mut self, path: &str, perms: &Perms) -> Effects {
        let mut effects = self.write(0, None, path, b"").unwrap_or_default();
        effects.extend(self.set_perms(0, None, path, perms.clone()).unwrap_or_default());
        effects
    }

    /// A domain has been resumed, and has a new connection: its transactions are gone, and its watches,
    /// which it has to set anew, fire.
    pub fn reconnect(&mut self, domain: u16) -> Effects {
        self.transactions.retain(|_, open| open.domain != domain);
        let ours = self.watches.iter().filter(|(_, watch)| watch.domain == domain);
        let event =
            |(&watch, state): (&u32, &WatchState)| Event { watch, path: state.path.clone() };
        Effects { changes: Vec::new(), events: ours.map(event).collect() }
    }

    /// Forgets a domain that has died: what it had open, its nodes with all below them, and what it
    /// was permitted. The watches on `@releaseDomain` fire.
    ///
    /// Its home directory is domain 0's, and stays until the toolstack removes it.
    pub fn release(&mut self, domain: u16) -> Effects {
        self.transactions.retain(|_, open| open.domain != domain);
        self.watches.retain(|_, watch| watch.domain != domain);
        self.introduced.remove(&domain);
        let mut orphans: Vec<String> = Vec::new();
        for (path, node) in &self.nodes {
            let below = orphans.last().is_some_and(|above| within(path, above));
            if node.perms.owner == domain && domain != 0 && !below {
                orphans.push(path.clone());
            }
        }
        let mut effects = Effects::default();
        for path in orphans {
            effects.extend(self.remove(0, None, &path).unwrap_or_default());
        }
        for node in self.nodes.values_mut() {
            node.perms.grants.retain(|(other, _)| *other != domain);
        }
        effects.extend(Effects {
            changes: Vec::new(),
            events: self.watchers_of_special("@releaseDomain"),
        });
        effects
    }
}
