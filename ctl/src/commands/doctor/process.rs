//! Which processes answer at the daemons' sockets, by the kernel's word.
//!
//! What a daemon says of itself, one that was broken into can say of another process. The kernel attaches the sender's
//! process id to what is sent (`SCM_CREDENTIALS` of unix(7)). `SO_PEERCRED` would name who made the socket: the supervisor.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use i2plan_ipc::Role;
use i2plan_ipc::client::greeting;
use i2plan_ipc::paths;
use i2plan_present::finding::Finding;

/// The processes that the kernel names, by daemon.
pub(super) type Confirmed = HashMap<&'static str, u32>;

/// Asks the daemons beside `meshd`'s socket that can be reached from here, and `rpcd` and `webd` if they have sockets.
///
/// `tund` refuses to talk, which is an answer too. The connector and `named` have no socket.
pub(super) async fn ask(meshd: &Path, rpcd: Option<(PathBuf, Vec<u8>)>, webd: Option<PathBuf>) -> Confirmed {
    let hello = greeting(Role::Client).unwrap_or_default();
    let mut asked = vec![
        ("meshd", "i2plan-meshd", meshd.to_owned(), hello.clone()),
        ("keyd", "i2plan-keyd", meshd.with_file_name(paths::KEYD_CONTROL_SOCKET), hello.clone()),
        ("tund", "i2plan-tund", meshd.with_file_name(paths::TUND_SOCKET), hello.clone()),
    ];
    asked.extend(webd.map(|path| ("webd", "i2plan-web", path, hello)));
    asked.extend(rpcd.map(|(path, question)| ("rpcd", "i2plan-rpc", path, question)));
    let mut confirmed = Confirmed::new();
    for (name, user, path, question) in asked {
        if let Some(pid) = answering(&path, user, &question).await {
            confirmed.insert(name, pid);
        }
    }
    confirmed
}

/// Which process it is, whether the kernel says so, and what is wrong if the daemon says something else.
pub(super) fn compare(name: &str, said: u32, confirmed: &Confirmed) -> (u32, bool, Option<Finding>) {
    match confirmed.get(name) {
        None => (said, false, None),
        Some(pid) if *pid == said => (said, true, None),
        Some(pid) => {
            let found = Finding::problem(
                name,
                format!(
                    "the node says that it is process {said}, and the kernel that process {pid} answers at its socket"
                ),
                "run this again, in case it was being restarted; if it stays so, one of the daemons lies: take the node off \
                 the network and install it anew",
            );
            (*pid, true, Some(found))
        }
    }
}

#[cfg(target_os = "linux")]
async fn answering(path: &Path, user: &str, question: &[u8]) -> Option<u32> {
    use std::time::Duration;

    use i2plan_ipc::client::Endpoint;
    use tokio::io::{AsyncWriteExt as _, Interest};
    use tokio::net::UnixStream;

    /// How long an answer may take.
    const DEADLINE: Duration = Duration::from_secs(5);

    let asking = async {
        let mut stream = UnixStream::connect(path).await.ok()?;
        Endpoint::from(path).check(&stream, user).ok()?;
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::PassCred, &true).ok()?;
        stream.write_all(question).await.ok()?;
        stream.async_io(Interest::READABLE, || sender(&stream)).await.ok()?
    };
    tokio::time::timeout(DEADLINE, asking).await.ok().flatten()
}

/// Who has sent the next bytes; none for a process that cannot be seen from here.
#[cfg(target_os = "linux")]
fn sender(stream: &tokio::net::UnixStream) -> std::io::Result<Option<u32>> {
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};

    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    // No room for descriptors: none are expected.
    let mut space = nix::cmsg_space!(UnixCredentials);
    let received =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut messages = received.cmsgs()?;
    Ok(messages.find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(credentials) => {
            u32::try_from(credentials.pid()).ok().filter(|pid| *pid != 0)
        }
        _ => None,
    }))
}

#[cfg(not(target_os = "linux"))]
async fn answering(_: &Path, _: &str, _: &[u8]) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use i2plan_present::finding::Level;

    #[test]
    fn the_kernels_word_counts() {
        let confirmed = Confirmed::from([("tund", 7)]);
        assert_eq!(compare("tund", 7, &confirmed), (7, true, None));
        assert_eq!(compare("connector", 8, &confirmed), (8, false, None));
        let (pid, by_the_kernel, found) = compare("tund", 8, &confirmed);
        assert_eq!((pid, by_the_kernel), (7, true));
        let found = found.unwrap();
        assert_eq!((found.level, found.subject.as_str()), (Level::Problem, "tund"));
        assert!(
            found.message.contains("process 8") && found.message.contains("process 7"),
            "{}",
            found.message
        );
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_answers_is_known_although_another_made_the_socket() {
        use std::os::unix::net::UnixListener;
        use std::process::{Command, Stdio};

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        // As a daemon under a supervisor: it gets the socket as its standard input, and the shell is its process.
        let accepting = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let output = stream.try_clone().unwrap();
            Command::new("/bin/sh")
                .args(["-c", "echo hello; cat > /dev/null"])
                .stdin(Stdio::from(std::os::fd::OwnedFd::from(stream)))
                .stdout(Stdio::from(std::os::fd::OwnedFd::from(output)))
                .spawn()
                .unwrap()
        });
        let confirmed = answering(&path, "i2plan-meshd", b"hello").await;
        let mut child = accepting.join().unwrap();
        assert_eq!(confirmed, Some(child.id()));
        child.wait().unwrap();
        assert_eq!(answering(&dir.path().join("none"), "i2plan-tund", b"hello").await, None);
    }
}
