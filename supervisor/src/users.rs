//! The users that the daemons run as.

use nix::unistd::{Gid, Group, Uid, User};
use thiserror::Error;

/// The group that may control a node, where it exists.
pub const DEFAULT_GROUP: &str = "i2plan";

/// Why a node cannot run as the users that are named.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UserError {
    /// Users do not exist.
    #[error("{}", missing(names))]
    Missing {
        /// Their names.
        names: Vec<String>,
    },
    /// A user is root, or in root's group.
    #[error("{daemon} cannot run as {name}: that is root, or has root's group")]
    Root {
        /// Whose user: `keyd`, `meshd`, `tund`, `connector`, `rpc`, `web`, `names` or `router`.
        daemon: &'static str,
        /// The name or number that was given.
        name: String,
    },
    /// Two daemons have the same user, which is what protects them from each other.
    #[error("{first} and {second} cannot run as the same user")]
    Shared {
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// The group does not exist.
    #[error("there is no group {name:?}")]
    NoGroup {
        /// Its name.
        name: String,
    },
}

fn missing(names: &[String]) -> String {
    let (s, is) = if names.len() == 1 { ("", "is") } else { ("s", "are") };
    format!("the user{s} {} {is} missing", names.join(", "))
}

/// A user with its primary group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
}

/// Root, whom no daemon runs as.
pub(crate) const ROOT: Account = Account { uid: 0, gid: 0 };

/// The users of the daemons, by name or number. A number needs no entry in the user database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserNames<'a> {
    /// `keyd`'s.
    pub keyd: &'a str,
    /// `meshd`'s.
    pub meshd: &'a str,
    /// `tund`'s.
    pub tund: &'a str,
    /// The connector's.
    pub connector: &'a str,
    /// `rpcd`'s; none if it shall not run.
    pub rpc: Option<&'a str>,
    /// `webd`'s; none if it shall not run.
    pub web: Option<&'a str>,
    /// `named`'s; none if it shall not run.
    pub names: Option<&'a str>,
    /// `routerd`'s; none if it shall not run.
    pub router: Option<&'a str>,
}

/// Those that the packages create, without `rpcd`, `webd`, `named` and `routerd`.
impl Default for UserNames<'_> {
    fn default() -> Self {
        Self {
            keyd: "i2plan-keyd",
            meshd: "i2plan-meshd",
            tund: "i2plan-tund",
            connector: "i2plan-connector",
            rpc: None,
            web: None,
            names: None,
            router: None,
        }
    }
}

/// One user for each daemon: none is root, and all differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounts {
    pub(crate) keyd: Account,
    pub(crate) meshd: Account,
    pub(crate) tund: Account,
    pub(crate) connector: Account,
    pub(crate) rpc: Option<Account>,
    pub(crate) web: Option<Account>,
    pub(crate) names: Option<Account>,
    pub(crate) router: Option<Account>,
}

impl Accounts {
    /// Looks the users up.
    ///
    /// # Errors
    /// [`UserError`] if one does not exist, is root, or is the same as another.
    pub fn find(names: &UserNames<'_>) -> Result<Self, UserError> {
        let mut missing = Vec::new();
        let mut find = |name: &str| {
            account(name).unwrap_or_else(|| {
                missing.push(name.to_owned());
                ROOT
            })
        };
        let accounts = Self {
            keyd: find(names.keyd),
            meshd: find(names.meshd),
            tund: find(names.tund),
            connector: find(names.connector),
            rpc: names.rpc.map(&mut find),
            web: names.web.map(&mut find),
            names: names.names.map(&mut find),
            router: names.router.map(&mut find),
        };
        if !missing.is_empty() {
            return Err(UserError::Missing { names: missing });
        }
        let users = [
            ("keyd", Some((names.keyd, accounts.keyd))),
            ("meshd", Some((names.meshd, accounts.meshd))),
            ("tund", Some((names.tund, accounts.tund))),
            ("connector", Some((names.connector, accounts.connector))),
            ("rpc", names.rpc.zip(accounts.rpc)),
            ("web", names.web.zip(accounts.web)),
            ("names", names.names.zip(accounts.names)),
            ("router", names.router.zip(accounts.router)),
        ];
        let users: Vec<_> = users
            .into_iter()
            .filter_map(|(daemon, user)| user.map(|(name, user)| (daemon, name, user)))
            .collect();
        for (index, (daemon, name, user)) in users.iter().enumerate() {
            refuse_root(daemon, name, *user)?;
            if let Some((first, ..)) = users[..index].iter().find(|(.., other)| other.uid == user.uid) {
                return Err(UserError::Shared { first, second: daemon });
            }
        }
        Ok(accounts)
    }

    /// The group of `webd` and `named` where no group may control the node: by it they get in at `meshd`.
    pub(crate) fn clients_gid(&self) -> Option<u32> {
        self.web.or(self.names).map(|user| user.gid)
    }
}

/// Looks up `keyd`'s user alone, by name or number.
///
/// # Errors
/// [`UserError`] if it does not exist, or is root.
pub fn keyd(name: &str) -> Result<Account, UserError> {
    let user = account(name).ok_or_else(|| UserError::Missing { names: vec![name.to_owned()] })?;
    refuse_root("keyd", name, user)?;
    Ok(user)
}

fn refuse_root(daemon: &'static str, name: &str, user: Account) -> Result<(), UserError> {
    if user.uid == 0 || user.gid == 0 {
        return Err(UserError::Root { daemon, name: name.to_owned() });
    }
    Ok(())
}

/// Looks up the group that may control the node, by name or number: the given one, else [`DEFAULT_GROUP`] where that
/// exists, else root's.
///
/// # Errors
/// [`UserError::NoGroup`] if the given one does not exist.
pub fn control_group(name: Option<&str>) -> Result<u32, UserError> {
    let by_name = |name: &str| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    match name {
        None => Ok(by_name(DEFAULT_GROUP).unwrap_or(ROOT.gid)),
        Some(name) => name
            .parse()
            .ok()
            .or_else(|| by_name(name))
            .ok_or_else(|| UserError::NoGroup { name: name.to_owned() }),
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

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: UserNames<'_> = UserNames {
        keyd: "54321",
        meshd: "54322",
        tund: "54323",
        connector: "54327",
        rpc: None,
        web: None,
        names: None,
        router: None,
    };

    #[test]
    fn numbers_need_no_entry() {
        let accounts = Accounts::find(&UserNames { router: Some("54326"), ..NAMES }).unwrap();
        assert_eq!(accounts.meshd, Account { uid: 54_322, gid: 54_322 });
        assert_eq!((accounts.rpc, accounts.router), (None, Some(Account { uid: 54_326, gid: 54_326 })));
        let accounts = Accounts::find(&UserNames { rpc: Some("54325"), ..NAMES }).unwrap();
        assert_eq!((accounts.rpc, accounts.router), (Some(Account { uid: 54_325, gid: 54_325 }), None));
    }

    #[test]
    fn root_is_refused() {
        for name in ["root", "0"] {
            let error = Accounts::find(&UserNames { meshd: name, ..NAMES }).unwrap_err();
            assert_eq!(error, UserError::Root { daemon: "meshd", name: name.to_owned() });
            assert!(error.to_string().starts_with("meshd cannot run as"), "{error}");
        }
    }

    #[test]
    fn users_are_distinct() {
        for (tund, rpc, message) in [
            ("54321", "54325", "keyd and tund cannot run as the same user"),
            ("54323", "54322", "meshd and rpc cannot run as the same user"),
            ("54327", "54325", "tund and connector cannot run as the same user"),
        ] {
            let error = Accounts::find(&UserNames { tund, rpc: Some(rpc), ..NAMES }).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn all_missing_users_are_named() {
        let error = Accounts::find(&UserNames { keyd: "no-such-a", tund: "no-such-b", ..NAMES }).unwrap_err();
        assert_eq!(error, UserError::Missing { names: vec!["no-such-a".to_owned(), "no-such-b".to_owned()] });
        assert_eq!(error.to_string(), "the users no-such-a, no-such-b are missing");
    }

    #[test]
    fn groups_go_by_name_and_number() {
        assert_eq!(control_group(Some("4711")), Ok(4711));
        assert_eq!(control_group(Some("root")), Ok(0));
        assert!(control_group(Some("no-such-group")).is_err());
    }
}
