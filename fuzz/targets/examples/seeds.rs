//! Writes the seed corpus: `cargo run -p i2plan-fuzz --example seeds`. The same code makes the same files.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for target in i2plan_fuzz::TARGETS {
        let directory = corpus.join(target.name);
        fs::create_dir_all(&directory)?;
        for file in fs::read_dir(&directory)? {
            let path = file?.path();
            if path.extension().is_some_and(|kind| kind == "seed") {
                fs::remove_file(path)?;
            }
        }
        for (name, bytes) in (target.seeds)() {
            fs::write(directory.join(name).with_extension("seed"), bytes)?;
        }
    }
    Ok(())
}
