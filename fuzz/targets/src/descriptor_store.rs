//! What a daemon tells its supervisor, as `i2planctl up` reads it, and the state that `tund` gets back from there.

use i2plan_ipc::api::keyd::TrustAnchor;
use i2plan_ipc::api::tund::{Interface, Member};
use i2plan_ipc::frame::encode_body;
use i2plan_ipc::notification::{MAX_LEN, Notification, Store, is_name};
use i2plan_proto::identity::NetworkId;
use i2plan_testing as testing;
use i2plan_tund::fd_store::State;
use i2plan_tund::roster::{Roster, StoredMembers};
use serde::Serialize;

use crate::{Seeds, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    let heard = Notification::parse(input);
    if let Some(Store::Keep { name, .. } | Store::Forget { name }) = &heard.store {
        assert!(is_name(name), "{name:?} becomes part of a list");
    }
    let again = heard.encode();
    assert!(again.len() <= MAX_LEN, "systemd reads no more");
    assert_eq!(Notification::parse(again.as_bytes()), heard);

    match State::decode(input) {
        Ok(state) => {
            let bytes =
                state.encode().unwrap_or_else(|error| panic!("what was read is not written: {error}"));
            assert_eq!(State::decode(&bytes), Ok(state));
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

/// The state, as [`State`] is written.
#[derive(Serialize)]
struct Written {
    format: u32,
    number: u64,
    interface: Option<(Interface, u32)>,
    data: Option<()>,
    control: Option<()>,
    members: StoredMembers,
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let interface = Interface {
        name: "i2plan0".to_owned(),
        network: NetworkId([1; 32]),
        ipv4: [10, 42, 3, 4].into(),
        ipv4_prefix: 16,
        ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
        ipv6_prefix: 64,
        mtu: 1280,
    };
    let anchor = TrustAnchor {
        epoch: 1,
        not_after: u64::MAX,
        charter: testing::charter(0),
        chain: testing::chain(0),
        revoked: Vec::new(),
    };
    let mut roster = Roster::new(&anchor, StoredMembers::default(), testing::NOW);
    let member = Member { record: Box::new(testing::record(2)), keepalive: 25 };
    roster.take_member(&member, testing::NOW).expect("a record that is rightly signed");
    let state = Written {
        format: 3,
        number: 7,
        interface: Some((interface, 3)),
        data: None,
        control: None,
        members: roster.to_stored(),
    };
    let state = encode_body(&state).map(|body| body.to_vec()).unwrap_or_default();
    vec![
        seed("ready", "READY=1\nSTATUS=it works\nWATCHDOG=1"),
        seed("reloading", "RELOADING=1\nMONOTONIC_USEC=17\nEXTEND_TIMEOUT_USEC=5000000\n"),
        seed("keep", "FDSTORE=1\nFDNAME=udp.7\nFDPOLL=0\n"),
        seed("forget", "FDSTOREREMOVE=1\nFDNAME=state.6\n"),
        seed("state", state),
    ]
}
