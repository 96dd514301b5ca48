//! The host's name servers (resolv.conf(5)).

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;

/// The file that programs read, and the one in which systemd-resolved names the servers that it asks itself.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Bytes of a file that are looked at.
const MAX_FILE: u64 = 64 * 1024;

/// The name servers that the host is configured with, as far as its files tell.
#[must_use]
pub fn read() -> Vec<IpAddr> {
    let mut found = Vec::new();
    for path in FILES {
        let mut text = Vec::new();
        // Without a file there is no server that could be cut off.
        if File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)).is_ok() {
            found.extend(parse(&String::from_utf8_lossy(&text)));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn parse(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // A link-local address has its interface behind it.
        address.split('%').next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_among_other_lines() {
        let text = "# nameserver 192.0.2.9\nsearch lan\nnameserver 192.168.1.1\n nameserver\tfe80::1%eth0 \nnameserver\n\
                    nameserver x\noptions edns0\n";
        let found: Vec<_> = parse(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["192.168.1.1", "fe80::1"]);
    }
}
