//! Open vSwitch with its userspace datapath, in a namespace of its own: another switch at the other end of a tunnel.
//!
//! `scripts/install-deps` has unpacked it; it is installed nowhere, and knows nothing of the machine's devices but those
//! of its namespace. It needs neither DPDK nor huge pages.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::binaries::workspace;
use crate::lab::Lab;
use crate::namespace::{Namespace, run};
use crate::wait::{SOON, wait_until};

/// What has to be unpacked: by `scripts/unpack-packages`, which does nothing if it has been.
const PACKAGE: [&str; 4] = ["-d", "build/peers/ovs", "bookworm", "openvswitch-switch"];

/// Its database and its daemon. Dropping it kills both.
#[derive(Debug)]
pub struct Ovs {
    /// Where it runs, with the devices that it may have.
    pub namespace: Namespace,
    folder: PathBuf,
    daemons: Vec<Child>,
}

impl Ovs {
    /// Starts it, without a bridge.
    ///
    /// # Panics
    /// When it does not start; with its messages.
    pub fn start(lab: &Lab) -> Self {
        run(Command::new(workspace().join("scripts/unpack-packages")).current_dir(workspace()).args(PACKAGE));
        let mut ovs =
            Self { namespace: Namespace::new("ovs"), folder: lab.folder().to_owned(), daemons: Vec::new() };
        let (database, schema) =
            (ovs.path("conf.db"), root().join("usr/share/openvswitch/vswitch.ovsschema"));
        run(ovs.command("usr/bin/ovsdb-tool").arg("create").arg(&database).arg(schema));
        let mut server = ovs.command("usr/sbin/ovsdb-server");
        server.arg(database).arg(format!("--remote=p{}", ovs.socket()));
        ovs.spawn(server);
        wait_until("the database of Open vSwitch listens", SOON, || ovs.path("db.sock").exists());
        ovs.set("--no-wait init");
        let mut daemon = ovs.command("usr/lib/openvswitch-switch/ovs-vswitchd");
        daemon.arg(ovs.socket());
        ovs.spawn(daemon);
        ovs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn socket(&self) -> String {
        format!("unix:{}", self.path("db.sock").display())
    }

    /// One of its programs, in the namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = self.namespace.command(root().join(program));
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|place| root().join(place));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("no colon in a path"));
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.folder);
        }
        command
    }

    fn spawn(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.path("ovs.log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemons.push(command.spawn().expect("ip starts"));
    }

    /// Changes its configuration by a command line of `ovs-vsctl`, and waits until it has taken that up.
    ///
    /// # Panics
    /// When it is refused, or the daemon does not take it up.
    pub fn set(&self, line: &str) {
        let mut command = self.command("usr/bin/ovs-vsctl");
        command.arg(format!("--db={}", self.socket())).arg(format!("--timeout={}", SOON.as_secs()));
        run(command.args(line.split_whitespace()));
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            let messages = std::fs::read_to_string(self.path("ovs.log")).unwrap_or_default();
            eprintln!("Open vSwitch's messages:\n{messages}");
        }
    }
}

fn root() -> PathBuf {
    workspace().join(Path::new(PACKAGE[1]).join("root"))
}
