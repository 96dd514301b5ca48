//! Orders from an administrator's program: from `meshd`'s proposal over `keyd`'s control socket back to `meshd`.

use std::path::{Path, PathBuf};

use crate::api::keyd::{KeydApi, Reply, Request};
use crate::api::meshd::ToOrder;
use crate::api::order::{Executed, MAX_COUNTED, OrderTarget, PreparedOrder, RECORDS_AT_ONCE};
use crate::client::{Client, ClientError, Endpoint};
use crate::error::ApiError;
use crate::hello::Role;

/// The name of `keyd`'s socket for orders.
pub const SOCKET: &str = "keyd-control.sock";

/// Where `keyd` takes orders of the node whose `meshd` listens at `meshd`: beside it, or in a directory of its own where
/// each daemon makes its sockets itself.
#[must_use]
pub fn socket_beside(meshd: &Path) -> PathBuf {
    let beside = meshd.with_file_name(SOCKET);
    let apart = meshd.parent().and_then(Path::parent).map(|run| run.join("control").join(SOCKET));
    match apart {
        Some(apart) if beside.symlink_metadata().is_err() && apart.symlink_metadata().is_ok() => apart,
        _ => beside,
    }
}

/// An order that `keyd` has verified and that waits to be confirmed.
#[derive(Debug)]
pub struct Prepared {
    keyd: Client<KeydApi>,
    order: PreparedOrder,
}

impl Prepared {
    /// Has `keyd` verify an order and count the members below its target.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn new(keyd: impl Into<Endpoint>, proposed: &ToOrder) -> Result<Self, ClientError> {
        let ToOrder { order, below, founded: _ } = proposed;
        let mut keyd = Client::<KeydApi>::connect(keyd, Role::Client).await?;
        let request = Request::PrepareOrder(Box::new(order.clone()));
        let mut order = prepared(keyd.call(request).await?)?;
        for records in below[..below.len().min(MAX_COUNTED)].chunks(RECORDS_AT_ONCE) {
            order = prepared(keyd.call(Request::CountBelow(records.to_vec())).await?)?;
        }
        Ok(Self { keyd, order })
    }

    /// What will be signed.
    #[must_use]
    pub fn target(&self) -> &OrderTarget {
        &self.order.target
    }

    /// Confirms it, and returns what was signed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn confirm(mut self) -> Result<Executed, ClientError> {
        match self.keyd.call(Request::ConfirmOrder(self.order.token)).await? {
            Reply::OrderExecuted(executed) => Ok(*executed),
            _ => Err(unexpected()),
        }
    }
}

fn prepared(reply: Reply) -> Result<PreparedOrder, ClientError> {
    match reply {
        Reply::OrderPrepared(order) => Ok(*order),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> ClientError {
    ApiError::internal("unexpected reply of keyd").into()
}
