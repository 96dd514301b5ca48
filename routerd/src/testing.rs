//! Values for tests: routers whose keys are known to everybody.

#![allow(clippy::unwrap_used, reason = "writing into memory does not fail")]

use std::io::{Cursor, Write as _};

use emissary_core::Config;
use emissary_core::crypto::{SigningPrivateKey, StaticPrivateKey};
use emissary_core::primitives::{Date, RouterAddress, RouterInfo};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::runtime::Tokio;
use super::seed::su3::{MAGIC, RESEED, RSA_SHA512, ZIP};

/// The network of these routers.
pub const NETWORK: u8 = 99;

/// What the router with this number says of itself at this time, milliseconds since 1970.
#[must_use]
pub fn info(number: u16, network: u8, published: u64) -> Vec<u8> {
    let mut key = [7; 32];
    key[..2].copy_from_slice(&number.to_be_bytes());
    let (encryption, signing) = (StaticPrivateKey::from_bytes(key), SigningPrivateKey::from(key));
    let address = RouterAddress::new_unpublished_ntcp2(key, ([192, 0, 2, 1], 9000).into());
    // The padding of an identity is random unless one is given, and part of the router's id.
    let (open, seen) = (encryption.public().to_vec(), signing.public());
    let public = [&open, &[0; 320][..], seen.as_ref(), &[5, 0, 4, 0, 7, 0, 4]];
    let router_info = Some(public.concat());
    let config = Config { net_id: Some(network), router_info, ..Config::default() };
    let mut info =
        RouterInfo::new::<Tokio>(&config, Some(address), None, None, None, &encryption, &signing, true);
    info.published = Date::new(published);
    info.serialize(&signing)
}

/// A zip archive of these files.
#[must_use]
pub fn archive(files: &[&[u8]]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (number, file) in files.iter().enumerate() {
        archive.start_file(format!("routerInfo-{number}.dat"), SimpleFileOptions::default()).unwrap();
        archive.write_all(file).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A bundle with these files as a reseed server makes it, up to its signature of so many bytes.
#[must_use]
pub fn unsigned(signer: &str, made: u64, signature_len: u16, files: &[&[u8]]) -> Vec<u8> {
    let (archive, mut version) = (archive(files), made.to_string().into_bytes());
    version.resize(16, 0);
    let mut bytes = MAGIC.to_vec();
    bytes.extend([0, 0]);
    bytes.extend(RSA_SHA512.to_be_bytes());
    bytes.extend(signature_len.to_be_bytes());
    bytes.extend([0, 16, 0, u8::try_from(signer.len()).unwrap()]);
    bytes.extend((archive.len() as u64).to_be_bytes());
    bytes.extend([0, ZIP, 0, RESEED]);
    bytes.extend([0; 12]);
    bytes.extend([&version, signer.as_bytes(), &archive].concat());
    bytes
}
