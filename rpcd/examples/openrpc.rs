//! Prints the description of the JSON-RPC interface: `cargo run -p i2plan-rpcd --example openrpc > docs/openrpc.json`.

fn main() {
    println!("{:#}", i2plan_rpcd::discover::document());
}
