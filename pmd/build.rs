//! Compiles the XDP program of the AF_XDP driver to a BPF object that `afxdp/program.rs` embeds.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fmt};

const SOURCE: &str = "src/afxdp/redirect.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    if let Err(reason) = compile() {
        println!("cargo::error=cannot compile {SOURCE}: {reason}");
    }
}

fn compile() -> Result<(), Box<dyn std::error::Error>> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let object = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("redirect.bpf.o");
    // -g makes the BTF, which the map definitions and the dispatcher need.
    let status = Command::new(&clang)
        .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-c", SOURCE, "-o"])
        .arg(&object)
        .status()
        .map_err(|error| format!("{clang}: {error}; install clang (scripts/install-deps)"))?;
    if status.success() { Ok(()) } else { Err(Failed(clang, status).into()) }
}

#[derive(Debug)]
struct Failed(String, std::process::ExitStatus);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with {}", self.0, self.1)
    }
}

impl std::error::Error for Failed {}
