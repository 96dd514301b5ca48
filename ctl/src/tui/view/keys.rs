//! What the keys do, as it is shown.

use crate::tui::app::Tab;

type Keys = &'static [(&'static str, &'static str)];

const EVERYWHERE: Keys = &[
    ("1 to 6", "the pages"),
    ("Tab ← →", "the next page, the one before"),
    ("↑ ↓ j k", "up and down"),
    ("PgUp PgDn", "a page up and down"),
    ("Home End", "to the beginning, to the end"),
    ("/", "show only rows that have a text in them; Esc shows all again"),
    ("r", "ask the node for everything again"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit"),
    ("Ctrl-Z", "back to the shell; its fg comes back here"),
];

const DETAILS: (&str, &str) = ("Enter", "all about the selected one");

/// The keys of a page, the most important first.
pub(super) fn of(tab: Tab) -> Keys {
    match tab {
        Tab::Status => &[("t", "how long the graphs reach back: 1, 5 or 30 minutes")],
        Tab::Peers => &[
            DETAILS,
            ("s", "sort by the next column"),
            ("S", "turn the order round"),
            ("b", "ban the selected one, or lift its ban"),
        ],
        Tab::Routes => &[("Enter", "all about the member")],
        Tab::Invites => &[
            ("n", "a new invite; the first one founds the network"),
            ("v", "show the code and its QR code, a secret; hidden again by any key, and after a minute"),
            ("c", "copy the code"),
            ("x", "revoke the selected one"),
            DETAILS,
        ],
        Tab::Bans => &[("a", "ban a member"), ("x", "lift the selected ban"), DETAILS],
        Tab::Events => &[DETAILS, ("f", "show the events, the log, or both")],
    }
}

/// The same in a word each, for the last line.
pub(super) fn hints(tab: Tab) -> Keys {
    match tab {
        Tab::Status => &[("t", "span")],
        Tab::Peers => &[("Enter", "details"), ("s", "sort"), ("S", "turn"), ("b", "ban"), ("/", "find")],
        Tab::Routes => &[("Enter", "details"), ("/", "find")],
        Tab::Invites => &[
            ("n", "new"),
            ("v", "show code"),
            ("c", "copy"),
            ("x", "revoke"),
            ("Enter", "details"),
            ("/", "find"),
        ],
        Tab::Bans => &[("a", "add"), ("x", "lift"), ("Enter", "details"), ("/", "find")],
        Tab::Events => &[("f", "which"), ("Enter", "details"), ("/", "find")],
    }
}

/// All keys that count on a page, under their titles.
pub(super) fn all(tab: Tab) -> [(&'static str, Keys); 2] {
    [(tab.title(), of(tab)), ("Everywhere", EVERYWHERE)]
}
