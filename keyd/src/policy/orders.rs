//! Orders: what is signed for an administrator alone.

use i2plan_ipc::api::order::{Executed, MAX_CHAINS, Order, OrderTarget};
use i2plan_ipc::{ApiError, Remedy};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteGrant, InviteSecret};
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Revocation, Target};
use tracing::info;

use super::{Signer, refusal, require};
use crate::memory::{Memory, MemoryChange, Pinned};

impl Signer {
    /// What an order will sign. All evidence is verified.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn target(&self, order: &Order) -> Result<OrderTarget, ApiError> {
        Ok(match order {
            Order::Revoke { chains, record } => self.revocable(chains, record.as_deref())?,
            Order::RevokeInvite(invite) => {
                let network = self.current()?.charter.network();
                let given = self.delegations.iter().filter(|delegated| delegated.is_active());
                let members = given.filter(|delegated| delegated.grant.invite == *invite).count();
                let members = u64::try_from(members).unwrap_or(u64::MAX);
                OrderTarget::Invite { network, invite: *invite, members, below: 0 }
            }
            Order::Leave(chain, charter) => {
                let (chain, charter) = self.place(chain, charter)?;
                let invited = self.delegations.iter().filter(|delegated| delegated.is_active()).count();
                OrderTarget::LocalMembership {
                    network: charter.network(),
                    address: chain.address(&charter.subnet),
                    invited: u64::try_from(invited).unwrap_or(u64::MAX),
                }
            }
            Order::Forget => {
                let Pinned { charter, chain } = self.current()?;
                OrderTarget::Pinned { network: charter.network(), address: chain.address(&charter.subnet) }
            }
            Order::CreateInvite(wish) => {
                self.require_pin(wish.network)?;
                OrderTarget::NewInvite {
                    network: wish.network,
                    invite: None,
                    uses: wish.uses,
                    addresses: wish.addresses,
                    expires_at: wish.expires_at,
                }
            }
            Order::AllowInvite(grant) => {
                require(grant.value.inviter == self.keys.node(), "the invite was made by another node")?;
                grant.verify().map_err(|error| refusal(&error.to_string()))?;
                self.pinned(grant.value.network)?;
                let InviteGrant { network, key, uses, addresses, expires_at, .. } = &grant.value;
                OrderTarget::NewInvite {
                    network: *network,
                    invite: Some(key.id()),
                    uses: *uses,
                    addresses: *addresses,
                    expires_at: *expires_at,
                }
            }
            Order::Extend(extend) => {
                let more = self.check_extension(extend)?;
                let before = &extend.certificate.value;
                let held = before.grant.ranges.size();
                OrderTarget::Grant {
                    network: before.network,
                    node: before.grant.subject,
                    address: before.grant.ranges.address(),
                    before: held,
                    after: held + more,
                }
            }
            Order::Recover => {
                let network = self.current()?.charter.network();
                if self.memory.remembers {
                    return Err(ApiError::conflict(
                        "keyd remembers all that this node has delegated: there is nothing to recover",
                    ));
                }
                let active = || self.delegations.iter().filter(|delegated| delegated.is_active());
                OrderTarget::Memory {
                    network,
                    members: u64::try_from(active().count()).unwrap_or(u64::MAX),
                    addresses: active().map(|delegated| delegated.grant.ranges.size()).sum(),
                }
            }
        })
    }

    /// The member of a record, if an order will end its membership along with that of a member that stands above it.
    ///
    /// # Errors
    /// If the record is not signed by its node, or its chain is not valid.
    pub fn counts_below(&self, order: &Order, record: &Signed<Record>) -> Result<Option<NodeId>, ApiError> {
        let (Pinned { charter, .. }, chain) = (self.current()?, &record.value.chain);
        require(*chain.subject() == record.value.node, "the record's chain is another's")?;
        record.verify().map_err(|error| refusal(&error.to_string()))?;
        chain.verify(charter).map_err(|error| refusal(&error.to_string()))?;
        let ended = self.revocations(order, 0)?.iter().filter_map(|revocation| revocation.voids(chain)).min();
        Ok(ended.filter(|at| at + 1 < chain.depth()).map(|_| record.value.node))
    }

    /// Carries out an order. `random` is fresh for every order.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn execute(&mut self, order: &Order, random: [u8; 32], now: u64) -> Result<Executed, ApiError> {
        self.target(order)?;
        let executed = match order {
            Order::Revoke { .. } | Order::RevokeInvite(_) => {
                let charter = self.current()?.charter.clone();
                let mut signed = Vec::new();
                for value in self.revocations(order, now)? {
                    let signature = self.sign_revocation(&value, &charter, now)?;
                    signed.push(Signed { value, signature });
                }
                Executed::Revocations(signed)
            }
            Order::Leave(chain, charter) => {
                let (chain, charter) = self.place(chain, charter)?;
                let (chain, charter) = (chain.clone(), charter.clone());
                Executed::Resignation(Box::new(self.sign_resignation(chain, &charter, now)?))
            }
            Order::Forget => {
                let network = self.current()?.charter.network();
                self.unpin()?;
                Executed::Forgotten(network)
            }
            Order::CreateInvite(wish) => {
                let (code, grant) = self.create_invite(wish, InviteSecret(random), now)?;
                self.append(&MemoryChange::Allowed(grant.value.key.id()))?;
                Executed::Invite { code, grant }
            }
            Order::AllowInvite(grant) => {
                let invite = grant.value.key.id();
                if !self.delegations.is_allowed(&invite) {
                    self.append(&MemoryChange::Allowed(invite))?;
                }
                Executed::Allowed(invite)
            }
            Order::Extend(extend) => {
                let extended = self.extend_member(extend, true, now)?;
                Executed::Membership(extended.ok_or_else(|| refusal("it is no order"))?)
            }
            Order::Recover => {
                self.remember(Memory { remembers: true, ..self.memory.clone() })?;
                Executed::Recovered(u64::try_from(self.delegations.len()).unwrap_or(u64::MAX))
            }
        };
        info!(order = name(order), "carried out an order");
        Ok(executed)
    }

    /// The network that this node is pinned to.
    fn current(&self) -> Result<&Pinned, ApiError> {
        let pinned = self.memory.pinned.as_ref();
        pinned.ok_or_else(|| ApiError::conflict("this node has not signed a record for a network"))
    }

    /// This node's chain and its network: the one that it is pinned to, or else what is presented.
    fn place<'a>(
        &'a self,
        chain: &'a Chain,
        charter: &'a Charter,
    ) -> Result<(&'a Chain, &'a Charter), ApiError> {
        if let Some(pinned) = &self.memory.pinned {
            if pinned.charter.network() != charter.network() {
                return Err(ApiError::conflict(format!(
                    "meshd is in network {}, and keyd in network {}",
                    charter.network().short(),
                    pinned.charter.network().short()
                ))
                .with_remedy(Remedy::ForgetNetwork));
            }
            return Ok((&pinned.chain, &pinned.charter));
        }
        require(*chain.subject() == self.keys.node(), "the resignation is another's")?;
        chain.verify(charter).map_err(|error| refusal(&error.to_string()))?;
        Ok((chain, charter))
    }

    fn revocable(&self, chains: &[Chain], record: Option<&Signed<Record>>) -> Result<OrderTarget, ApiError> {
        let Pinned { charter, .. } = self.current()?;
        let Some(first) = chains.first().filter(|_| chains.len() <= MAX_CHAINS) else {
            return Err(refusal("a revocation names one to four certificates of a member"));
        };
        let node = *first.subject();
        for chain in chains {
            require(*chain.subject() == node, "the certificates are of several members")?;
            require(
                chain.is_ancestor(&self.keys.node()),
                "only the network's founder and a member's inviters can revoke its membership",
            )?;
            chain.verify(charter).map_err(|error| refusal(&error.to_string()))?;
        }
        if let Some(record) = record {
            require(record.value.node == node, "the record is another member's")?;
            record.verify().map_err(|error| refusal(&error.to_string()))?;
            // Otherwise the member would be shown whose certificate is not the one that ends.
            require(
                chains.contains(&record.value.chain),
                "the record's own certificate would not be revoked",
            )?;
        }
        Ok(OrderTarget::Member {
            network: charter.network(),
            node,
            name: record.map(|record| (record.value.name.clone(), record.value.issued_at)),
            // That of an earlier certificate may be another member's now.
            address: record.map_or(first, |record| &record.value.chain).address(&charter.subnet),
            below: 0,
        })
    }

    /// What an order revokes.
    fn revocations(&self, order: &Order, now: u64) -> Result<Vec<Revocation>, ApiError> {
        let targets = match order {
            Order::Revoke { chains, .. } => chains.iter().cloned().map(Target::Certificate).collect(),
            Order::RevokeInvite(invite) => vec![Target::Invite(self.current()?.chain.clone(), *invite)],
            _ => Vec::new(),
        };
        let revocation = |target| Revocation { issuer: self.keys.node(), target, issued_at: now };
        Ok(targets.into_iter().map(revocation).collect())
    }
}

fn name(order: &Order) -> &'static str {
    match order {
        Order::Revoke { .. } => "revoke a member",
        Order::RevokeInvite(_) => "revoke an invite's members",
        Order::Leave(..) => "leave the network",
        Order::Forget => "forget the network",
        Order::CreateInvite(_) => "make an invite",
        Order::AllowInvite(_) => "allow an invite",
        Order::Extend(_) => "grant addresses",
        Order::Recover => "complete the memory",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use i2plan_ipc::api::keyd::{
        CertifyMember, CreateInvite, ExtendMember, NewRecord, Noted, Reply, Request, Statement,
    };
    use i2plan_ipc::api::order::{ADDRESSES_A_DAY, OrderToken};
    use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
    use i2plan_proto::identity::{NetworkId, Signable as _, Signature};
    use i2plan_proto::invite::Uses;
    use i2plan_proto::join::{JoinBody, JoinRequest};
    use i2plan_proto::liveness::Presence;
    use i2plan_proto::membership::{Delegation, Membership};
    use i2plan_proto::revocation::Resignation;
    use i2plan_proto::suspicion::Suspicion;
    use i2plan_testing as testing;

    use super::super::tests::*;
    use super::*;
    use crate::keys::test_keys;
    use crate::orders::Orders;

    /// The founder, and a member of its network that has signed its record.
    fn pair() -> (Signer, Signer, Chain) {
        let (mut founder, mut member) = (founder(), signer(2));
        let certificate = founder.certify_member(&certify_for(&member, many(), 16), NOW).unwrap();
        let chain = Chain::founder(&charter(&founder)).extended(&certificate).unwrap();
        sign_record(&mut member, &charter(&founder), &chain).unwrap();
        (founder, member, chain)
    }

    fn sign_record(
        signer: &mut Signer,
        charter: &Charter,
        chain: &Chain,
    ) -> Result<Signed<Record>, ApiError> {
        let wireguard = signer.certify_wireguard(charter.network(), false, [5; 32], NOW)?;
        let record = NewRecord {
            charter: charter.clone(),
            chain: chain.clone(),
            name: "n".parse().unwrap(),
            control: signer.keys.control().public(),
            data: signer.keys.ephemeral([7; 32]).public(),
            wireguard,
        };
        signer.sign_record(record, NOW)
    }

    fn below(chain: &Chain, issuer: &Signer, subject: u8, last: u8) -> Chain {
        let grant = Delegation {
            subject: test_keys(subject).node(),
            invite: testing::invite(1).id(),
            ranges: AddressRange::new([10, 42, 3, last].into(), 32).unwrap().into(),
            serial: 7,
            since: 7,
            replaces: false,
            issued_at: NOW,
        };
        chain.appended(&issuer.sign(chain.certificate(grant)))
    }

    fn revoke(chain: &Chain) -> Order {
        Order::Revoke { chains: vec![chain.clone()], record: None }
    }

    const PINNED: &str = "by an order only";

    #[test]
    fn what_is_of_another_network_is_not_signed_for_meshd() {
        let (_, mut member, chain) = pair();
        let other = charter(&signer(3));
        let own = Charter { nonce: [8; 16], ..charter(&member) };
        let wish = CreateInvite {
            network: other.network(),
            name: testing::network_name(),
            subnet: Ipv4Subnet::DEFAULT,
            expires_at: NOW + 60,
            uses: many(),
            addresses: 1,
        };
        let body = JoinBody {
            network: other.network(),
            inviter: test_keys(3).node(),
            invite: InviteSecret([9; 32]).key(),
            joiner: member.keys.node(),
            control: member.keys.control().public().hash(),
            issued_at: NOW,
        };
        let control = member.keys.control().public();
        refused(member.answer(Request::SignCharter(own.clone()), [1; 32], NOW), PINNED);
        refused(
            member.answer(Request::SignJoin { body: Box::new(body.clone()), control }, [1; 32], NOW),
            PINNED,
        );
        refused(member.answer(Request::CreateInvite(wish.clone()), [1; 32], NOW), PINNED);
        let certify = Request::CertifyWireGuard { network: other.network(), rotate: false };
        refused(member.answer(certify, [1; 32], NOW), PINNED);
        refused(sign_record(&mut member, &own, &Chain::founder(&own)), PINNED);
        assert_eq!(member.memory.pinned.as_ref().unwrap().chain, chain);
        // On a fresh node all of that may come through meshd.
        let mut fresh = signer(2);
        assert!(fresh.sign_charter(&own, NOW).is_ok());
        assert!(fresh.sign_join(&body, &control, NOW).is_ok());
        assert!(sign_record(&mut fresh, &own, &Chain::founder(&own)).is_ok());
    }

    #[test]
    fn a_record_keeps_its_inviters_and_its_address() {
        let (mut founder, mut member, chain) = pair();
        let network = charter(&founder);
        // By the same inviter, with another address.
        let elsewhere = below(&Chain::founder(&network), &founder, 2, 99);
        refused(sign_record(&mut member, &network, &elsewhere), PINNED);
        // By another inviter.
        let parent = Chain::founder(&network);
        let narrow = below(&parent, &founder, 3, 16);
        let wide = Delegation { ranges: range(16).into(), ..(**narrow.last().unwrap()).clone() };
        let between = parent.appended(&founder.sign(parent.certificate(wide)));
        let deeper = below(&between, &signer(3), 2, 17);
        refused(sign_record(&mut member, &network, &deeper), PINNED);
        // More addresses are no other place.
        let certificate = chain.certificate_by(&founder.keys.node()).unwrap();
        let ranges = AddressRanges::new(vec![range(16), range(32)]).unwrap();
        let extend = ExtendMember { certificate, parent: network.network().into(), ranges };
        let more = founder.extend_member(&extend, false, NOW).unwrap().unwrap();
        let more = Chain::founder(&network).extended(&more).unwrap();
        assert!(sign_record(&mut member, &network, &more).is_ok());
        assert_eq!(member.memory.pinned.as_ref().unwrap().chain, more);
        // Nor is the certificate before, as in a state that was restored. But the newer one stays.
        assert!(sign_record(&mut member, &network, &chain).is_ok());
        assert_eq!(member.memory.pinned.as_ref().unwrap().chain, more);
    }

    /// This node had been revoked, and was invited again to the same place: who then shows the end of its first membership
    /// frees it of nothing.
    #[test]
    fn the_end_of_an_earlier_membership_frees_nobody() {
        let (mut founder, mut member, first) = pair();
        let Executed::Revocations(signed) = founder.execute(&revoke(&first), [1; 32], NOW).unwrap() else {
            panic!("another answer")
        };
        let ended = Statement::Revocation(Box::new(signed[0].clone()));
        assert_eq!(member.note(&ended), Ok(Noted::News));
        let network = charter(&founder);
        let parent = Chain::founder(&network);
        let again = Delegation { serial: 1000, since: 1000, ..(**first.last().unwrap()).clone() };
        let second = parent.appended(&founder.sign(parent.certificate(again)));
        sign_record(&mut member, &network, &second).unwrap();
        // A record with the first chain can still be signed, but no member accepts it.
        let _ = sign_record(&mut member, &network, &first);
        assert_eq!(member.memory.pinned.as_ref().unwrap().chain, second);
        assert_eq!(member.note(&ended), Ok(Noted::Known));
        assert!(!is_free(&mut member));
    }

    #[test]
    fn nothing_is_signed_for_another_network() {
        let (_, mut member, _) = pair();
        let other = NetworkId([9; 32]);
        refused(member.sign_liveness_message(other, Presence::Present), PINNED);
        let suspicion = Suspicion {
            network: other,
            confirmer: member.keys.node(),
            subject: signer(3).keys.node(),
            sequence: 1,
            issued_at: NOW,
        };
        refused(member.sign_suspicion(&suspicion, NOW), PINNED);
    }

    fn is_free(member: &mut Signer) -> bool {
        let own = Charter { nonce: [8; 16], ..charter(member) };
        member.sign_charter(&own, NOW).is_ok()
    }

    #[test]
    fn a_revocation_by_one_above_frees_a_node() {
        let (mut founder, mut member, chain) = pair();
        let Executed::Revocations(signed) = founder.execute(&revoke(&chain), [1; 32], NOW).unwrap() else {
            panic!("another answer")
        };
        let mut forged = signed[0].clone();
        forged.signature = Signature([0; 64]);
        refused(member.note(&Statement::Revocation(Box::new(forged))), "not signed by one who may");
        assert!(!is_free(&mut member));
        assert_eq!(member.note(&Statement::Revocation(Box::new(signed[0].clone()))), Ok(Noted::News));
        assert!(is_free(&mut member));
    }

    #[test]
    fn the_end_of_anothers_membership_frees_nobody() {
        let (mut founder, mut member, _) = pair();
        let certificate = founder.certify_member(&certify_for(&signer(3), many(), 48), NOW).unwrap();
        let other = Chain::founder(&charter(&founder)).extended(&certificate).unwrap();
        let Executed::Revocations(signed) = founder.execute(&revoke(&other), [1; 32], NOW).unwrap() else {
            panic!("another answer")
        };
        assert_eq!(member.note(&Statement::Revocation(Box::new(signed[0].clone()))), Ok(Noted::Known));
        let resignation = Resignation { chain: other, last_serial: 0, issued_at: NOW };
        let resignation = signer(3).sign(resignation);
        assert_eq!(member.note(&Statement::Resignation(Box::new(resignation))), Ok(Noted::Known));
        assert!(!is_free(&mut member));
    }

    #[test]
    fn the_end_of_an_inviters_membership_frees_those_below() {
        let (mut founder, mut member, chain) = pair();
        let resignation =
            Resignation { chain: Chain::founder(&charter(&founder)), last_serial: 0, issued_at: NOW };
        let resignation = founder.sign(resignation);
        // It says that what it has certified is void.
        assert!(resignation.value.voids(&chain).is_some());
        assert_eq!(member.note(&Statement::Resignation(Box::new(resignation))), Ok(Noted::News));
        assert!(is_free(&mut member) && !is_free(&mut founder));
    }

    #[test]
    fn its_own_resignation_frees_a_node_also_where_another_machine_has_signed_it() {
        let (_, mut member, chain) = pair();
        let resignation = Resignation { chain, last_serial: 0, issued_at: NOW };
        let resignation = member.sign(resignation);
        assert_eq!(member.note(&Statement::Resignation(Box::new(resignation))), Ok(Noted::News));
        assert!(is_free(&mut member));
    }

    #[test]
    fn a_node_leaves_and_forgets_by_an_order() {
        for order in [
            |chain: &Chain, charter: &Charter| Order::Leave(Box::new(chain.clone()), charter.clone()),
            |_: &Chain, _: &Charter| Order::Forget,
        ] {
            let (founder, mut member, chain) = pair();
            let order = order(&chain, &charter(&founder));
            match member.execute(&order, [1; 32], NOW).unwrap() {
                Executed::Resignation(resignation) => {
                    assert_eq!(resignation.verify_for(&charter(&founder)), Ok(()));
                    assert_eq!(resignation.value.chain, chain);
                }
                executed => assert!(matches!(executed, Executed::Forgotten(_)), "{executed:?}"),
            }
            assert!(is_free(&mut member));
        }
        let mut fresh = signer(2);
        refused(fresh.execute(&Order::Forget, [1; 32], NOW), "not signed a record");
    }

    #[test]
    fn what_keyd_is_pinned_to_is_left_whatever_is_presented() {
        let (founder, mut member, chain) = pair();
        let network = charter(&founder);
        let elsewhere = below(&Chain::founder(&network), &founder, 2, 99);
        let order = Order::Leave(Box::new(elsewhere), network);
        let Executed::Resignation(resignation) = member.execute(&order, [1; 32], NOW).unwrap() else {
            panic!("another answer")
        };
        assert_eq!(resignation.value.chain, chain);
        let (_, mut member, _) = pair();
        let own = Charter { nonce: [8; 16], ..charter(&member) };
        let other = Order::Leave(Box::new(Chain::founder(&own)), own);
        refused(member.execute(&other, [1; 32], NOW), "and keyd in network");
    }

    #[test]
    fn the_target_is_the_one_that_the_evidence_shows() {
        let (founder, mut member, chain) = pair();
        let network = charter(&founder);
        let record = sign_record(&mut member, &network, &chain).unwrap();
        let order = |chains: &[&Chain], record: Option<&Signed<Record>>| Order::Revoke {
            chains: chains.iter().map(|chain| (*chain).clone()).collect(),
            record: record.cloned().map(Box::new),
        };
        let moved = below(&Chain::founder(&network), &founder, 2, 99);
        let right = OrderTarget::Member {
            network: network.network(),
            node: test_keys(2).node(),
            name: Some(("n".parse().unwrap(), NOW)),
            address: [10, 42, 3, 16].into(),
            below: 0,
        };
        assert_eq!(founder.target(&order(&[&chain], Some(&record))).as_ref(), Ok(&right));
        // Another certificate beside it says nothing of where it is now.
        assert_eq!(founder.target(&order(&[&moved, &chain], Some(&record))), Ok(right));
        let other = below(&Chain::founder(&network), &founder, 3, 64);
        let mut unsigned = record.clone();
        unsigned.value.name = "other".parse().unwrap();
        let mut forged = chain.clone();
        forged = forged.parent().unwrap().appended(
            &signer(3).sign(forged.parent().unwrap().certificate((**chain.last().unwrap()).clone())),
        );
        for (order, reason) in [
            (order(&[], None), "one to four"),
            (order(&[&chain; 5], None), "one to four"),
            (order(&[&chain, &other], None), "several members"),
            (order(&[&other], Some(&record)), "another member's"),
            (order(&[&moved], Some(&record)), "would not be revoked"),
            (order(&[&chain], Some(&unsigned)), "not its signer's"),
            (order(&[&forged], None), "not its signer's"),
            (order(&[&Chain::founder(&network)], None), "only the network's founder"),
        ] {
            refused(founder.target(&order), reason);
        }
        refused(member.target(&order(&[&chain], None)), "only the network's founder");
    }

    #[test]
    fn an_order_is_confirmed_once_on_its_own_connection_and_in_time() {
        let (mut founder, mut member, chain) = pair();
        let record = sign_record(&mut member, &charter(&founder), &chain).unwrap();
        let at = Duration::from_secs;
        let mut orders = Orders::default();
        let prepare = |orders: &mut Orders, founder: &Signer, connection| {
            orders.prepare(connection, revoke(&chain), founder, [7; 16], at(1)).unwrap().token
        };
        let token = prepare(&mut orders, &founder, 1);
        let confirm = |orders: &mut Orders, founder: &mut Signer, connection, token, now| {
            orders.confirm(connection, token, founder, ([1; 32], now), NOW)
        };
        refused(confirm(&mut orders, &mut founder, 2, token, at(2)), "no such order");
        refused(confirm(&mut orders, &mut founder, 1, OrderToken([8; 16]), at(2)), "no such order");
        refused(confirm(&mut orders, &mut founder, 1, token, at(2)), "no such order");
        let token = prepare(&mut orders, &founder, 1);
        refused(confirm(&mut orders, &mut founder, 1, token, at(301)), "no such order");
        let token = prepare(&mut orders, &founder, 1);
        orders.forget(1);
        refused(confirm(&mut orders, &mut founder, 1, token, at(2)), "no such order");
        let token = prepare(&mut orders, &founder, 1);
        // The member itself is not below itself; a record that is none is an error.
        let counted = orders.count(1, std::slice::from_ref(&record), &founder, at(2)).unwrap();
        assert!(matches!(counted.target, OrderTarget::Member { below: 0, .. }));
        assert!(confirm(&mut orders, &mut founder, 1, token, at(2)).is_ok());
        refused(confirm(&mut orders, &mut founder, 1, token, at(2)), "no such order");
    }

    #[test]
    fn members_below_are_counted_once_each_and_only_with_their_consent() {
        let (founder, member, chain) = pair();
        let network = charter(&founder);
        let at = Duration::from_secs(1);
        let mut orders = Orders::default();
        orders.prepare(1, revoke(&chain), &founder, [7; 16], at).unwrap();
        let mut records = Vec::new();
        for (seed, last) in [(11, 17), (12, 18)] {
            let mut one = signer(seed);
            let chain = below(&chain, &member, seed, last);
            records.push(sign_record(&mut one, &network, &chain).unwrap());
        }
        let mut count = |records: &[Signed<Record>]| {
            orders.count(1, records, &founder, at).map(|prepared| match prepared.target {
                OrderTarget::Member { below, .. } => below,
                _ => panic!("another target"),
            })
        };
        assert_eq!(count(&records[..1]), Ok(1));
        assert_eq!(count(&records), Ok(2));
        let mut forged = records[0].clone();
        forged.signature = Signature([0; 64]);
        refused(count(&[forged]), "not its signer's");
        refused(count(&vec![records[0].clone(); 4]), "at most 3");
        let beside = below(&Chain::founder(&network), &founder, 13, 64);
        let beside = sign_record(&mut signer(13), &network, &beside).unwrap();
        assert_eq!(count(&[beside]), Ok(2));
    }

    #[test]
    fn an_invites_members_are_those_that_keyd_has_certified() {
        let (mut founder, _, chain) = pair();
        let invite = chain.last().unwrap().invite;
        assert!(matches!(
            founder.target(&Order::RevokeInvite(invite)),
            Ok(OrderTarget::Invite { members: 1, .. })
        ));
        let executed = founder.execute(&Order::RevokeInvite(invite), [1; 32], NOW).unwrap();
        let Executed::Revocations(signed) = executed else { panic!("another answer") };
        assert!(signed[0].value.voids(&chain).is_some());
        assert!(matches!(
            founder.target(&Order::RevokeInvite(invite)),
            Ok(OrderTarget::Invite { members: 0, .. })
        ));
    }

    fn wish(signer: &Signer, uses: Uses, addresses: u32) -> CreateInvite {
        let (network, subnet) = (network(signer), Ipv4Subnet::DEFAULT);
        let name = testing::network_name();
        CreateInvite { network, name, subnet, expires_at: NOW + 3600, uses, addresses }
    }

    /// A node asks with an invite of node 1 that was made by an order or not.
    fn request_by(
        founder: &mut Signer,
        seed: u8,
        ordered: bool,
        uses: Uses,
        first: [u8; 4],
        prefix: u8,
    ) -> CertifyMember {
        let wish = wish(founder, uses, 256);
        let secret = InviteSecret([seed; 32]);
        let grant = if ordered {
            match founder.execute(&Order::CreateInvite(wish), secret.0, NOW).unwrap() {
                Executed::Invite { grant, .. } => grant,
                _ => panic!("another answer"),
            }
        } else {
            founder.create_invite(&wish, InviteSecret(secret.0), NOW).unwrap().1
        };
        let joiner = signer(seed);
        let body = JoinBody {
            network: grant.value.network,
            inviter: founder.keys.node(),
            invite: secret.key(),
            joiner: joiner.keys.node(),
            control: joiner.keys.control().public().hash(),
            issued_at: NOW,
        };
        let proof = body.prove(&secret.signing_key());
        let signature = body.sign(&joiner.keys.identity());
        let request = JoinRequest { body: Signed { value: body, signature }, proof };
        let parent = grant.value.network.into();
        let ranges = AddressRange::new(first.into(), prefix).unwrap().into();
        CertifyMember { grant, request, parent, ranges, replaces: false }
    }

    #[test]
    fn unlimited_invites_and_large_ones_take_an_order() {
        let mut founder = founder();
        let ask = |founder: &mut Signer, uses, addresses| {
            let wish = wish(founder, uses, addresses);
            founder.answer(Request::CreateInvite(wish), [1; 32], NOW)
        };
        refused(ask(&mut founder, Uses::Unlimited, 1), "needs an order");
        refused(ask(&mut founder, many(), 32), "needs an order");
        assert!(ask(&mut founder, many(), 16).is_ok());
        // One that was made otherwise, as by a version before, is not used.
        let before = request_by(&mut founder, 40, false, Uses::Unlimited, [10, 42, 40, 0], 32);
        let error = founder.certify_member(&before, NOW).unwrap_err();
        assert!(matches!(error.remedy, Some(Remedy::AllowInvite { .. })), "{error:?}");
        founder.execute(&Order::AllowInvite(before.grant.clone()), [1; 32], NOW).unwrap();
        assert!(founder.certify_member(&before, NOW).is_ok());
        let ordered = request_by(&mut founder, 41, true, Uses::Unlimited, [10, 42, 41, 0], 32);
        let mut founder = Signer::volatile(test_keys(1), founder.remembered());
        assert!(founder.certify_member(&ordered, NOW).is_ok());
        let mut foreign = before.grant;
        foreign.value.inviter = test_keys(3).node();
        refused(founder.target(&Order::AllowInvite(foreign)), "another node");
    }

    #[test]
    fn addresses_of_a_day_are_counted_over_restarts_and_clocks() {
        const DAY: u64 = 24 * 3600;
        let mut founder = founder();
        let once = Uses::Limited(1.try_into().unwrap());
        let half =
            |founder: &mut Signer, seed: u8| request_by(founder, seed, false, once, [10, 42, seed, 0], 25);
        for seed in [40, 41] {
            let certify = half(&mut founder, seed);
            founder.certify_member(&certify, NOW).unwrap();
            // The same again costs nothing.
            founder.certify_member(&certify, NOW).unwrap();
        }
        assert_eq!(founder.memory.budget.used, ADDRESSES_A_DAY);
        let mut founder = Signer::volatile(test_keys(1), founder.remembered());
        let third = half(&mut founder, 42);
        let error = founder.certify_member(&third, NOW).unwrap_err();
        assert!(matches!(error.remedy, Some(Remedy::AllowInvite { .. })), "{error:?}");
        refused(founder.certify_member(&third, NOW + 3000), "256 addresses a day");
        // A clock that goes back neither lifts it nor makes it last longer than a day.
        let back = NOW - 100 * DAY;
        refused(founder.certify_member(&third, back), "256 addresses a day");
        let mut founder = Signer::volatile(test_keys(1), founder.remembered());
        refused(founder.certify_member(&third, back + DAY - 1), "256 addresses a day");
        assert!(founder.certify_member(&third, back + DAY).is_ok());
        // What an administrator has ordered is not counted.
        let used = founder.memory.budget.used;
        let ordered = request_by(&mut founder, 43, true, many(), [10, 42, 43, 0], 24);
        assert!(founder.certify_member(&ordered, back + DAY).is_ok());
        assert_eq!(founder.memory.budget.used, used);
    }

    #[test]
    fn more_addresses_for_a_member_than_are_left_today_take_an_order() {
        let (mut founder, _, chain) = pair();
        let certificate = chain.certificate_by(&founder.keys.node()).unwrap();
        let wide = AddressRange::new([10, 42, 8, 0].into(), 24).unwrap();
        let ranges = AddressRanges::new(vec![range(16), wide]).unwrap();
        let extend = ExtendMember { certificate, parent: network(&founder).into(), ranges };
        let ask = Request::ExtendMember(Box::new(extend.clone()));
        assert!(matches!(founder.answer(ask, [1; 32], NOW), Ok(Reply::NeedsOrder)));
        let order = Order::Extend(Box::new(extend));
        assert!(matches!(founder.target(&order), Ok(OrderTarget::Grant { before: 16, after: 272, .. })));
        let Executed::Membership(Signed { value: Membership { grant, .. }, .. }) =
            founder.execute(&order, [1; 32], NOW).unwrap()
        else {
            panic!("another answer")
        };
        assert_eq!(grant.ranges.size(), 272);
    }
}
