//! emissary's router on [`Tokio`].

use std::sync::Arc;

use emissary_core::events::EventSubscriber;
use emissary_core::router::Router;
use emissary_core::runtime::Storage;
use emissary_core::{Config, Error};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::runtime::Tokio;

/// A started router: it runs while it is polled, and what it tells of itself.
pub type Started = (BoxFuture<'static, ()>, EventSubscriber, Vec<u8>);

/// Starts a router. The third part of what it returns is its router info.
///
/// Both futures are boxed: emissary is generic over its runtime, and is compiled by each crate that names the type of
/// one of them. So it is compiled here alone, once.
///
/// # Errors
/// emissary's: a port is taken, or the configuration has no transport.
pub fn start(
    config: Config,
    storage: Option<Arc<dyn Storage>>,
) -> BoxFuture<'static, Result<Started, Error>> {
    async move {
        let (router, events, info) = Router::<Tokio>::new(config, None, storage).await?;
        Ok((router.boxed(), events, info))
    }
    .boxed()
}
