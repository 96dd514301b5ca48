//! Whose bundles of routers are believed: the operators of I2P's reseed servers, by the certificates that I2P's own
//! routers come with. A signer counts until its certificate ends.

use rsa::PublicKey;
use rsa::pkcs8::DecodePublicKey as _;

/// Who signs, until when (seconds since 1970), and by what key.
const SIGNERS: [(&str, u64, &str); 14] = [
    ("acetone@mail.i2p", 1_926_930_740, include_str!("../../signers/acetone-at-mail.i2p.pem")),
    ("admin@stormycloud.org", 2_021_811_330, include_str!("../../signers/admin-at-stormycloud.org.pem")),
    ("creativecowpat@mail.i2p", 1_811_360_679, include_str!("../../signers/creativecowpat-at-mail.i2p.pem")),
    (
        "diyarciftci@protonmail.com",
        2_078_132_415,
        include_str!("../../signers/diyarciftci-at-protonmail.com.pem"),
    ),
    ("echelon3@mail.i2p", 1_953_747_359, include_str!("../../signers/echelon3-at-mail.i2p.pem")),
    ("hankhill19580@gmail.com", 1_904_360_950, include_str!("../../signers/hankhill19580-at-gmail.com.pem")),
    ("i2p-reseed@mk16.de", 1_959_615_573, include_str!("../../signers/i2p-reseed-at-mk16.de.pem")),
    ("igor@novg.net", 1_990_535_911, include_str!("../../signers/igor-at-novg.net.pem")),
    ("lazygravy@mail.i2p", 1_798_386_096, include_str!("../../signers/lazygravy-at-mail.i2p.pem")),
    ("orignal@mail.i2p", 1_940_969_461, include_str!("../../signers/orignal-at-mail.i2p.pem")),
    ("r4sas-reseed@mail.i2p", 1_813_488_894, include_str!("../../signers/r4sas-reseed-at-mail.i2p.pem")),
    ("rambler@mail.i2p", 1_951_715_432, include_str!("../../signers/rambler-at-mail.i2p.pem")),
    ("reseed@diva.exchange", 1_907_213_805, include_str!("../../signers/reseed-at-diva.exchange.pem")),
    ("sahil@mail.i2p", 2_083_037_958, include_str!("../../signers/sahil-at-mail.i2p.pem")),
];

/// The key of a signer, if there is one of this name at this time, seconds since 1970.
#[must_use]
pub fn key(signer: &str, now: u64) -> Option<PublicKey> {
    let (_, _, pem) = SIGNERS.iter().find(|(name, until, _)| *name == signer && now < *until)?;
    PublicKey::from_public_key_pem(pem).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signer_has_a_key_until_its_end() {
        for (name, until, _) in SIGNERS {
            assert!(key(name, until - 1).is_some(), "{name}");
            assert!(key(name, until).is_none(), "{name}");
        }
        assert!(key("nobody@mail.i2p", 0).is_none());
    }
}
