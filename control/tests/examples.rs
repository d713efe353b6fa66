//! The documents under `examples/` are right, and every key that there is stands in one of them or in
//! the schema's own tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use control::schema::Config;

#[test]
fn every_example_is_right_and_survives_an_export() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let config = Config::parse(&text, name).unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert!(!config.ports.is_empty(), "{name}");
        assert_eq!(Config::parse(&config.to_toml(), "export"), Ok(config), "{name}");
        count += 1;
    }
    assert!(count >= 3, "only {count} examples were found");
}
