//! A running `vswitchd`, from its start to its end.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::binaries::binary;
use crate::ctl::Ctl;
use crate::namespace::Namespace;
use crate::service::await_line;
use crate::wait::wait_for;

/// How long a start may take: a hundred ports of a busy machine, with room.
const START: Duration = Duration::from_secs(20);
/// How long an orderly end may take.
const END: Duration = Duration::from_secs(15);

/// A `vswitchd` in a namespace that plays the host. Its state and its socket lie in `folder`, so it can be ended
/// and started again with the same. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    folder: PathBuf,
    host: String,
    prefix: Vec<String>,
    /// The line that it printed when it was ready.
    pub ready: String,
}

impl Daemon {
    /// Starts the daemon in `host` with `configuration` and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends or is silent instead, with its messages.
    pub fn start(host: &Namespace, folder: &Path, configuration: &str) -> Self {
        Self::attempt(host, folder, configuration, &[]).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// The same, with the failure as a value; `prefix` is a command line that runs the daemon, such as one that
    /// takes a capability away first.
    pub fn attempt(
        host: &Namespace,
        folder: &Path,
        configuration: &str,
        prefix: &[&str],
    ) -> Result<Self, String> {
        fs::write(folder.join("switch.toml"), configuration).expect("the test's folder can be written");
        let mut daemon = Self {
            child: None,
            folder: folder.to_path_buf(),
            host: host.name().to_owned(),
            prefix: prefix.iter().map(|word| (*word).to_owned()).collect(),
            ready: String::new(),
        };
        daemon.spawn()?;
        Ok(daemon)
    }

    fn spawn(&mut self) -> Result<(), String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host]).args(&self.prefix).arg(binary("vswitchd"));
        command.arg("--config").arg(self.folder.join("switch.toml"));
        command.arg("--socket").arg(self.socket());
        command.arg("--state-dir").arg(self.state_folder());
        command.arg("--runtime-dir").arg(runtime_folder(&self.folder));
        let messages = File::options().create(true).append(true).open(self.log()).expect("a log can be made");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(messages);
        let mut child = command.spawn().expect("ip starts");
        let output = child.stdout.take().expect("its output is a pipe");
        self.child = Some(child);
        match await_line(output, START, "", mpsc::channel().0) {
            Ok(line) => self.ready = line,
            Err(failure) => {
                self.kill();
                return Err(format!("vswitchd {failure}; its messages:\n{}", self.messages()));
            }
        }
        Ok(())
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// The folder that holds the state which a restart comes back to.
    pub fn state_folder(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The configuration file that it was started with.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("switch.toml")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("vswitchd.log")
    }

    /// All that it wrote to its standard error, over all of its starts.
    pub fn messages(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The command line that talks to it.
    pub fn ctl(&self) -> Ctl {
        Ctl::new(&self.socket())
    }

    /// Its process ID (`ip netns exec` replaces itself by the program that it runs).
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a process ID is small");
        // SAFETY: kill takes two integers; the process is our own child and not yet waited for.
        unsafe { libc::kill(pid, signal) };
    }

    /// Asks it to end (SIGTERM) and sees that it does so with status 0.
    ///
    /// # Panics
    /// When it ends in any other way, or not in time.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.wait("vswitchd ends after SIGTERM", END);
        assert_eq!(
            status.code(),
            Some(0),
            "vswitchd ended with {status}; its messages:\n{}",
            self.messages()
        );
    }

    /// Kills it (SIGKILL), as a crash would. Nothing happens when it is not running.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            self.child = None;
        }
    }

    /// Starts it again, with the same files, after [`Daemon::stop`] or [`Daemon::kill`].
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        self.spawn().unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// Panics if it has ended by itself.
    pub fn assert_alive(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            panic!("vswitchd ended by itself with {status}; its messages:\n{}", self.messages());
        }
    }

    fn wait(&mut self, what: &str, deadline: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the daemon runs");
        let status = wait_for(what, deadline, || child.try_wait().expect("a child can be waited for"));
        self.child = None;
        status
    }

    /// The CPU time that it has used so far, all threads together, to the nanosecond.
    pub fn cpu_time(&self) -> Duration {
        let pid = i32::try_from(self.pid()).expect("a process ID is small");
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both calls write into values of the right type that live through them.
        let done = unsafe {
            libc::clock_getcpuclockid(pid, &mut clock) == 0 && libc::clock_gettime(clock, &mut time) == 0
        };
        assert!(done, "a running process has a CPU clock");
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
    }
}

/// The folder, in memory, of what outlives a daemon whose other files are in `folder`.
pub(crate) fn runtime_folder(folder: &Path) -> PathBuf {
    Path::new("/dev/shm").join(folder.file_name().expect("a folder has a name"))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let crashed = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        self.kill();
        if thread::panicking() {
            eprintln!("vswitchd's messages:\n{}", self.messages());
        } else if let Some(status) = crashed {
            let signal = status.signal().map(|signal| format!(" (signal {signal})")).unwrap_or_default();
            panic!("vswitchd ended by itself: {status}{signal}; its messages:\n{}", self.messages());
        }
    }
}
