//! The users that the daemons run as.

use nix::unistd::{Gid, Group, Uid, User};

use crate::failure::Failure;

/// The group that may control a node, where it exists.
const DEFAULT_GROUP: &str = "i2plan";

/// A user with its primary group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One user for each daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounts {
    /// `keyd`'s.
    pub keyd: Account,
    /// `meshd`'s.
    pub meshd: Account,
    /// `tund`'s.
    pub tund: Account,
    /// The connector's.
    pub connector: Account,
    /// `rpcd`'s, if it runs.
    pub rpc: Option<Account>,
    /// `routerd`'s, if it runs.
    pub router: Option<Account>,
}

impl Accounts {
    /// The users of these names or numbers.
    ///
    /// # Errors
    /// If one does not exist, is root, or is the same as another.
    pub fn find(
        keyd: &str,
        meshd: &str,
        tund: &str,
        connector: &str,
        rpc: Option<&str>,
        router: Option<&str>,
    ) -> Result<Self, Failure> {
        let named = [
            ("keyd", Some(keyd)),
            ("meshd", Some(meshd)),
            ("tund", Some(tund)),
            ("connector", Some(connector)),
            ("rpc", rpc),
            ("router", router),
        ];
        let named: Vec<_> = named.into_iter().filter_map(|(daemon, name)| Some((daemon, name?))).collect();
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for (daemon, name) in named {
            match account(name) {
                Some(user) => found.push((daemon, name, user)),
                None => missing.push(name),
            }
        }
        if !missing.is_empty() {
            return Err(missing_users(&missing));
        }
        for (index, (daemon, name, user)) in found.iter().enumerate() {
            refuse_root(daemon, name, *user)?;
            if let Some((other, ..)) = found[..index].iter().find(|(.., other)| other.uid == user.uid) {
                return Err(Failure::invalid(format!("{other} and {daemon} cannot run as the same user"))
                    .with_hint(
                        "the daemons are protected from each other by having a user each: name different ones",
                    ));
            }
        }
        let user = |daemon| found.iter().find(|(name, ..)| *name == daemon).map(|(.., user)| *user);
        match (user("keyd"), user("meshd"), user("tund"), user("connector")) {
            (Some(keyd), Some(meshd), Some(tund), Some(connector)) => {
                Ok(Self { keyd, meshd, tund, connector, rpc: user("rpc"), router: user("router") })
            }
            _ => Err(Failure::internal("a user is missing")),
        }
    }
}

/// `keyd`'s user alone, by name or number.
///
/// # Errors
/// If it does not exist, or is root.
pub fn keyd(name: &str) -> Result<Account, Failure> {
    let user = account(name).ok_or_else(|| missing_users(&[name]))?;
    refuse_root("keyd", name, user)?;
    Ok(user)
}

fn refuse_root(daemon: &str, name: &str, user: Account) -> Result<(), Failure> {
    if user.uid == 0 || user.gid == 0 {
        return Err(Failure::invalid(format!(
            "{daemon} cannot run as {name}: that is root, or has root's group"
        ))
        .with_hint(format!("name an unprivileged user with --{daemon}-user")));
    }
    Ok(())
}

/// The group that may control the node, by name or number: the one that is asked for, else the usual one where
/// it exists, else root's.
///
/// # Errors
/// If the one that is asked for does not exist.
pub fn control_group(name: Option<&str>) -> Result<u32, Failure> {
    let by_name = |name: &str| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    match name {
        None => Ok(by_name(DEFAULT_GROUP).unwrap_or(0)),
        Some(name) => name.parse().ok().or_else(|| by_name(name)).ok_or_else(|| {
            Failure::invalid(format!("there is no group {name:?}"))
                .with_hint(format!("create it with `groupadd --system {name}`, or name another with --group"))
        }),
    }
}

fn account(name: &str) -> Option<Account> {
    let user = match name.parse() {
        // A number needs no entry in the user database; the group of the same number is taken then.
        Ok(uid) => match User::from_uid(Uid::from_raw(uid)).ok().flatten() {
            Some(user) => user,
            None => return Some(Account { uid, gid: uid }),
        },
        Err(_) => User::from_name(name).ok().flatten()?,
    };
    Some(Account { uid: user.uid.as_raw(), gid: Gid::as_raw(user.gid) })
}

fn missing_users(names: &[&str]) -> Failure {
    let (s, is) = if names.len() == 1 { ("", "is") } else { ("s", "are") };
    let mut hint = "create what is missing, or name other users (see `i2planctl up --help`):".to_owned();
    for name in names {
        hint += &format!("\nuseradd --system --user-group --shell /usr/sbin/nologin {name}");
    }
    if control_group(None) == Ok(0) {
        hint += &format!("\ngroupadd --system {DEFAULT_GROUP}    # its members may control the node");
    }
    Failure::invalid(format!("the user{s} {} {is} missing", names.join(", "))).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_no_entry() {
        let accounts = Accounts::find("54321", "54322", "54323", "54327", None, Some("54326")).unwrap();
        assert_eq!(accounts.meshd, Account { uid: 54_322, gid: 54_322 });
        assert_eq!((accounts.rpc, accounts.router), (None, Some(Account { uid: 54_326, gid: 54_326 })));
        let accounts = Accounts::find("54321", "54322", "54323", "54327", Some("54325"), None).unwrap();
        assert_eq!((accounts.rpc, accounts.router), (Some(Account { uid: 54_325, gid: 54_325 }), None));
    }

    #[test]
    fn root_is_refused() {
        for name in ["root", "0"] {
            let failure = Accounts::find("54321", name, "54323", "54327", None, None).unwrap_err();
            assert!(failure.message.starts_with("meshd cannot run as"), "{}", failure.message);
            assert!(failure.hint.unwrap().contains("--meshd-user"));
        }
    }

    #[test]
    fn users_are_distinct() {
        for (tund, rpc, message) in [
            ("54321", "54325", "keyd and tund cannot run as the same user"),
            ("54323", "54322", "meshd and rpc cannot run as the same user"),
            ("54327", "54325", "tund and connector cannot run as the same user"),
        ] {
            let failure = Accounts::find("54321", "54322", tund, "54327", Some(rpc), None).unwrap_err();
            assert_eq!(failure.message, message);
        }
    }

    #[test]
    fn missing_users_come_with_the_commands_that_make_them() {
        let failure = Accounts::find("no-such-a", "54322", "no-such-b", "54327", None, None).unwrap_err();
        assert_eq!(failure.message, "the users no-such-a, no-such-b are missing");
        let hint = failure.hint.unwrap();
        let commands: Vec<_> = hint.lines().filter(|line| line.starts_with("useradd --system ")).collect();
        assert_eq!(commands.len(), 2);
        assert!(commands[0].ends_with(" no-such-a") && commands[1].ends_with(" no-such-b"));
    }

    #[test]
    fn groups_go_by_name_and_number() {
        assert_eq!(control_group(Some("4711")), Ok(4711));
        assert_eq!(control_group(Some("root")), Ok(0));
        assert!(control_group(Some("no-such-group")).is_err());
    }
}
