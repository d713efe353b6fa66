//! A network namespace that lives as long as its value.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// What every namespace of the tests is called by, followed by the test program's process ID.
const PREFIX: &str = "vstest";

/// A named network namespace with its loopback up. Dropping it deletes it and, with it, every TAP, veth pair and
/// bridge inside.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with a name that no other test uses; `tag` says in it what it is for.
    ///
    /// # Panics
    /// When the kernel refuses, which it does to anybody but root.
    pub fn new(tag: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep_abandoned);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("{PREFIX}{}-{number}-{tag}", process::id()) };
        run(Command::new("ip").args(["netns", "add", &namespace.name]));
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command line (words divided by blanks) inside and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with its messages.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a command line has a program"));
        run(command.args(words))
    }

    /// The same, but a failure is an answer: whether it succeeded.
    pub fn succeeds(&self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a command line has a program"));
        command.args(words).output().expect("ip starts").status.success()
    }

    /// Runs `ip ARGUMENTS` on this namespace and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with its messages.
    pub fn ip(&self, arguments: &str) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// The MAC address that its kernel knows of a neighbour.
    ///
    /// # Panics
    /// When it knows none.
    pub fn neighbour(&self, address: &str) -> String {
        let known = self.ip(&format!("neighbour show {address}"));
        let mac = known.split_once("lladdr ").and_then(|(_, rest)| rest.split(' ').next());
        mac.unwrap_or_else(|| panic!("{address} is not known: {known:?}")).to_owned()
    }

    /// Deletes the namespace now, while the value lives on, to see what the switch makes of that.
    pub fn delete(&self) {
        run(Command::new("ip").args(["netns", "delete", &self.name]));
    }

    /// Makes a namespace of the same name again after [`Namespace::delete`].
    pub fn create_again(&self) {
        run(Command::new("ip").args(["netns", "add", &self.name]));
        self.ip("link set lo up");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A test may have deleted it itself; nothing can be done about any other failure.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Runs a command to its end and returns its standard output.
///
/// # Panics
/// When it cannot be started or fails, with its command line and messages.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", messages(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command said, for a failure's text.
pub fn messages(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{}{}", output.status, err, out)
}

/// Deletes the namespaces of test programs that are no longer there.
fn sweep_abandoned() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|digits| digits.parse::<u32>().ok()) else { continue };
        if !PathBuf::from(format!("/proc/{owner}")).exists() {
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}
