//! Orders that wait to be confirmed, one for each connection at most.
//!
//! Without I/O: times are those of a monotonic clock of the caller.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::order::{
    Executed, MAX_COUNTED, Order, OrderTarget, OrderToken, PreparedOrder, RECORDS_AT_ONCE,
};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::record::Record;

use crate::policy::Signer;

/// How long an order waits to be confirmed.
const LASTS: Duration = Duration::from_secs(5 * 60);

/// An order that waits.
#[derive(Debug)]
struct Waiting {
    token: OrderToken,
    order: Order,
    /// As it was before members below were counted.
    target: OrderTarget,
    below: HashSet<NodeId>,
    until: Duration,
}

/// All orders that wait, by their connections.
#[derive(Debug, Default)]
pub struct Orders(HashMap<u64, Waiting>);

impl Orders {
    /// Verifies an order, which waits from now on in place of another of the connection. `random` is its token.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn prepare(
        &mut self,
        connection: u64,
        order: Order,
        signer: &Signer,
        random: [u8; 16],
        now: Duration,
    ) -> Result<PreparedOrder, ApiError> {
        self.0.remove(&connection);
        let target = signer.target(&order)?;
        let token = OrderToken(random);
        let waiting =
            Waiting { token, order, target: target.clone(), below: HashSet::new(), until: now + LASTS };
        self.0.insert(connection, waiting);
        Ok(PreparedOrder { token, target })
    }

    /// Counts members below the target of the connection's order.
    ///
    /// # Errors
    /// If no order waits, or a record does not verify.
    pub fn count(
        &mut self,
        connection: u64,
        records: &[Signed<Record>],
        signer: &Signer,
        now: Duration,
    ) -> Result<PreparedOrder, ApiError> {
        let waiting = self.0.get_mut(&connection).filter(|waiting| now < waiting.until).ok_or_else(none)?;
        if records.len() > RECORDS_AT_ONCE {
            return Err(ApiError::invalid(format!("at most {RECORDS_AT_ONCE} records are counted at once")));
        }
        for record in records {
            if waiting.below.len() < MAX_COUNTED {
                waiting.below.extend(signer.counts_below(&waiting.order, record)?);
            }
        }
        let mut target = waiting.target.clone();
        if let OrderTarget::Member { below, .. } | OrderTarget::Invite { below, .. } = &mut target {
            *below = u64::try_from(waiting.below.len()).unwrap_or(u64::MAX);
        }
        Ok(PreparedOrder { token: waiting.token, target })
    }

    /// Carries out the connection's order, if this is its token. It does not wait any more, whatever comes of it.
    ///
    /// # Errors
    /// If no such order waits, it would be about something else by now, or is refused.
    pub fn confirm(
        &mut self,
        connection: u64,
        token: OrderToken,
        signer: &mut Signer,
        (random, now): ([u8; 32], Duration),
        unix: u64,
    ) -> Result<Executed, ApiError> {
        let waiting = self.0.remove(&connection).filter(|waiting| now < waiting.until).ok_or_else(none)?;
        if waiting.token != token {
            return Err(none());
        }
        if signer.target(&waiting.order)? != waiting.target {
            return Err(ApiError::conflict("the order's target has changed meanwhile").with_hint("try again"));
        }
        signer.execute(&waiting.order, random, unix)
    }

    /// The connection has ended.
    pub fn forget(&mut self, connection: u64) {
        self.0.remove(&connection);
    }
}

fn none() -> ApiError {
    ApiError::conflict("no such order waits to be confirmed here").with_hint("give it again")
}
