//! Orders from an administrator's program: from `meshd`'s proposal over `keyd`'s control socket back to `meshd`.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::keyd::{ConfirmOrder, CountBelow, KeydApi, PrepareOrder};
use crate::api::meshd::{self, ToOrder};
use crate::api::order::{Executed, MAX_COUNTED, Order, OrderTarget, PreparedOrder, RECORDS_AT_ONCE};
use crate::client::{Client, ClientError, Endpoint};
use crate::error::ApiError;
use crate::hello::Role;
use crate::paths::{self, KEYD_CONTROL_SOCKET};

/// Where `keyd` takes orders of the node whose `meshd` listens at `meshd`: beside it, or in a directory of its own where
/// each daemon makes its sockets itself.
#[must_use]
pub fn socket_beside(meshd: &Path) -> PathBuf {
    paths::beside(meshd, KEYD_CONTROL_SOCKET, "control")
}

/// An order that `keyd` has verified and that waits to be confirmed.
#[derive(Debug)]
pub struct Prepared {
    keyd: Client<KeydApi>,
    order: PreparedOrder,
}

impl Prepared {
    /// Has `keyd` verify the order that `meshd` has proposed for a request, and count the members below its target.
    ///
    /// # Errors
    /// [`ClientError`]; [`Denied`](crate::ErrorKind::Denied) if it is not what was asked for.
    pub async fn new(
        keyd: impl Into<Endpoint>,
        asked: &meshd::Request,
        proposed: &ToOrder,
    ) -> Result<Self, ClientError> {
        let ToOrder { order, below, founded: _ } = proposed;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut prepared = Self::order(keyd, order).await?;
        if !prepared.target().is_asked_for_by(asked, now) {
            let error = ApiError::denied(
                "meshd proposes to keyd something else than was asked for: nothing was done",
            );
            return Err(error
                .with_hint("use the node id; if that was used, meshd is not to be trusted")
                .into());
        }
        for records in below[..below.len().min(MAX_COUNTED)].chunks(RECORDS_AT_ONCE) {
            prepared.order = prepared.keyd.call(CountBelow(records.to_vec())).await?;
        }
        Ok(prepared)
    }

    /// Has `keyd` say which network it would forget.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn to_forget(keyd: impl Into<Endpoint>) -> Result<Self, ClientError> {
        Self::order(keyd, &Order::Forget).await
    }

    async fn order(keyd: impl Into<Endpoint>, order: &Order) -> Result<Self, ClientError> {
        let mut keyd = Client::<KeydApi>::connect(keyd, Role::Client).await?;
        let order = keyd.call(PrepareOrder(Box::new(order.clone()))).await?;
        Ok(Self { keyd, order })
    }

    /// What will be signed.
    #[must_use]
    pub fn target(&self) -> &OrderTarget {
        &self.order.target
    }

    /// Confirms it, and returns what was signed, as `read` takes it: none is what another order signs.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn confirm<T>(mut self, read: impl FnOnce(Executed) -> Option<T>) -> Result<T, ClientError> {
        let executed = self.keyd.call(ConfirmOrder(self.order.token)).await?;
        read(executed).ok_or(ClientError::Unexpected { daemon: Role::Keyd })
    }
}
