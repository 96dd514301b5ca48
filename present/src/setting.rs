//! The configuration of a node.

use i2plan_ipc::api::meshd::{ConfigChange, Setting, Source};

use super::look::Look;
use super::table::{Column, Table};
use super::text::clean;
use super::units;

const COLUMNS: &[Column] = &[
    Column::text("KEY"),
    Column::text("VALUE").shrinks_to(12),
    Column::text("FROM").shrinks_to(12).dispensable(2),
    Column::text("CHANGES").dispensable(3),
    Column::text("AFTER A RESTART").shrinks_to(12).dispensable(1),
];

/// What a key was and is, in a line.
#[must_use]
pub fn describe(change: &ConfigChange) -> String {
    let value = |value: &Option<String>| value.as_deref().map_or("(none)".into(), clean).into_owned();
    let restart = if change.restart { ", after a restart of the node" } else { "" };
    format!("{}: {} → {}{restart}\n", clean(&change.key), value(&change.before), value(&change.after))
}

/// Where the value of a key comes from.
#[must_use]
pub fn source(setting: &Setting) -> String {
    match &setting.source {
        Source::Default => "default".to_owned(),
        Source::File { path, line } => format!("{path}:{line}"),
        Source::Environment => setting.variable.clone(),
        Source::Runtime => "config set".to_owned(),
    }
}

/// A table of keys.
#[must_use]
pub fn render(settings: &[Setting], look: &Look) -> String {
    let mut table = Table::new(COLUMNS);
    for setting in settings {
        table.row([
            setting.key.clone(),
            units::or_dash(setting.value.clone()),
            source(setting),
            if setting.live { "live" } else { "at restart" }.to_owned(),
            setting.pending.clone().unwrap_or_default(),
        ]);
    }
    table.render(look).text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_show_where_they_come_from_and_what_waits() {
        let setting = |key: &str, source, live, pending: Option<&str>| Setting {
            key: key.to_owned(),
            variable: "I2PLAN_NODE_NAME".to_owned(),
            value: Some("1".to_owned()),
            source,
            live,
            pending: pending.map(str::to_owned),
        };
        let settings = [
            setting("i2p.tunnel_length", Source::File { path: "/c".to_owned(), line: 3 }, false, Some("2")),
            setting("node.name", Source::Environment, true, None),
        ];
        assert_eq!(
            render(&settings, &Look::default()),
            "\
KEY                VALUE  FROM              CHANGES     AFTER A RESTART
i2p.tunnel_length  1      /c:3              at restart  2
node.name          1      I2PLAN_NODE_NAME  live
"
        );
    }

    #[test]
    fn changes_say_whether_they_count() {
        let change = ConfigChange {
            key: "node.name".to_owned(),
            before: None,
            after: Some("x".to_owned()),
            restart: true,
        };
        assert_eq!(describe(&change), "node.name: (none) → x, after a restart of the node\n");
    }
}
