//! `vswitchd`: the daemon.
//!
//! Runs in the foreground. It takes the state directory and the socket first, so that a second daemon is
//! turned away before it touches a port; then the switch starts; then clients are answered, and one line on
//! standard output says so. Messages go to standard error. SIGTERM and SIGINT end it in the reverse order.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use clap::Parser;
use control::api::ApiError;
use control::client::DEFAULT_SOCKET;
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vswitch::config::state::DEFAULT_STATE_DIR;
use vswitch::config::{StateError, Store};
use vswitch::daemon::{Daemon, Options};
use vswitch::server::{Listener, Patience, SocketError};

/// A virtual switch: joins containers, virtual machines, network devices and the host into bridges.
#[derive(Debug, Parser)]
#[command(name = "vswitchd", version)]
struct Arguments {
    /// The configuration; applied if it is new or was changed, otherwise the stored state comes back
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where `vswitchctl` reaches the switch
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Where the desired state is kept over restarts
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// Where the positions of packed rings outlive the switch, in memory (tmpfs) [default: the folder of the socket]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
}

/// Why there is no switch.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("{0}")]
    Switch(#[from] ApiError),
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

fn main() -> ExitCode {
    // Wrong usage ends here, with 2.
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Each mistake begins with its place, `FILE:LINE:COLUMN:`, as editors and compilers have it.
        Err(Failure::State(error @ StateError::Config(_))) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
        Err(failure) => {
            log(format_args!("{failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    // From here on a signal waits until everything is up and then ends it in order.
    let end = await_end()?;
    raise_descriptor_limit();
    let mut store = Store::open(&arguments.state_dir)?;
    let start = store.load(arguments.config.as_deref())?;
    start.notes.iter().for_each(|note| log(format_args!("{note}")));
    let listener = Listener::bind(&arguments.socket)?;
    let beside = || arguments.socket.parent().unwrap_or(Path::new("")).to_owned();
    let runtime_dir = arguments.runtime_dir.unwrap_or_else(beside);
    let switch = Daemon::start(Options { start, store, config_file: arguments.config, runtime_dir })?;
    log(format_args!("{}", switch.describe()));
    let server = listener
        .serve(switch.clone(), Patience::default(), log)
        .map_err(|error| Failure::System("the thread that answers the API", error))?;
    say_ready(&arguments.socket);
    // The other end is dropped by nobody but a thread that is gone, which is an end as well.
    let _ = end.recv();
    server.stop();
    switch.stop();
    // All others are gone: with this one the state directory and the devices are free.
    drop(Arc::into_inner(switch));
    Ok(())
}

/// Nobody may be listening any more; that ends no switch.
fn say_ready(socket: &Path) {
    let version = env!("CARGO_PKG_VERSION");
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "vswitchd {version} ready: control socket {}", socket.display());
    let _ = stdout.flush();
}

/// A message for the administrator. A standard error that is closed ends no switch either.
fn log(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "vswitchd: {message}");
}

/// A port has several descriptors, and by default a process may have 1,024.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log(format_args!("setrlimit(RLIMIT_NOFILE): {error}: the default of open descriptors holds"));
    }
}

/// Gives a receiver that hears of the first signal to end; the second ends the process on the spot.
fn await_end() -> Result<Receiver<()>, Failure> {
    let system = |call| move |error| Failure::System(call, error);
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(system("sigaction"))?;
    let (sender, receiver) = mpsc::channel();
    let wait = move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                log(format_args!("asked again to end: ending at once"));
                std::process::exit(1);
            }
            // Nobody hears it if the start has failed meanwhile.
            let _ = sender.send(());
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(system("thread"))?;
    Ok(receiver)
}
