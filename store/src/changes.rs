//! Where below a watched node something has changed.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::string::String;

/// The most places that are remembered for a watch.
const MAX_PLACES: usize = 256;
/// The longest path of a place, in bytes.
const MAX_LENGTH: usize = 64;

/// Where something has changed below a node that [`Store::watch_below`](crate::Store::watch_below)
/// watches, since this was last asked. A hint, like each watch event: look what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Changes {
    /// Nowhere.
    #[default]
    None,
    /// At these places or below them: paths from the watched node on, without it and without a slash
    /// in front, cut to as many names as the watch wants.
    At(BTreeSet<String>),
    /// Anywhere: the watch is new or set again, the node itself has changed, or there were more places
    /// than are remembered.
    Anywhere,
}

impl Changes {
    /// Something has changed at `place`, a path from the watched node on, of which `depth` names count.
    pub(crate) fn note(&mut self, place: &str, depth: usize) {
        let end = place.match_indices('/').nth(depth.saturating_sub(1)).map(|(at, _)| at);
        let place = end.and_then(|end| place.get(..end)).unwrap_or(place);
        let is_kept = depth > 0 && !place.is_empty() && place.len() <= MAX_LENGTH;
        match self {
            Changes::None if is_kept => *self = Changes::At([place.to_owned()].into()),
            Changes::At(places) if is_kept && places.contains(place) => {}
            Changes::At(places) if is_kept && places.len() < MAX_PLACES => {
                places.insert(place.to_owned());
            }
            Changes::None | Changes::At(_) | Changes::Anywhere => *self = Changes::Anywhere,
        }
    }
}

/// The rest of `path` behind `above`, without a slash; `None` if it is not there or below.
pub(crate) fn place_below<'a>(path: &'a str, above: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(above.strip_suffix('/').unwrap_or(above))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn after(places: &[&str], depth: usize) -> Changes {
        let mut changes = Changes::None;
        places.iter().for_each(|place| changes.note(place, depth));
        changes
    }

    #[test]
    fn p2_places_are_cut_and_kept_once() {
        let both = Changes::At(["3".to_owned(), "3/0".to_owned()].into());
        assert_eq!(after(&["3/0/state", "3", "3/0/online", "3/0"], 2), both);
        assert_eq!(after(&[], 2), Changes::None);
        for anywhere in [&["3/0", ""][..], &["", "3/0"], &[&*"x".repeat(65)]] {
            assert_eq!(after(anywhere, 2), Changes::Anywhere);
        }
        assert_eq!(after(&["3/0"], 0), Changes::Anywhere);
    }

    #[test]
    fn p2_more_places_than_are_kept_are_anywhere() {
        let mut changes = Changes::None;
        for number in 0..MAX_PLACES {
            changes.note(&format!("{number}"), 1);
        }
        assert!(matches!(&changes, Changes::At(places) if places.len() == MAX_PLACES));
        changes.note("7", 1);
        assert!(matches!(changes, Changes::At(_)));
        changes.note("one more", 1);
        assert_eq!(changes, Changes::Anywhere);
    }

    #[test]
    fn a_place_lies_below_its_node() {
        assert_eq!(place_below("/a/b/c", "/a"), Some("b/c"));
        assert_eq!(place_below("/a", "/a"), Some(""));
        assert_eq!(place_below("/a/b", "/"), Some("a/b"));
        assert_eq!(place_below("/ab", "/a"), None);
        assert_eq!(place_below("/b", "/a"), None);
    }
}
