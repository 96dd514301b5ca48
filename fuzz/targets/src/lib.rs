//! What is fuzzed: a function for each parser that meets foreign bytes, which takes any bytes and panics if they
//! break what the parser promises.
//!
//! Nothing here knows the fuzzer. `fuzz/fuzz_targets` hands these functions to libFuzzer; `tests/corpus.rs` runs
//! them over the corpus with every `cargo test`.

pub mod certificate;
pub mod config;
pub mod control_message;
pub mod descriptor_store;
pub mod dns_query;
pub mod echo_reply;
pub mod invite;
pub mod ipc_frame;
pub mod jsonrpc;
pub mod key_store;
pub mod merge_order;
pub mod mesh_core;
pub mod path_report;
pub mod record;
pub mod router_seed;
pub mod sam_connection;
pub mod sam_datagram;
pub mod sam_line;
pub mod tun_offload;
pub mod tund_packet;
pub mod uapi_request;
pub mod wg_quick;

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its corpus.
    pub name: &'static str,
    /// Takes any bytes; panics if something is wrong with the parser.
    pub run: fn(&[u8]),
    /// What a fuzzer should begin with.
    pub seeds: fn() -> Seeds,
}

/// Inputs by name.
pub type Seeds = Vec<(String, Vec<u8>)>;

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        /// All of them.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds }),+];
    };
}

targets!(
    certificate,
    config,
    control_message,
    descriptor_store,
    dns_query,
    echo_reply,
    invite,
    ipc_frame,
    jsonrpc,
    key_store,
    merge_order,
    mesh_core,
    path_report,
    record,
    router_seed,
    sam_connection,
    sam_datagram,
    sam_line,
    tun_offload,
    tund_packet,
    uapi_request,
    wg_quick,
);

/// A seed.
fn seed(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.into(), bytes.into())
}
