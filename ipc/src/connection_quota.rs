//! Who gets a connection, and who may ask next: so that no user can keep another from being served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::rate::{Bucket, Quota};

/// What a daemon grants to its clients.
///
/// Connections are shared by a rule rather than by a number for each user: a user may take one more as long as it
/// has fewer of the shared ones than are still free (Choudhury and Hahne, "Dynamic queue length thresholds",
/// 1998). One user alone gets half of them, two get a third each, and what is free never is one user's to take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections that all users share.
    pub shared: usize,
    /// Connections besides that each known user has for itself: root, and the users that the daemon's table of
    /// roles names.
    pub reserved: usize,
    /// How often one user may ask, over all its connections. Who asks faster waits.
    pub requests: Quota,
}

impl ConnectionLimits {
    /// Connections in all that are shared. With those that are reserved, each with as many descriptors as a client
    /// may have passed with an unfinished frame, they stay below 1024 descriptors, the usual limit of a process.
    pub const SHARED: usize = 64;

    /// Connections of each known user. `meshd` uses up to five to `keyd`: two that stay, two for sessions that are
    /// being opened, one for a moment.
    pub const RESERVED: usize = 8;

    /// Requests of one user: 100 a second, 200 at once. Who looks at the node by hand, or in a program that draws it
    /// ten times a second, stays far below; and a daemon answers several thousand a second.
    pub const REQUESTS: Quota = Quota::new(100, 200);
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { shared: Self::SHARED, reserved: Self::RESERVED, requests: Self::REQUESTS }
    }
}

/// The connections of a daemon, shared by its users.
#[derive(Debug)]
pub struct ConnectionQuota {
    limits: ConnectionLimits,
    known: Vec<u32>,
    started: Instant,
    users: Mutex<HashMap<u32, User>>,
}

/// A user who has connections, or had until a moment ago.
#[derive(Debug, Default)]
struct User {
    connections: usize,
    /// Locked by the connection whose turn it is; the others of this user stand in line.
    requests: Arc<tokio::sync::Mutex<Bucket>>,
}

impl ConnectionQuota {
    /// Connections for every user, with some reserved for root and these users.
    #[must_use]
    pub fn new(limits: ConnectionLimits, named: impl Iterator<Item = u32>) -> Arc<Self> {
        let known = named.chain([0]).collect();
        Arc::new(Self { limits, known, started: Instant::now(), users: Mutex::default() })
    }

    /// A permit for a connection of this user, if it may have one more.
    #[must_use]
    pub fn enter(self: &Arc<Self>, uid: u32) -> Option<ConnectionPermit> {
        let mut users = self.users();
        let now = self.started.elapsed();
        // Kept until its bucket is empty: a new connection must not bring a new allowance.
        users.retain(|_, user| {
            user.connections > 0 || user.requests.try_lock().is_ok_and(|bucket| !bucket.is_empty(now))
        });
        let shared_used: usize =
            users.iter().map(|(uid, user)| user.connections.saturating_sub(self.reserved(*uid))).sum();
        let free = self.limits.shared.saturating_sub(shared_used);
        let reserved = self.reserved(uid);
        let own = users.get(&uid).map_or(0, |user| user.connections);
        if own >= reserved && own - reserved >= free {
            return None;
        }
        let user = users.entry(uid).or_default();
        user.connections += 1;
        Some(ConnectionPermit { quota: Arc::clone(self), uid, requests: Arc::clone(&user.requests) })
    }

    fn reserved(&self, uid: u32) -> usize {
        if self.known.contains(&uid) { self.limits.reserved } else { 0 }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<u32, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit for one connection, given back when it is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    quota: Arc<ConnectionQuota>,
    uid: u32,
    requests: Arc<tokio::sync::Mutex<Bucket>>,
}

impl ConnectionPermit {
    /// Waits until this connection may ask. The connections of one user come one after the other, so that one
    /// that asks without end delays the others by one request at a time.
    pub async fn turn(&self) {
        let requests = self.quota.limits.requests;
        let mut bucket = self.requests.lock().await;
        let wait = bucket.wait(requests, self.quota.started.elapsed());
        if wait > Duration::ZERO {
            sleep(wait).await;
        }
        bucket.take(requests, self.quota.started.elapsed());
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(user) = self.quota.users().get_mut(&self.uid) {
            user.connections -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(shared: usize, reserved: usize) -> ConnectionLimits {
        ConnectionLimits { shared, reserved, requests: Quota::new(10, 2) }
    }

    /// As many permits as a user gets.
    fn fill(quota: &Arc<ConnectionQuota>, uid: u32) -> Vec<ConnectionPermit> {
        std::iter::from_fn(|| quota.enter(uid)).collect()
    }

    #[test]
    fn one_user_gets_half_and_leaves_room_for_others() {
        let quota = ConnectionQuota::new(limits(64, 0), std::iter::empty());
        let first = fill(&quota, 1000);
        assert_eq!(first.len(), 32);
        assert_eq!(fill(&quota, 1001).len(), 16);
        // Both at once, and a third still finds room.
        let second = fill(&quota, 1001);
        assert_eq!((second.len(), fill(&quota, 1002).len()), (16, 8));
        // Of users that come one after the other the seventh takes the last.
        let others: Vec<_> = (1002..1007).map(|uid| fill(&quota, uid)).collect();
        assert_eq!(others.iter().map(Vec::len).collect::<Vec<_>>(), [8, 4, 2, 1, 1]);
        assert!(quota.enter(1007).is_none());
        drop(first);
        assert!(quota.enter(1001).is_some(), "what one gives back another may have");
    }

    #[test]
    fn users_that_come_at_the_same_time_share_alike() {
        let quota = ConnectionQuota::new(limits(64, 0), std::iter::empty());
        let mut held: Vec<Vec<ConnectionPermit>> = (0..7).map(|_| Vec::new()).collect();
        for _ in 0..64 {
            for (uid, held) in (1000..).zip(&mut held) {
                held.extend(quota.enter(uid));
            }
        }
        assert!(held.iter().all(|held| held.len() == 8), "64 / (7 + 1)");
        assert!(quota.enter(2000).is_some());
    }

    #[test]
    fn root_and_users_by_name_have_connections_that_nobody_else_can_take() {
        let quota = ConnectionQuota::new(limits(16, 4), [7].into_iter());
        let crowd: Vec<_> = (1000..1100).map(|uid| fill(&quota, uid)).collect();
        assert!(quota.enter(2000).is_none(), "the shared ones are taken");
        assert_eq!((fill(&quota, 0).len(), fill(&quota, 7).len()), (4, 4));
        drop(crowd);
        // Its own do not count against what it may have of the shared ones.
        assert_eq!(fill(&quota, 7).len(), 4 + 8);
    }

    #[test]
    fn permits_are_given_back() {
        let quota = ConnectionQuota::new(limits(4, 0), std::iter::empty());
        for _ in 0..10 {
            assert_eq!(fill(&quota, 1000).len(), 2);
        }
        assert!(quota.enter(1001).is_some());
        assert_eq!(quota.users().len(), 1, "who has gone is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_one_allowance_over_all_its_connections() {
        let quota = ConnectionQuota::new(limits(8, 0), std::iter::empty());
        let started = Instant::now();
        // Leaving and coming again, as on two connections at once.
        for _ in 0..12 {
            let permit = quota.enter(1000).expect("a permit");
            permit.turn().await;
        }
        // Two at once, ten at a tenth of a second each.
        assert_eq!(started.elapsed().as_millis(), 1000);
        // Another user does not wait.
        let before = Instant::now();
        quota.enter(1001).expect("a permit").turn().await;
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connections_of_one_user_come_in_turn() {
        let quota = ConnectionQuota::new(limits(8, 0), std::iter::empty());
        let flood = Arc::new(quota.enter(1000).expect("a permit"));
        let greedy = tokio::spawn(async move {
            loop {
                flood.turn().await;
            }
        });
        sleep(Duration::from_secs(5)).await;
        let permit = quota.enter(1000).expect("a permit");
        let before = Instant::now();
        permit.turn().await;
        assert!(before.elapsed() <= Duration::from_millis(200), "one turn of the other and its own");
        greedy.abort();
    }
}
