//! `vswitchctl --json`, as a program would use it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::binaries::binary;
use crate::namespace::messages;

/// The command line of one daemon.
#[derive(Debug, Clone)]
pub struct Ctl {
    socket: PathBuf,
}

/// A command that the switch refused, or that could not be understood.
#[derive(Debug)]
pub struct Refusal {
    /// The exit status: 1 refused or failed, 2 wrong usage.
    pub code: Option<i32>,
    /// All that it printed.
    pub text: String,
}

impl Ctl {
    /// The command line that talks to the daemon on `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_path_buf() }
    }

    /// A command with arguments of any kind, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("vswitchctl"));
        command.arg("--socket").arg(&self.socket).args(arguments);
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("vswitchctl starts")
    }

    /// Runs a command and returns its JSON.
    ///
    /// # Panics
    /// When it fails or does not print JSON, with all that it said.
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.attempt(arguments).unwrap_or_else(|refusal| panic!("vswitchctl {arguments:?}: {}", refusal.text))
    }

    /// Runs a command and returns its JSON, or the refusal.
    pub fn attempt(&self, arguments: &[&str]) -> Result<Value, Refusal> {
        let output = self.output(&[&["--json"], arguments].concat());
        if !output.status.success() {
            return Err(Refusal { code: output.status.code(), text: messages(&output) });
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|error| Refusal { code: None, text: format!("not JSON ({error}): {text}") })
    }

    /// Runs a command as a person would and returns the text that it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "vswitchctl {arguments:?}: {}", messages(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// One port of `port list`, if it is there.
    pub fn port(&self, name: &str) -> Option<Value> {
        self.rows(&["port", "list"]).into_iter().find(|row| row["name"] == name)
    }

    /// The rows of a command that lists things.
    ///
    /// # Panics
    /// When it does not print an array.
    pub fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        match self.json(arguments) {
            Value::Array(rows) => rows,
            other => panic!("vswitchctl {arguments:?} should print an array, not {other}"),
        }
    }

    /// How many frames `drops` counts under a reason, on one port or on all of them.
    pub fn drops(&self, port: Option<&str>, reason: &str) -> u64 {
        let counted = |row: &&Value| row["reason"] == reason && port.is_none_or(|port| row["port"] == port);
        self.rows(&["drops"]).iter().filter(counted).filter_map(|row| row["frames"].as_u64()).sum()
    }
}

/// A number in a JSON object.
///
/// # Panics
/// When the field is missing or no unsigned number.
pub fn number(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or_else(|| panic!("{field} should be a number in {object}"))
}
