//! The pages: what is known of a node, as HTML. Nothing here asks a node.
//!
//! Pages are whole without scripts. `app.js` replaces what is marked `data-live` when something has changed. What comes
//! from other nodes and programs is escaped as HTML, and goes through [`clean`] besides.

use i2plan_present::text::clean;
use maud::{DOCTYPE, Markup, html};

use super::sessions::Entered;

pub mod invites;
pub mod members;
pub mod node;

/// The style sheet.
pub const STYLE: &str = include_str!("../../assets/style.css");

/// The script.
pub const SCRIPT: &str = include_str!("../../assets/app.js");

/// What reads invites from pictures, and is loaded where it is wanted.
pub const SCAN: &str = include_str!("../../assets/scan.js");

/// The worker in which QR codes are decoded, and the decoder, which is not ours.
pub const QR: [(&str, &str); 3] = [
    ("/qr/worker.js", include_str!("../../assets/qr/worker.js")),
    ("/qr/decode.js", include_str!("../../assets/qr/decode.js")),
    ("/qr/index.js", include_str!("../../assets/qr/index.js")),
];

/// The icon.
pub const ICON: &str = include_str!("../../assets/icon.svg");

/// The pages that are in the navigation: path and title.
const PAGES: [(&str, &str); 11] = [
    ("/", "Dashboard"),
    ("/peers", "Peers"),
    ("/tree", "Invitations"),
    ("/routes", "Routes"),
    ("/invites", "Invites"),
    ("/join", "Join"),
    ("/bans", "Bans"),
    ("/events", "Events"),
    ("/doctor", "Doctor"),
    ("/settings", "Settings"),
    ("/sessions", "Sessions"),
];

/// For whom a page is.
#[derive(Debug, Clone, Copy)]
pub struct Viewer<'a> {
    /// The session.
    pub session: &'a Entered,
    /// The node's name.
    pub node: &'a str,
}

impl Viewer<'_> {
    /// The hidden field that each form must have.
    fn csrf(&self) -> Markup {
        html! { input type="hidden" name="csrf" value=(*self.session.csrf); }
    }

    /// A form with one button.
    fn button(&self, action: &str, label: &str) -> Markup {
        html! { form.inline method="post" action=(action) { (self.csrf()) button { (label) } } }
    }
}

fn head(title: &str) -> Markup {
    head_and(title, &html! {})
}

fn head_and(title: &str, more: &Markup) -> Markup {
    html! {
        head {
            (more)
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) }
            link rel="stylesheet" href="/style.css";
            link rel="icon" href="/icon.svg" type="image/svg+xml";
            script src="/app.js" defer {}
        }
    }
}

/// A page of the interface. `live` is whether it is shown anew when something has changed.
#[must_use]
pub fn page(viewer: Viewer<'_>, path: &str, title: &str, live: bool, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{title} · {}", clean(viewer.node))))
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    p.node { (clean(viewer.node)) }
                    nav aria-label="Pages" {
                        ul {
                            @for (target, name) in PAGES {
                                li { a href=(target) aria-current=[(target == path).then_some("page")] { (name) } }
                            }
                        }
                    }
                    div.session {
                        span { (if viewer.session.control { "control" } else { "view only" }) }
                        (viewer.button("/logout", "Log out"))
                    }
                }
                main id="content" tabindex="-1" {
                    h1 { (title) }
                    div data-live[live] { (content) }
                }
            }
        }
    }
}

/// A page that leads to the dashboard by itself.
#[must_use]
pub fn opened() -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head_and("Logged in", &html! { meta http-equiv="refresh" content="0;url=/"; }))
            body {
                main id="content" {
                    h1 { "Logged in" }
                    p { a href="/" { "To the dashboard" } }
                }
            }
        }
    }
}

/// A page that says why there is no other.
#[must_use]
pub fn refusal(title: &str, message: &str, hint: Option<&str>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title))
            body {
                main id="content" {
                    h1 { (title) }
                    p role="alert" { (clean(message)) }
                    @if let Some(text) = hint { (self::hint(text)) }
                    p { a href="/" { "To the dashboard" } }
                }
            }
        }
    }
}

/// A table that scrolls on its own where it is too wide. On a narrow screen each row is a card with the headings beside
/// its values; the roles say that it is a table still.
fn table(caption: &str, headings: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table role="table" {
                caption { (caption) }
                thead role="rowgroup" {
                    tr role="row" { @for heading in headings { th scope="col" role="columnheader" { (heading) } } }
                }
                tbody role="rowgroup" {
                    @for row in rows {
                        tr role="row" {
                            @for (heading, cell) in headings.iter().zip(row) {
                                td role="cell" data-heading=(heading) {
                                    @if !cell.0.is_empty() { div { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A field in which one of these values is chosen, each with its name.
fn choice(name: &str, values: &[(&str, &str)], chosen: &str) -> Markup {
    html! {
        select name=(name) {
            @for (value, label) in values { option value=(value) selected[*value == chosen] { (label) } }
        }
    }
}

/// Text in a cell.
fn text(value: &str) -> Markup {
    html! { (clean(value)) }
}

/// Labels and values.
fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! { dl { @for (label, value) in facts { dt { (label) } dd { (value) } } } }
}

/// What to do, with commands as such where it has them between backquotes.
pub fn hint(text: &str) -> Markup {
    html! {
        p.hint {
            @for (index, part) in clean(text).split('`').enumerate() {
                @if index % 2 == 1 { code { (part) } } @else { (part) }
            }
        }
    }
}

/// A command of `i2planctl` that does what a page does not.
fn command(what: &str, command: &str) -> Markup {
    html! { p.hint { (what) " " code { (clean(command)) } } }
}
