//! The crates depend on each other one way only: pmd <- vhost <- vswitch -> control.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use vswitch_tests::binaries::workspace;
use vswitch_tests::namespace::run;

/// Who may use whom, among ourselves. Development dependencies count: a test that needs more belongs elsewhere.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("pmd", &[]),
    ("control", &[]),
    ("vhost", &["pmd"]),
    ("vswitch", &["pmd", "vhost", "control"]),
    ("vswitch-benches", &["pmd", "vhost", "vswitch", "control"]),
    ("vswitch-tests", &["vhost", "control"]),
];

/// Each package of the workspace with those of the workspace that it depends on.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(workspace());
    let metadata: Value = serde_json::from_str(&run(&mut command)).expect("cargo prints JSON");
    let name = |value: &Value| value["name"].as_str().expect("a package has a name").to_owned();
    let packages = metadata["packages"].as_array().expect("there are packages");
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let uses = |package: &Value| {
        let all = package["dependencies"].as_array().expect("a list");
        // A package of a registry has a source; one of ours is found by its path.
        let local = all.iter().filter(|dependency| dependency["source"].is_null());
        local.map(name).filter(|dependency| ours.contains(dependency)).collect()
    };
    packages.iter().map(|package| (name(package), uses(package))).collect()
}

#[test]
fn crates_depend_on_each_other_one_way_only() {
    let found = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    for (package, uses) in found {
        let Some(may) = allowed.get(package.as_str()) else {
            panic!("{package} is not in the layering table")
        };
        for other in uses {
            assert!(may.contains(&other.as_str()), "{package} must not depend on {other}");
        }
    }
}
