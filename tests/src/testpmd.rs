//! DPDK's testpmd as the other end of a vhost-user port: a program with a network stack of its own.
//!
//! Its `net_virtio_user` driver is a vhost-user front end, written by others. It needs neither huge pages nor a
//! device, and leaves every device of the machine alone.

use std::path::Path;
use std::process::Command;

use crate::service::Service;

/// Starts a testpmd with one port at `socket`, where it listens if it is the `server`. It forwards as `mode` says
/// (`icmpecho` answers ARP requests and pings to any address). `folder` is for what it keeps.
///
/// # Panics
/// When it does not get ready; the package is `dpdk-dev`.
pub fn start(folder: &Path, socket: &Path, server: bool, mode: &str) -> Service {
    let mut device = format!("net_virtio_user0,path={},queues=1,mac=02:00:00:00:00:77", socket.display());
    if server {
        device += ",server=1";
    }
    // The line by which it shows that it is ready would stay in its buffer.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "dpdk-testpmd", "--no-pci", "--no-telemetry", "--log-level", "error"]);
    command.args(["--no-huge", "-m", "256", "--single-file-segments", "-l", "0,1", "--vdev", &device, "--"]);
    command.args(["--no-mlockall", "--total-num-mbufs", "4096", "--no-flush-rx", "--stats-period", "3600"]);
    command.arg(format!("--forward-mode={mode}"));
    command.env("RUNTIME_DIRECTORY", folder);
    Service::start(&mut command, "packet forwarding - ports=1")
}
