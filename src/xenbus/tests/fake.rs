//! A small xenstore in memory, for tests: a tree, watches, transactions, and ways to misbehave.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::NonZeroU32;

use xen_store::{Store, StoreError, Transaction, Watch};

const LONGEST_VALUE: usize = 4096;

/// All domains' xenstore.
#[derive(Clone, Default)]
pub struct FakeXen(Rc<RefCell<Inner>>);

/// Xenstore as one domain sees it.
#[derive(Clone)]
pub struct FakeStore {
    xen: FakeXen,
    home: String,
}

type Tree = BTreeMap<String, Vec<u8>>;

/// A node, and its new value; `None`: it is removed.
type Change = (String, Option<String>);

/// A transaction: a working copy, what was written there, and the generation it began from.
type Begun = (Rc<Tree>, Vec<String>, u64);

#[derive(Default)]
struct Inner {
    tree: Rc<Tree>,
    watches: BTreeMap<u32, (String, bool)>,
    transactions: BTreeMap<u32, Begun>,
    /// Transactions in which nothing was looked at: they meet no other.
    untouched: BTreeSet<u32>,
    generation: u64,
    last_id: u32,
    operations: u64,
    refuse_commits: usize,
    refuse_first_commits: usize,
    /// Since one was accepted.
    refused: usize,
    fail_operations: usize,
    /// One in this many operations fails, as chance decides.
    fail_one_in: Option<(u64, Random)>,
    forbidden: BTreeSet<String>,
    deny_removal: bool,
    /// What somebody else changes, and after how many more operations.
    later: Option<(u64, Vec<Change>)>,
}

impl FakeXen {
    pub fn new() -> FakeXen {
        FakeXen::default()
    }

    /// The store as domain `number` sees it.
    pub fn domain(&self, number: u16) -> FakeStore {
        FakeStore { xen: self.clone(), home: format!("/local/domain/{number}") }
    }

    pub fn get(&self, path: &str) -> Option<String> {
        let value = self.0.borrow().tree.get(path).cloned();
        value.map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    pub fn set(&self, path: &str, value: &str) {
        self.set_bytes(path, value.as_bytes());
    }

    /// Puts a value of any length there, as a peer with other limits might.
    pub fn set_bytes(&self, path: &str, value: &[u8]) {
        let mut inner = self.0.borrow_mut();
        put(Rc::make_mut(&mut inner.tree), path, value);
        inner.changed(path);
    }

    pub fn remove(&self, path: &str) {
        let mut inner = self.0.borrow_mut();
        if cut(Rc::make_mut(&mut inner.tree), path) {
            inner.changed(path);
        }
    }

    /// The names right below a directory.
    pub fn names(&self, path: &str) -> Vec<String> {
        names(&self.0.borrow().tree, path)
    }

    /// How many watches are set, over all domains.
    pub fn watches(&self) -> usize {
        self.0.borrow().watches.len()
    }

    pub fn open_transactions(&self) -> usize {
        self.0.borrow().transactions.len()
    }

    /// Requests to xenstore so far, of every kind.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// The next `count` transactions meet another one.
    pub fn refuse_commits(&self, count: usize) {
        self.0.borrow_mut().refuse_commits = count;
    }

    /// Each transaction meets `count` other ones, one after the other, and then none.
    pub fn refuse_first_commits(&self, count: usize) {
        self.0.borrow_mut().refuse_first_commits = count;
    }

    /// The next `count` operations fail.
    pub fn fail_operations(&self, count: usize) {
        self.0.borrow_mut().fail_operations = count;
    }

    /// One in `many` operations fails from now on; `None`: no more.
    pub fn fail_one_in(&self, many: Option<u64>, seed: u64) {
        self.0.borrow_mut().fail_one_in = many.map(|many| (many, Random::new(seed)));
    }

    /// No domain may remove anything, not even of its own.
    pub fn deny_removal(&self, denied: bool) {
        self.0.borrow_mut().deny_removal = denied;
    }

    /// The toolstack removes `path` before the operation after the next `operations`.
    pub fn remove_after(&self, operations: u64, path: &str) {
        self.0.borrow_mut().later = Some((operations, [(path.to_string(), None)].to_vec()));
    }

    /// These nodes change, all at once, before the operation after the next `operations`.
    pub fn set_after(&self, operations: u64, dir: &str, nodes: &[(&str, &str)]) {
        let change =
            |(key, value): &(&str, &str)| (format!("{dir}/{key}"), Some(value.to_string()));
        self.0.borrow_mut().later = Some((operations, nodes.iter().map(change).collect()));
    }

    /// Nobody may read what is below `path` any more, or may again.
    pub fn forbid(&self, path: &str, forbidden: bool) {
        let mut inner = self.0.borrow_mut();
        if forbidden {
            inner.forbidden.insert(path.to_string());
        } else {
            inner.forbidden.remove(path);
        }
    }
}

impl Inner {
    fn operation(&mut self) -> Result<(), StoreError> {
        self.operations += 1;
        match self.later.take() {
            None => {}
            Some((0, changes)) => self.change(changes),
            Some((left, changes)) => self.later = Some((left - 1, changes)),
        }
        if self.fail_operations > 0 {
            self.fail_operations -= 1;
            return Err(StoreError::Other(5));
        }
        let unlucky =
            self.fail_one_in.as_mut().is_some_and(|(many, random)| random.below(*many) == 0);
        if unlucky { Err(StoreError::Other(5)) } else { Ok(()) }
    }

    fn change(&mut self, changes: Vec<Change>) {
        for (path, value) in changes {
            let tree = Rc::make_mut(&mut self.tree);
            let changed = match value {
                Some(value) => {
                    put(tree, &path, value.as_bytes());
                    true
                }
                None => cut(tree, &path),
            };
            if changed {
                self.changed(&path);
            }
        }
    }

    /// Fires what watches `path`, something above it or, as it may have been removed with
    /// everything below, something below it.
    fn changed(&mut self, path: &str) {
        self.generation += 1;
        for (watched, fired) in self.watches.values_mut() {
            *fired |= is_within(path, watched) || is_within(watched, path);
        }
    }

    fn tree(&mut self, within: Option<Transaction>) -> Result<&Tree, StoreError> {
        if let Some(Transaction(id)) = within {
            self.untouched.remove(&id.get());
        }
        match within {
            None => Ok(&self.tree),
            Some(Transaction(id)) => match self.transactions.get(&id.get()) {
                Some((tree, _, _)) => Ok(tree),
                None => Err(StoreError::Other(2)),
            },
        }
    }

    fn allowed(&self, path: &str) -> Result<(), StoreError> {
        let forbidden = self.forbidden.iter().any(|dir| is_within(path, dir));
        if forbidden { Err(StoreError::Denied) } else { Ok(()) }
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }
}

impl FakeStore {
    fn absolute(&self, path: &str) -> String {
        assert!(!path.is_empty() && !path.ends_with('/') && path.len() < 1024, "{path:?}");
        if path.starts_with('/') { path.to_string() } else { format!("{}/{path}", self.home) }
    }

    /// Changes the tree, and says whether anything has changed.
    fn change(
        &self,
        within: Option<Transaction>,
        path: &str,
        change: impl FnOnce(&mut Tree, &str) -> bool,
    ) -> Result<(), StoreError> {
        let path = self.absolute(path);
        assert!(is_within(&path, &self.home), "{path} is not below {}", self.home);
        let mut inner = self.xen.0.borrow_mut();
        inner.operation()?;
        inner.allowed(&path)?;
        let changed = match within {
            None => {
                let changed = change(Rc::make_mut(&mut inner.tree), &path);
                if changed {
                    inner.changed(&path);
                }
                changed
            }
            Some(Transaction(id)) => {
                inner.untouched.remove(&id.get());
                let (tree, paths, _) =
                    inner.transactions.get_mut(&id.get()).ok_or(StoreError::Other(2))?;
                let changed = change(Rc::make_mut(tree), &path);
                paths.push(path);
                changed
            }
        };
        if changed { Ok(()) } else { Err(StoreError::NotFound) }
    }
}

impl Store for FakeStore {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.absolute(path);
        let mut inner = self.xen.0.borrow_mut();
        inner.operation()?;
        inner.allowed(&path)?;
        let value = inner.tree(within)?.get(&path).cloned().ok_or(StoreError::NotFound)?;
        if value.len() > LONGEST_VALUE { Err(StoreError::Quota) } else { Ok(value) }
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.change(within, path, |tree, path| {
            put(tree, path, value);
            true
        })
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        let path = self.absolute(path);
        let mut inner = self.xen.0.borrow_mut();
        inner.operation()?;
        inner.allowed(&path)?;
        let tree = inner.tree(within)?;
        if tree.contains_key(&path) { Ok(names(tree, &path)) } else { Err(StoreError::NotFound) }
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        if self.xen.0.borrow().deny_removal {
            return Err(StoreError::Denied);
        }
        self.change(within, path, cut)
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        let mut inner = self.xen.0.borrow_mut();
        inner.operation()?;
        let id = inner.next_id();
        let copy = (inner.tree.clone(), Vec::new(), inner.generation);
        inner.transactions.insert(id, copy);
        inner.untouched.insert(id);
        NonZeroU32::new(id).map(Transaction).ok_or(StoreError::Other(0))
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let mut inner = self.xen.0.borrow_mut();
        let (tree, paths, generation) =
            inner.transactions.remove(&transaction.0.get()).expect("an open transaction");
        inner.operation()?;
        if inner.refuse_commits > 0 {
            inner.refuse_commits -= 1;
            return Err(StoreError::Again);
        }
        if inner.refused < inner.refuse_first_commits {
            inner.refused += 1;
            return Err(StoreError::Again);
        }
        inner.refused = 0;
        if inner.untouched.remove(&transaction.0.get()) {
            return Ok(());
        }
        if inner.generation != generation {
            return Err(StoreError::Again);
        }
        inner.tree = tree;
        for path in paths {
            inner.changed(&path);
        }
        Ok(())
    }

    fn abort(&self, transaction: Transaction) {
        let mut inner = self.xen.0.borrow_mut();
        inner.operations += 1;
        inner.transactions.remove(&transaction.0.get()).expect("an open transaction");
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        let path = self.absolute(path);
        let mut inner = self.xen.0.borrow_mut();
        inner.operation()?;
        let id = inner.next_id();
        inner.watches.insert(id, (path, true));
        Ok(Watch(id))
    }

    fn unwatch(&self, watch: Watch) {
        let mut inner = self.xen.0.borrow_mut();
        inner.operations += 1;
        inner.watches.remove(&watch.0).expect("a watch that is set");
    }

    fn fired(&self, watch: &Watch) -> bool {
        let mut inner = self.xen.0.borrow_mut();
        let (_, fired) = inner.watches.get_mut(&watch.0).expect("a watch that is set");
        core::mem::take(fired)
    }
}

fn is_within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn put(tree: &mut Tree, path: &str, value: &[u8]) {
    let parents = path.match_indices('/').skip(1).filter_map(|(end, _)| path.get(..end));
    for parent in parents {
        tree.entry(parent.to_string()).or_default();
    }
    tree.insert(path.to_string(), value.to_vec());
}

fn cut(tree: &mut Tree, path: &str) -> bool {
    let before = tree.len();
    tree.retain(|node, _| !is_within(node, path));
    tree.len() != before
}

fn names(tree: &Tree, dir: &str) -> Vec<String> {
    let name = |node: &String| {
        let name = node.strip_prefix(dir)?.strip_prefix('/')?;
        (!name.contains('/')).then(|| name.to_string())
    };
    tree.keys().filter_map(name).collect()
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
