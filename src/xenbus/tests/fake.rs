//! Xenstore in memory, and ways to misbehave.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use xen_store::intercept::{Intercept, Intercepted, Request};
use xen_store::memory::{Access, MAX_VALUE, MemoryStore, Perms};
use xen_store::{Store, StoreError};

/// The domains that there are: a frontend, and two with backends.
const DOMAINS: [u16; 3] = [1, 2, 5];

/// All domains' xenstore, as the toolstack sees it.
#[derive(Clone)]
pub struct FakeXen {
    store: MemoryStore,
    domains: Rc<BTreeMap<u16, MemoryStore>>,
    trouble: Rc<RefCell<Trouble>>,
}

/// Xenstore as one domain sees it.
pub type FakeStore = Intercepted<MemoryStore, Domain>;

/// What goes wrong when a domain asks.
#[derive(Clone)]
pub struct Domain {
    xen: FakeXen,
    number: u16,
}

/// A node, and its new value; `None`: it is removed.
type Change = (String, Option<String>);

#[derive(Default)]
struct Trouble {
    operations: u64,
    refuse_commits: usize,
    refuse_first_commits: usize,
    /// Since one was accepted.
    refused: usize,
    fail_operations: usize,
    /// One in this many operations fails, as chance decides.
    fail_one_in: Option<(u64, Random)>,
    forbidden: BTreeSet<String>,
    /// Nodes whose values are longer than any that is carried.
    long: BTreeSet<String>,
    deny_removal: bool,
    /// What somebody else changes, and after how many more operations.
    later: Option<(u64, Vec<Change>)>,
}

impl FakeXen {
    pub fn new() -> FakeXen {
        let store = MemoryStore::new(0);
        let domains = DOMAINS.map(|number| {
            let domain = store.as_domain(number);
            // Everybody may read everything, as in a toolstack's directories of a vif.
            let perms = Perms { others: Access::READ, ..Perms::of(0) };
            for dir in [home(number), format!("{}/device", home(number))] {
                store.set_perms(&dir, perms.clone()).unwrap();
            }
            (number, domain)
        });
        FakeXen { store, domains: Rc::new(domains.into()), trouble: Rc::default() }
    }

    /// The store as domain `number` sees it.
    pub fn domain(&self, number: u16) -> FakeStore {
        let by = Domain { xen: self.clone(), number };
        Intercepted { store: self.domains[&number].clone(), by }
    }

    pub fn get(&self, path: &str) -> Option<String> {
        let value = self.store.read(None, path).ok();
        value.map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    pub fn set(&self, path: &str, value: &str) {
        self.set_bytes(path, value.as_bytes());
    }

    /// Makes the directory of a vif that a path is in, as a toolstack does: its domain's own.
    fn make_vif(&self, path: &str) {
        let Some((dir, owner)) = vif_of(path) else { return };
        if self.store.read(None, dir) == Err(StoreError::NotFound) {
            self.store.write(None, dir, b"").unwrap();
            self.own(dir, owner);
        }
    }

    /// Gives a directory to a domain.
    pub fn own(&self, path: &str, owner: u16) {
        let perms = Perms { others: Access::READ, ..Perms::of(owner) };
        self.store.set_perms(path, perms).unwrap();
    }

    /// Puts a value of any length there, as a peer with other limits might.
    pub fn set_bytes(&self, path: &str, value: &[u8]) {
        let mut trouble = self.trouble.borrow_mut();
        trouble.long.remove(path);
        if value.len() > MAX_VALUE {
            trouble.long.insert(path.to_string());
        }
        self.make_vif(path);
        self.store.write(None, path, &value[..value.len().min(MAX_VALUE)]).unwrap();
    }

    pub fn remove(&self, path: &str) {
        match self.store.remove(None, path) {
            Ok(()) | Err(StoreError::NotFound) => {}
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// The names right below a directory.
    pub fn names(&self, path: &str) -> Vec<String> {
        self.store.list(None, path).unwrap_or_default()
    }

    /// How many watches are set, over all domains.
    pub fn watches(&self) -> usize {
        self.domains.values().map(MemoryStore::watches).sum()
    }

    pub fn open_transactions(&self) -> usize {
        self.domains.values().map(MemoryStore::transactions).sum()
    }

    /// Requests to xenstore so far, of every kind.
    pub fn operations(&self) -> u64 {
        self.trouble.borrow().operations
    }

    /// The next `count` transactions meet another one.
    pub fn refuse_commits(&self, count: usize) {
        self.trouble.borrow_mut().refuse_commits = count;
    }

    /// Each transaction meets `count` other ones, one after the other, and then none.
    pub fn refuse_first_commits(&self, count: usize) {
        self.trouble.borrow_mut().refuse_first_commits = count;
    }

    /// The next `count` operations fail.
    pub fn fail_operations(&self, count: usize) {
        self.trouble.borrow_mut().fail_operations = count;
    }

    /// One in `many` operations fails from now on; `None`: no more.
    pub fn fail_one_in(&self, many: Option<u64>, seed: u64) {
        self.trouble.borrow_mut().fail_one_in = many.map(|many| (many, Random::new(seed)));
    }

    /// No domain may remove anything, not even of its own.
    pub fn deny_removal(&self, denied: bool) {
        self.trouble.borrow_mut().deny_removal = denied;
    }

    /// The toolstack removes `path` before the operation after the next `operations`.
    pub fn remove_after(&self, operations: u64, path: &str) {
        self.trouble.borrow_mut().later = Some((operations, [(path.to_string(), None)].to_vec()));
    }

    /// These nodes change, all at once, before the operation after the next `operations`.
    pub fn set_after(&self, operations: u64, dir: &str, nodes: &[(&str, &str)]) {
        let change =
            |(key, value): &(&str, &str)| (format!("{dir}/{key}"), Some(value.to_string()));
        self.trouble.borrow_mut().later = Some((operations, nodes.iter().map(change).collect()));
    }

    /// Whether what somebody else changes later is still to come.
    pub fn is_due(&self) -> bool {
        self.trouble.borrow().later.is_some()
    }

    /// Nobody may read what is below `path` any more, or may again.
    pub fn forbid(&self, path: &str, forbidden: bool) {
        let mut trouble = self.trouble.borrow_mut();
        if forbidden {
            trouble.forbidden.insert(path.to_string());
        } else {
            trouble.forbidden.remove(path);
        }
    }
}

impl Intercept for Domain {
    fn before(&self, request: Request<'_>) -> Result<(), StoreError> {
        if matches!(request, Request::Remove(_)) && self.xen.trouble.borrow().deny_removal {
            return Err(StoreError::Denied);
        }
        let changes = self.xen.trouble.borrow_mut().take_due();
        for (path, value) in changes {
            match value {
                Some(value) => self.xen.set(&path, &value),
                None => self.xen.remove(&path),
            }
        }
        let trouble = &mut *self.xen.trouble.borrow_mut();
        match request {
            Request::Begin => trouble.luck(),
            Request::Commit => {
                assert!(self.transactions() > 0, "an open transaction");
                trouble.luck()?;
                trouble.meet()
            }
            Request::Abort => {
                assert!(self.transactions() > 0, "an open transaction");
                Ok(())
            }
            Request::Watch(path) => {
                self.absolute(path);
                trouble.luck()
            }
            Request::Unwatch => Ok(()),
            Request::Read(path) | Request::List(path) => {
                let path = self.absolute(path);
                trouble.luck()?;
                trouble.allowed(&path)?;
                let long = matches!(request, Request::Read(_)) && trouble.long.contains(&path);
                if long { Err(StoreError::Quota) } else { Ok(()) }
            }
            Request::Write(path) | Request::Remove(path) => {
                let path = self.absolute(path);
                let home = home(self.number);
                // The one node of the other end's that a toolstack gives to a backend.
                let is_mtu = path.contains("/device/vif/") && path.ends_with("/mtu");
                assert!(is_within(&path, &home) || is_mtu, "{path} is not below {home}");
                trouble.luck()?;
                trouble.allowed(&path)?;
                trouble.long.remove(&path);
                Ok(())
            }
            _ => unreachable!("{request:?}"),
        }
    }
}

impl Domain {
    fn transactions(&self) -> usize {
        self.xen.domains[&self.number].transactions()
    }

    fn absolute(&self, path: &str) -> String {
        assert!(!path.is_empty() && !path.ends_with('/') && path.len() < 1024, "{path:?}");
        let home = home(self.number);
        if path.starts_with('/') { path.to_string() } else { format!("{home}/{path}") }
    }
}

impl Trouble {
    /// Counts an operation; what others do before it.
    fn take_due(&mut self) -> Vec<Change> {
        self.operations += 1;
        match self.later.take() {
            Some((0, changes)) => return changes,
            Some((left, changes)) => self.later = Some((left - 1, changes)),
            None => {}
        }
        Vec::new()
    }

    fn luck(&mut self) -> Result<(), StoreError> {
        if self.fail_operations > 0 {
            self.fail_operations -= 1;
            return Err(StoreError::Other(5));
        }
        let unlucky =
            self.fail_one_in.as_mut().is_some_and(|(many, random)| random.below(*many) == 0);
        if unlucky { Err(StoreError::Other(5)) } else { Ok(()) }
    }

    fn meet(&mut self) -> Result<(), StoreError> {
        if self.refuse_commits > 0 {
            self.refuse_commits -= 1;
            return Err(StoreError::Again);
        }
        if self.refused < self.refuse_first_commits {
            self.refused += 1;
            return Err(StoreError::Again);
        }
        self.refused = 0;
        Ok(())
    }

    fn allowed(&self, path: &str) -> Result<(), StoreError> {
        let forbidden = self.forbidden.iter().any(|dir| is_within(path, dir));
        if forbidden { Err(StoreError::Denied) } else { Ok(()) }
    }
}

fn home(domain: u16) -> String {
    format!("/local/domain/{domain}")
}

/// The directory of a vif that a path is in, and whose it is.
fn vif_of(path: &str) -> Option<(&str, u16)> {
    let (domain, rest) = path.strip_prefix("/local/domain/")?.split_once('/')?;
    let names = match rest.split('/').next()? {
        "device" => 3,
        "backend" => 4,
        _ => return None,
    };
    let below: usize = rest.split('/').take(names).map(|name| name.len() + 1).sum();
    let dir = path.get(..path.len() - rest.len() + below - 1)?;
    (rest.split('/').count() >= names).then_some((dir, domain.parse().ok()?))
}

fn is_within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Chance from a seed (splitmix64).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// The row of a table in a file's documentation whose first 14 columns are `name`.
pub fn table_in_docs<'a>(file: &'a str, name: &str) -> Vec<&'a str> {
    let mut rows = file.lines().filter_map(|line| {
        let (head, row) = line.strip_prefix("//!  ")?.split_at_checked(14)?;
        let row: Vec<&str> = row.split_whitespace().collect();
        (head.trim() == name && row.len() == 9).then_some(row)
    });
    let row = rows.next().expect("the row is in the table");
    assert_eq!(rows.next(), None, "two rows for {name}");
    row
}
