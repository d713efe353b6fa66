//! Where the built programs are.
//!
//! `scripts/test` builds them first and names their folder in `VSWITCH_BIN_DIR`. Without it (a plain
//! `cargo test -p vswitch-tests`) they are built here, once per test program, so that a test never runs against
//! yesterday's daemon.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of a built program of this workspace, for example `vswitchd`.
///
/// # Panics
/// When it is not there and cannot be built.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(folder).join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

fn folder() -> PathBuf {
    if let Some(folder) = env::var_os("VSWITCH_BIN_DIR") {
        return PathBuf::from(folder);
    }
    // A test program lies in target/PROFILE/deps, the binaries one folder above.
    let program = env::current_exe().expect("a test program has a path");
    let deps = program.parent().expect("a program lies in a folder");
    let folder = deps.parent().unwrap_or(Path::new("/")).to_path_buf();
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let status = build.status().expect("cargo starts");
    assert!(status.success(), "cargo build --workspace --bins failed");
    folder
}

/// The root of the source tree.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}
