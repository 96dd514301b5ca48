//! The network between the nodes: one namespace a node, all on a bridge that stands for the Internet.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use crate::Failure;
use crate::sandbox::DIRECTORY;

/// RFC 2544 sets this range aside for measuring networks.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const PREFIX: u8 = 15;
const BRIDGE: &str = "internet";
/// The name of a node's end of its link.
const UPLINK: &str = "uplink";

/// The bridge, in the namespace of the laboratory itself.
#[derive(Debug)]
pub struct Network;

/// Where the namespace with this name can be entered.
#[must_use]
pub fn path(namespace: &str) -> PathBuf {
    Path::new(DIRECTORY).join("netns").join(namespace)
}

impl Network {
    /// Makes the bridge.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn create(internet_addresses: u8) -> Result<Self, Failure> {
        std::fs::create_dir_all(Path::new(DIRECTORY).join("netns"))?;
        let handle = connect()?;
        set_up(&handle, "lo").await?;
        handle.link().add(LinkBridge::new(BRIDGE).up().build()).execute().await?;
        let bridge = index(&handle, BRIDGE).await?;
        let network = Self;
        for host in 0..internet_addresses {
            handle
                .address()
                .add(bridge, IpAddr::V4(network.internet_address(host)), PREFIX)
                .execute()
                .await?;
        }
        Ok(network)
    }

    /// An address of the bridge itself.
    #[must_use]
    pub fn internet_address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST.to_bits() + 1 + u32::from(host))
    }

    /// Makes the namespace of a node and its link to the bridge. Returns the node's address there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn add_node(&self, name: &str, number: u8) -> Result<Ipv4Addr, Failure> {
        let address = Ipv4Addr::from_bits(FIRST.to_bits() + 256 + 1 + u32::from(number));
        create(name)?;
        let handle = connect()?;
        let near = format!("link-{name}");
        handle.link().add(LinkVeth::new(&near, UPLINK).build()).execute().await?;
        let namespace = File::open(path(name))?;
        let far = index(&handle, UPLINK).await?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(far).setns_by_fd(namespace.as_raw_fd()).build())
            .execute()
            .await?;
        let bridge = index(&handle, BRIDGE).await?;
        let near = index(&handle, &near).await?;
        handle.link().set(LinkUnspec::new_with_index(near).controller(bridge).up().build()).execute().await?;
        let name = name.to_owned();
        in_new_thread(move || {
            enter(&name)?;
            block_on(async {
                let handle = connect()?;
                let uplink = set_up(&handle, UPLINK).await?;
                handle.address().add(uplink, IpAddr::V4(address), PREFIX).execute().await?;
                Ok(())
            })
        })?;
        Ok(address)
    }
}

/// Makes a namespace with this name, in which there is nothing but loopback.
///
/// # Errors
/// If the kernel refuses.
pub fn create(name: &str) -> Result<(), Failure> {
    let target = path(name);
    File::create(&target)?;
    apart(move || {
        // The mount keeps the namespace alive when this thread has gone.
        mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    })
}

/// Cuts a node's link to the bridge, or has it carry packets again.
///
/// # Errors
/// If there is no such node, or the kernel refuses.
pub async fn set_uplink(node: &str, up: bool) -> Result<(), Failure> {
    let handle = connect()?;
    let near = LinkUnspec::new_with_index(index(&handle, &format!("link-{node}")).await?);
    let near = if up { near.up() } else { near.down() };
    handle.link().set(near.build()).execute().await?;
    Ok(())
}

/// Connects two namespaces by a link of their own, whose end has this name in the first one.
///
/// # Errors
/// If there is no such namespace, or the kernel refuses.
pub fn link(name: &str, ends: [(&str, Ipv4Addr); 2], prefix: u8) -> Result<(), Failure> {
    let [(one, address), (other, other_address)] = ends.map(|(end, address)| (end.to_owned(), address));
    let (name, far_name) = (name.to_owned(), format!("{name}-far"));
    let (near, far, target) = (name.clone(), far_name.clone(), File::open(path(&other))?);
    within(&one, move || {
        block_on(async {
            let handle = connect()?;
            handle.link().add(LinkVeth::new(&near, &far).build()).execute().await?;
            let far = index(&handle, &far).await?;
            let moved = LinkUnspec::new_with_index(far).setns_by_fd(target.as_raw_fd()).build();
            handle.link().set(moved).execute().await?;
            Ok(())
        })
    })?;
    for (namespace, name, address) in [(one, name, address), (other, far_name, other_address)] {
        within(&namespace, move || {
            block_on(async {
                let handle = connect()?;
                let link = set_up(&handle, &name).await?;
                handle.address().add(link, IpAddr::V4(address), prefix).execute().await?;
                Ok(())
            })
        })?;
    }
    Ok(())
}

/// Removes a link, with both its ends.
///
/// # Errors
/// If there is none, or the kernel refuses.
pub fn unlink(namespace: &str, name: &str) -> Result<(), Failure> {
    let name = name.to_owned();
    within(namespace, move || {
        block_on(async {
            let handle = connect()?;
            let link = index(&handle, &name).await?;
            handle.link().del(link).execute().await?;
            Ok(())
        })
    })
}

/// Moves this thread into a namespace.
///
/// # Errors
/// If there is no such namespace, or the kernel refuses.
pub fn enter(namespace: &str) -> Result<(), Failure> {
    let file = File::open(path(namespace))?;
    setns(file, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// Does something in a namespace, such as to open a socket, which then belongs to that.
///
/// # Errors
/// If there is no such namespace, or it fails.
pub fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let namespace = namespace.to_owned();
    in_new_thread(move || {
        enter(&namespace)?;
        work()
    })
}

/// Does something in a new namespace in which there is nothing but loopback, and which ends with what is opened there.
///
/// # Errors
/// If the kernel refuses, or it fails.
pub fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    in_new_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        block_on(async { set_up(&connect()?, "lo").await.map(drop) })?;
        work()
    })
}

/// Runs this in a thread of its own, because a thread that has changed its namespace is of no other use.
fn in_new_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    std::thread::spawn(work).join().unwrap_or_else(|_| Err(Failure::new("a thread panicked")))
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Speaks to the kernel about this thread's namespace.
fn connect() -> Result<Handle, Failure> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn index(handle: &Handle, name: &str) -> Result<u32, Failure> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await?;
    link.map(|link| link.header.index).ok_or_else(|| Failure::new(format!("there is no interface {name}")))
}

async fn set_up(handle: &Handle, name: &str) -> Result<u32, Failure> {
    let index = index(handle, name).await?;
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    Ok(index)
}
