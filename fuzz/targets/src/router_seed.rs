//! What `routerd` learns of other routers from, before and after a signature is looked at, and its own files.
//!
//! The first byte says what the rest is: a signed bundle, its archive, what the program that asks reseed servers has
//! printed, the list of known routers, or the router's keys.

use i2plan_routerd::identity::{Identity, IdentityError};
use i2plan_routerd::known::{KnownRouters, MAX_INFO};
use i2plan_routerd::seed::{fetch, su3};
use i2plan_routerd::{runtime, seed};

use self::testing::{NETWORK, archive, info, unsigned};
use crate::{Seeds, seed};

/// The values of `routerd`'s own tests.
#[path = "../../../routerd/src/testing.rs"]
#[expect(unreachable_pub, reason = "written for a module that others see")]
mod testing;

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        0 => {
            if let Ok(bundle) = su3::Bundle::parse(rest) {
                assert!(bundle.signer.len() + bundle.archive.len() < rest.len());
                let nobody = su3::BundleError::Signer(bundle.signer.to_owned());
                assert_eq!(bundle.verify(|_| None), Err(nobody));
                unpack(bundle.archive);
            }
        }
        1 => unpack(rest),
        2 => {
            let mut known = KnownRouters::none(NETWORK);
            let learnt = fetch::learn(rest, &mut known);
            // Of one router there may be several infos.
            assert!(known.len() <= learnt);
            check(&known);
        }
        3 => {
            if let Ok(known) = KnownRouters::from_bytes(rest, NETWORK) {
                check(&known);
            }
        }
        _ => match Identity::from_bytes(rest) {
            Ok(identity) => assert!(Identity::from_bytes(&identity.to_bytes()).is_ok()),
            Err(error) => assert!(!matches!(error, IdentityError::Randomness(_))),
        },
    }
}

fn unpack(archive: &[u8]) {
    for file in su3::unpack(archive).unwrap_or_default() {
        assert!(file.len() <= MAX_INFO + 1);
        let _ = KnownRouters::none(NETWORK).learn(&file);
    }
}

/// What is known is written and read again, and learnt again from its router infos.
fn check(known: &KnownRouters) {
    assert_eq!(KnownRouters::from_bytes(&known.to_bytes(), NETWORK).as_ref(), Ok(known));
    let (infos, _) = known.for_the_router();
    let mut again = KnownRouters::none(NETWORK);
    assert!(infos.iter().all(|info| again.learn(info).is_ok()));
    assert_eq!(again.len(), known.len());
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let (one, two) = (info(1, NETWORK, 5), info(2, NETWORK, 6));
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let bundle =
        [unsigned("test@mail.i2p", 1_745_582_702, 256, &[&one, b"no router"]), vec![0; 256]].concat();
    let printed = [&one, &two].map(|info| [&(info.len() as u16).to_be_bytes()[..], info].concat()).concat();
    let mut known = KnownRouters::none(NETWORK);
    let _ = known.learn(&one).and(known.learn(&two));
    vec![
        seed("bundle", with(0, &bundle)),
        seed("bundle-short", with(0, &bundle[..50])),
        seed("archive", with(1, &archive(&[&one, &two]))),
        seed("printed", with(2, &printed)),
        seed("printed-short", with(2, &printed[..printed.len() - 1])),
        seed("known", with(3, &known.to_bytes())),
        seed("keys-foreign", with(4, b"i2plan-router-keys\x01")),
    ]
}
