//! Runs a node until it is interrupted, or until its standard input ends, without a word to the other members then:
//! `cargo run -p i2plan --example node -- found|join NAME DIR`, as root, with the node's files below DIR. It founds a
//! network and prints an invite, or reads one and joins, and prints what happens. With PROGRAMS in the environment the
//! daemons are those in that directory.

#[cfg(target_os = "linux")]
use {
    i2plan::{Happening, Node, SecretText},
    std::process::ExitCode,
    std::time::Duration,
};

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    i2plan::become_daemon_if_asked();
    let result =
        tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(run()));
    result.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

#[cfg(target_os = "linux")]
async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let [Some(what), Some(name), Some(directory)] = [(); 3].map(|()| arguments.next()) else {
        return Err("usage: node found|join NAME DIR".into());
    };
    let mut node =
        Node::builder(&name).data_dir(format!("{directory}/data")).run_dir(format!("{directory}/run"));
    if let Ok(programs) = std::env::var("PROGRAMS") {
        node = node.programs(programs).wireguard_dir(format!("{directory}/wireguard"));
    }
    let node = node.start().await?;
    let mut happenings = node.happenings();
    node.until_ready(Duration::from_secs(300)).await?;
    if what == "join" {
        // Not an argument, which every user of the machine could see.
        let code =
            tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?.ok_or("no invite")??;
        println!("joined {}", node.accept_invite(SecretText::new(code)).await?.name);
    } else {
        let invite = node.create_invite(Duration::from_secs(3600), Some(1)).await?;
        println!("invite {}", invite.invite.expose());
    }
    println!("address {}", node.tunnel_ip().await?.ok_or("in no network")?.0);
    let end = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = &mut end => return Ok(()),
            _ = tokio::signal::ctrl_c() => break,
            happening = happenings.next() => match happening {
                Happening::Mesh(event) => println!("event {}", event.kind.name()),
                Happening::Daemon(event) => println!("{event}"),
                Happening::Missed(_) => println!("{} peers", node.peers().await?.len()),
                Happening::State(state) if state.is_over() => return Err(format!("{state:?}").into()),
                Happening::State(_) => {}
            },
        }
    }
    println!("{:?}", node.stop().await);
    Ok(())
}
