//! Prints `packaging/config/example.toml`, which is made from the table of keys.

fn main() {
    print!("{}", i2plan_config::Config::example());
}
