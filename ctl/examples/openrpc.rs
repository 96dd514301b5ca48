//! Prints the description of the JSON-RPC interface: `cargo run -p i2planctl --example openrpc > docs/openrpc.json`.

fn main() {
    println!("{:#}", i2planctl::rpc::discover::document());
}
