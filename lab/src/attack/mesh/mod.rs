//! Attacks by a member on the members of a running network: real daemons on real routers, and an attacker that has
//! joined by invite, knows its own keys and signs what it likes.
//!
//! After each attack the nodes are asked by their control API whether anything is different: their daemons, membership,
//! addresses, peers, routes and bans. Then a packet goes through each tunnel.

use std::net::Ipv4Addr;

use futures::future::try_join_all;
use i2plan_proto::invite::Invite;
use i2plan_proto::join::Refusal;
use serde::Serialize;

use super::network::random_key;
use super::print;
use crate::Failure;
use crate::node::Node;
pub use member::ATTACKER;
use member::Station;
use world::{World, identity};

mod attacks;
mod bridge;
mod member;
mod world;

/// Destinations from which joiners come at a time. A node looks at ten datagrams of each, and then at one a second.
const JOINING: usize = 12;

#[derive(Debug, Serialize)]
struct Summary {
    tried: usize,
    succeeded: usize,
}

/// What came of joiners that say nothing of themselves.
#[derive(Debug, Default)]
pub struct Joiners {
    /// The addresses of those that were admitted.
    pub addresses: Vec<Ipv4Addr>,
    /// Why the others were not.
    pub refusals: Vec<Refusal>,
}

/// So many new identities join by an unlimited invite of a node, over the router of
/// [`Lab::add_stranger`](crate::node::Lab::add_stranger) with the name [`ATTACKER`]. They publish no record.
///
/// # Errors
/// If the node does not answer one of them.
pub async fn join_many(inviter: &Node, code: &str, count: usize) -> Result<Joiners, Failure> {
    let (_, target) = identity(inviter).await?;
    let invite: Invite = code.parse().map_err(|_| Failure::new("the invite cannot be read"))?;
    let joined = (0..JOINING.min(count)).map(async |first| {
        let station = Station::open().await?;
        let mut joiners = Joiners::default();
        for _ in (first..count).step_by(JOINING) {
            match station.join(&invite, &target, &random_key()).await? {
                Ok(welcome) => {
                    joiners.addresses.push(welcome.chain.address(&welcome.charter.value.subnet));
                }
                Err(refusal) => joiners.refusals.push(refusal),
            }
        }
        Ok::<_, Failure>(joiners)
    });
    let mut all = Joiners::default();
    for joiners in try_join_all(joined).await? {
        all.addresses.extend(joiners.addresses);
        all.refusals.extend(joiners.refusals);
    }
    Ok(all)
}

/// Runs all attacks in the sandbox.
///
/// # Errors
/// If one has an effect, or anything else does not work.
pub async fn run(json: bool) -> Result<(), Failure> {
    let mut world = World::start(json).await?;
    attacks::all(&mut world).await?;
    let (tried, succeeded) =
        (world.reports.len(), world.reports.iter().filter(|report| report.succeeded).count());
    world.progress.done();
    let World { lab, .. } = world;
    if json {
        print(&Summary { tried, succeeded })?;
    } else {
        println!("{tried} attacks, {succeeded} of them with an effect");
    }
    lab.stop().await?;
    if succeeded > 0 {
        return Err(Failure::new(format!("{succeeded} attacks of {tried} had an effect")));
    }
    Ok(())
}
