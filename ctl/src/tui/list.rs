//! A list of which one row is selected: sorted, filtered, and always on the same row while it changes.

use std::cmp::Ordering;

use crossterm::event::KeyCode;

/// A way through a list or a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scroll {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

impl Scroll {
    pub(super) fn of(code: KeyCode) -> Option<Self> {
        Some(match code {
            KeyCode::Up | KeyCode::Char('k') => Self::Up,
            KeyCode::Down | KeyCode::Char('j') => Self::Down,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown | KeyCode::Char(' ') => Self::PageDown,
            KeyCode::Home | KeyCode::Char('g') => Self::First,
            KeyCode::End | KeyCode::Char('G') => Self::Last,
            _ => return None,
        })
    }

    /// Where it leads from a place among so many.
    pub(super) fn from(self, place: usize, count: usize, page: usize) -> usize {
        let place = match self {
            Self::Up => place.saturating_sub(1),
            Self::Down => place.saturating_add(1),
            Self::PageUp => place.saturating_sub(page),
            Self::PageDown => place.saturating_add(page),
            Self::First => 0,
            Self::Last => usize::MAX,
        };
        place.min(count.saturating_sub(1))
    }
}

/// A row.
pub(super) trait Row {
    /// What it is known by.
    fn key(&self) -> &str;

    /// Whether it has this text in it; that is in lower case.
    fn contains(&self, text: &str) -> bool;
}

/// Rows.
#[derive(Debug)]
pub(super) struct List<T> {
    items: Vec<T>,
    /// Those shown, in their order.
    shown: Vec<usize>,
    /// A place among those.
    selected: usize,
    /// What the rows shown have in them.
    filter: String,
    /// A row to be selected as soon as it is there.
    expected: Option<String>,
    /// Whether they have been asked for with success.
    known: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        let (items, shown, filter) = (Vec::new(), Vec::new(), String::new());
        Self { items, shown, selected: 0, filter, expected: None, known: false }
    }
}

impl<T: Row> List<T> {
    /// Has other rows from now on.
    pub(super) fn set(&mut self, items: Vec<T>, order: impl Fn(&T, &T) -> Ordering) {
        let selected = self.selected().map(|row| row.key().to_owned());
        self.items = items;
        self.known = true;
        self.arrange(selected, order);
    }

    /// Shows the rows in another order, or others of them.
    pub(super) fn rearrange(&mut self, order: impl Fn(&T, &T) -> Ordering) {
        let selected = self.selected().map(|row| row.key().to_owned());
        self.arrange(selected, order);
    }

    fn arrange(&mut self, selected: Option<String>, order: impl Fn(&T, &T) -> Ordering) {
        let filter = self.filter.to_lowercase();
        let items = &self.items;
        self.shown =
            (0..items.len()).filter(|&at| filter.is_empty() || items[at].contains(&filter)).collect();
        self.shown
            .sort_by(|&a, &b| order(&items[a], &items[b]).then_with(|| items[a].key().cmp(items[b].key())));
        let place = |key: &str| self.shown.iter().position(|&at| items[at].key() == key);
        let expected = self.expected.as_deref().and_then(place);
        let place = expected.or_else(|| selected.as_deref().and_then(place)).unwrap_or(self.selected);
        if expected.is_some() {
            self.expected = None;
        }
        self.selected = place.min(self.shown.len().saturating_sub(1));
    }

    /// Selects a row, now or when it comes.
    pub(super) fn expect(&mut self, key: &str) {
        match self.shown.iter().position(|&at| self.items[at].key() == key) {
            Some(place) => self.selected = place,
            None => self.expected = Some(key.to_owned()),
        }
    }

    /// The row that is selected.
    pub(super) fn selected(&self) -> Option<&T> {
        self.row(self.selected)
    }

    /// The place of that among those shown.
    pub(super) fn place(&self) -> usize {
        self.selected
    }

    /// A row by its place among those shown.
    pub(super) fn row(&self, place: usize) -> Option<&T> {
        self.shown.get(place).map(|&at| &self.items[at])
    }

    /// A row by its key.
    pub(super) fn find(&self, key: &str) -> Option<&T> {
        self.items.iter().find(|row| row.key() == key)
    }

    /// All rows, shown or not.
    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// All rows, to change what is not their key.
    pub(super) fn items_mut(&mut self) -> &mut [T] {
        &mut self.items
    }

    /// How many are shown.
    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether the node has told them.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// What those shown have in them.
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    /// Has others shown; to be followed by [`List::rearrange`].
    pub(super) fn set_filter(&mut self, filter: &str) {
        filter.clone_into(&mut self.filter);
    }

    /// Selects another row.
    pub(super) fn go(&mut self, step: Scroll, page: usize) {
        self.selected = step.from(self.selected, self.shown.len(), page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Row for (&'static str, u32) {
        fn key(&self) -> &str {
            self.0
        }

        fn contains(&self, text: &str) -> bool {
            self.0.contains(text)
        }
    }

    fn by_number(a: &(&str, u32), b: &(&str, u32)) -> Ordering {
        a.1.cmp(&b.1)
    }

    #[test]
    fn the_selection_stays_on_its_row() {
        let mut list = List::default();
        list.set(vec![("a", 1), ("b", 2), ("c", 3)], by_number);
        list.go(Scroll::Down, 10);
        assert_eq!(list.selected(), Some(&("b", 2)));
        list.set(vec![("a", 5), ("b", 4), ("c", 3), ("d", 1)], by_number);
        assert_eq!((list.selected(), list.place()), (Some(&("b", 4)), 2));
        list.rearrange(|a, b| by_number(b, a));
        assert_eq!((list.selected(), list.place()), (Some(&("b", 4)), 1));
        // One that has gone leaves its place.
        list.set(vec![("a", 5)], by_number);
        assert_eq!(list.selected(), Some(&("a", 5)));
        list.set(Vec::new(), by_number);
        assert_eq!(list.selected(), None);
    }

    #[test]
    fn a_filter_hides_rows_and_an_expected_one_is_selected() {
        let mut list = List::default();
        list.set(vec![("alpha", 1), ("beta", 2)], by_number);
        list.set_filter("ET");
        list.rearrange(by_number);
        assert_eq!((list.len(), list.selected()), (1, Some(&("beta", 2))));
        list.set_filter("");
        list.expect("gamma");
        list.set(vec![("alpha", 1), ("beta", 2), ("gamma", 0)], by_number);
        assert_eq!(list.selected(), Some(&("gamma", 0)));
        list.go(Scroll::Last, 10);
        assert_eq!(list.selected(), Some(&("beta", 2)));
    }
}
