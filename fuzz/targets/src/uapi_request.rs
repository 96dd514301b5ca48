//! What comes on `tund`'s WireGuard socket: bytes in pieces, whose lengths the first byte says.

use i2plan_tund::uapi::codec::{Change, Decoder, MAX_LINE, MAX_REQUEST, Request};

use crate::{Seeds, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some((step, text)) = input.split_first() else { return };
    let whole = requests(text, usize::MAX);
    // Where it is cut makes no difference.
    assert_eq!(requests(text, usize::from(*step).max(1)), whole);
    for request in whole.into_iter().flatten() {
        let Request::Set(Change { peers, .. }) = request else { continue };
        assert!(peers.len() <= MAX_REQUEST / 64);
        for peer in peers {
            for prefix in &peer.allowed_ips {
                assert_eq!(prefix.network(), *prefix);
            }
            if let Some(key) = &peer.preshared_key {
                assert_eq!(format!("{key:?}"), "SecretKey(…)");
            }
        }
    }
}

/// All requests, each with its error number if it is wrong, read in pieces of this length.
fn requests(text: &[u8], step: usize) -> Vec<Result<Request, i32>> {
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for mut piece in text.chunks(step.min(text.len().max(1))) {
        while !piece.is_empty() {
            all.extend(decoder.handle_bytes(&mut piece).map(|result| {
                result.map_err(|error| {
                    assert!(!error.to_string().is_empty());
                    error.errno()
                })
            }));
        }
    }
    all
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let key = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";
    vec![
        seed("get", "\u{7f}get=1\n\n"),
        seed("get-twice", "\u{3}get=1\n\nget=1\n\n"),
        seed(
            "set",
            format!(
                "\u{11}set=1\npublic_key={key}\nupdate_only=true\npreshared_key={key}\nreplace_allowed_ips=true\n\
                 allowed_ip=10.0.0.9/24\nallowed_ip=fd00::1/128\npersistent_keepalive_interval=25\nprotocol_version=1\n\
                 public_key={key}\nremove=true\n\n"
            ),
        ),
        seed(
            "setconf",
            format!("\u{20}set=1\nprivate_key={key}\nlisten_port=0\nfwmark=0\nreplace_peers=true\n\n"),
        ),
        seed("endpoint", format!("\u{40}set=1\npublic_key={key}\nendpoint=127.0.0.1:1\n\nget=1\n\n")),
        seed(
            "endpoint-in-i2p",
            format!("\u{40}set=1\npublic_key={key}\nendpoint={}.b32.i2p\n\n", "a".repeat(52)),
        ),
        seed("no-operation", "\u{1}\n"),
        seed("long-line", format!("\u{40}get=1\n{}\n\n", "x".repeat(MAX_LINE))),
        seed("no-text", b"\x10set=1\n\xff\xfe=1\n\n".as_slice()),
    ]
}
