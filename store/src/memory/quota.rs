//! What a domain may have in xenstore.

use super::tree::Tree;
use super::{MAX_NODES, MAX_TRANSACTIONS, MAX_WATCHES, Perms};
use crate::{StoreError, Transaction};

/// What each domain may have in xenstore, domain 0 excepted. The default is that of Xen 4.17's
/// xenstored; an option of its own raises each.
///
/// There, one watch and one transaction more pass. Others (oxenstored: 100 watches) have less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Nodes that a domain may own, whoever has made them (`--entry-nb`). Domain 0 may make more in a
    /// domain's name; the domain itself then none.
    pub nodes: usize,
    /// Watches that it may set (`--watch-nb`).
    pub watches: usize,
    /// Transactions that it may have open (`--transaction`).
    pub transactions: usize,
    /// Nodes that one transaction may look at or change (`--quota transaction-nodes`).
    pub transaction_nodes: usize,
    /// Bytes that an entry must stay below (`--entry-size`): 24, 8 for each domain in the node's
    /// permissions, the value, and the names of the node's children with a zero each.
    pub entry: usize,
    /// Domains in a node's permissions, its owner among them (`--perm-nb`).
    pub perms: usize,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota {
            nodes: MAX_NODES,
            watches: MAX_WATCHES,
            transactions: MAX_TRANSACTIONS,
            transaction_nodes: 1024,
            entry: 2048,
            perms: 5,
        }
    }
}

/// `struct xs_tdb_record_hdr`
const ENTRY_HEADER: usize = 24;
/// `struct xs_permissions`
const ENTRY_PERMISSION: usize = 8;
/// `ENOMEM`: what the end of a transaction says in which a write was refused.
pub(super) const SPOILED: StoreError = StoreError::Other(12);

impl Tree {
    /// What each domain may have.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// Says what each domain may have from now on. What one has already it keeps.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// Whether a domain may give a node that is there this value.
    pub(super) fn afford_value(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        value: usize,
    ) -> Result<(), StoreError> {
        let Some(node) = self.node(within, path).filter(|_| domain != 0) else { return Ok(()) };
        let entry = self.entry(within, path, &node.perms, value);
        self.afford_entry(domain, within, entry)
    }

    /// Whether a domain may make a node that is missing.
    pub(super) fn afford_new(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        value: usize,
    ) -> Result<(), StoreError> {
        if domain == 0 {
            return Ok(());
        }
        let missing = self.missing(within, path);
        let Some((above, node)) = self.nearest(within, path) else { return Ok(()) };
        let (listed, perms) = (node.value.len(), node.perms.clone());
        let room = self.quota.nodes.saturating_sub(self.owned_within(domain, within));
        if missing.len() > room {
            // What was made of the path before it was refused spoils the transaction.
            if room > 0 {
                self.spoil(within);
            }
            return Err(StoreError::Quota);
        }
        let mut name = 0;
        for at in missing {
            let held = if at == path { value } else { name };
            let entry = ENTRY_HEADER + perms_len(&perms) + held;
            self.afford_entry(domain, within, entry)?;
            name = name_len(at);
        }
        let entry = self.entry(within, &above, &perms, listed) + name;
        self.afford_entry(domain, within, entry)
    }

    /// Whether a domain may have an entry of this length.
    pub(super) fn afford_entry(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        entry: usize,
    ) -> Result<(), StoreError> {
        if domain == 0 || entry < self.quota.entry {
            return Ok(());
        }
        self.spoil(within);
        Err(StoreError::Quota)
    }

    /// How long the entry of a node is, with this value and these permissions.
    pub(super) fn entry(
        &self,
        within: Option<Transaction>,
        path: &str,
        perms: &Perms,
        value: usize,
    ) -> usize {
        ENTRY_HEADER + perms_len(perms) + value + self.names_len(within, path)
    }
}

fn perms_len(perms: &Perms) -> usize {
    ENTRY_PERMISSION * (1 + perms.grants.len())
}

/// What a node costs the entry of the directory that it is in.
fn name_len(path: &str) -> usize {
    path.rsplit('/').next().map_or(0, |name| name.len() + 1)
}
