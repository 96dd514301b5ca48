//! The routing table.

use i2plan_ipc::api::meshd::Route;

use super::look::{Look, Times};
use super::member::Names;
use super::peer::ranges;
use super::table::{Column, Rendered, Table};
use super::units;

const COLUMNS: &[Column] = &[
    Column::text("IPV4"),
    Column::text("IPV6").dispensable(3),
    Column::text("RANGE").dispensable(5).optional(),
    Column::text("NAME").shrinks_to(12),
    Column::number("HOPS"),
    Column::text("VIA").shrinks_to(10).dispensable(2),
    Column::text("LAST SEEN").dispensable(1),
    Column::text("CREATED").dispensable(4),
];

/// What a list shows of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The IPv4 address of the member to which it leads.
    pub ipv4: String,
    /// Its IPv6 address.
    pub ipv6: String,
    /// The address ranges that it holds; empty for a single address.
    pub ranges: String,
    /// Its name, with its short node id if others have the same; that it is this node, if it is.
    pub name: String,
    /// Members on the way, itself included; 0 for this node.
    pub hops: String,
    /// The member through which it answers.
    pub via: String,
    /// When it was seen last.
    pub last_seen: String,
    /// Since when there is the route.
    pub created: String,
}

impl Row {
    /// The row of a route in a list with these names, in which `find` finds the route to a node id.
    #[must_use]
    pub fn new<'a>(
        route: &Route,
        names: &Names,
        find: impl Fn(&str) -> Option<&'a Route>,
        times: Times,
    ) -> Self {
        let label = |route: &Route| names.label(&route.name, &route.node_id);
        let via = |via: &String| find(via).map_or_else(|| via.clone(), label);
        Self {
            ipv4: route.ipv4.to_string(),
            ipv6: route.ipv6.to_string(),
            ranges: ranges(&route.ranges),
            name: if is_local(route) { format!("{} (this node)", label(route)) } else { label(route) },
            hops: units::or_dash(route.hops.map(|hops| hops.to_string())),
            via: units::or_dash(route.via.as_ref().map(via)),
            last_seen: units::or_dash(route.last_seen.map(|at| times.at(at))),
            created: times.at(route.created),
        }
    }
}

/// Whether a route is that of this node itself.
#[must_use]
pub fn is_local(route: &Route) -> bool {
    route.hops == Some(0)
}

/// The names of the members to which routes lead, to tell those of one name apart.
#[must_use]
pub fn names(routes: &[Route]) -> Names {
    Names::of(routes.iter().map(|route| route.name.as_str()))
}

/// A table of routes.
#[must_use]
pub fn render(routes: &[Route], look: &Look) -> Rendered {
    let names = names(routes);
    let mut table = Table::new(COLUMNS);
    for route in routes {
        let find = |node_id: &str| routes.iter().find(|other| other.node_id == node_id);
        let row = Row::new(route, &names, find, look.times);
        table.row([row.ipv4, row.ipv6, row.ranges, row.name, row.hops, row.via, row.last_seen, row.created]);
    }
    table.render(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_behind_another_shows_by_whom() {
        let direct = Route {
            ipv4: "10.42.0.1".parse().unwrap(),
            ipv6: "fd12::1".parse().unwrap(),
            ranges: vec!["10.42.0.1/32".to_owned()],
            node_id: "a".to_owned(),
            name: "alpha".to_owned(),
            hops: Some(1),
            via: None,
            last_seen: Some(1_800_000_060),
            created: 1_800_000_000,
        };
        let behind = Route {
            name: "beta".to_owned(),
            hops: Some(2),
            via: Some("a".to_owned()),
            last_seen: None,
            ..direct.clone()
        };
        assert_eq!(
            render(&[direct.clone(), behind.clone()], &Look::default()).text,
            "\
IPV4       IPV6     NAME   HOPS  VIA    LAST SEEN             CREATED
10.42.0.1  fd12::1  alpha     1  -      2027-01-15T08:01:00Z  2027-01-15T08:00:00Z
10.42.0.1  fd12::1  beta      2  alpha  -                     2027-01-15T08:00:00Z
"
        );
        let delegating = Route { ranges: vec!["10.42.64.0/18".to_owned()], ..direct.clone() };
        let text = render(&[delegating, behind.clone()], &Look::default()).text;
        assert!(text.starts_with("IPV4       IPV6     RANGE          NAME "), "{text}");
        assert!(text.contains("10.42.0.1  fd12::1  10.42.64.0/18  alpha "), "{text}");
        assert!(text.contains("10.42.0.1  fd12::1  -              beta "), "{text}");
        let behind = Route { node_id: "b".to_owned(), name: "alpha".to_owned(), ..behind };
        let text = render(&[direct, behind], &Look::default()).text;
        assert_eq!(text.lines().nth(2).unwrap().split("  ").nth(1), Some("fd12::1"), "{text}");
        assert!(text.contains("  alpha (b)     2  alpha (a)  "), "{text}");
    }
}
