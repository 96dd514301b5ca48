//! Routes to the networks behind static peers.

use std::net::IpAddr;

use i2plan_proto::prefix::Prefix;
use rtnetlink::{Error, RouteMessageBuilder, new_connection};

/// Makes or removes the route to a network through an interface, in this table or the main one. One that is there, or
/// gone, already is left so.
///
/// # Errors
/// Why the kernel does not do it.
pub(super) async fn set(
    interface: &str,
    network: Prefix,
    table: Option<u32>,
    wanted: bool,
) -> Result<(), String> {
    let (connection, handle, _) = new_connection().map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let index = rustix::net::netdevice::name_to_index(
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .map_err(|error| error.to_string())?,
        interface,
    )
    .map_err(|error| error.to_string())?;
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(network.address(), network.length())
        .map_err(|error| error.to_string())?
        .output_interface(index);
    let message = match table {
        Some(table) => builder.table_id(table),
        None => builder,
    }
    .build();
    let done = if wanted {
        handle.route().add(message).execute().await
    } else {
        handle.route().del(message).execute().await
    };
    match done {
        Err(Error::NetlinkError(error))
            if [Some(libc::EEXIST), Some(libc::ESRCH)].contains(&error.to_io().raw_os_error()) =>
        {
            Ok(())
        }
        Err(Error::NetlinkError(error)) => Err(error.to_io().to_string()),
        done => done.map_err(|error| error.to_string()),
    }
}
