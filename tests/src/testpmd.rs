//! DPDK's testpmd as the other end of a vhost-user port: a program with a network stack of its own.
//!
//! Its `net_virtio_user` driver is a vhost-user front end, written by others. It needs neither huge pages nor a
//! device, and leaves every device of the machine alone.

use std::path::Path;
use std::process::Command;

use crate::service::Service;

/// What a testpmd is like beside its socket.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// It listens.
    pub server: bool,
    /// How it forwards: `icmpecho` answers ARP requests and pings to any address.
    pub mode: &'static str,
    /// Queue pairs that it asks for.
    pub queues: u16,
    /// Those of them that it uses.
    pub used: u16,
    /// More settings of the device, each with a comma in front.
    pub device: &'static str,
}

/// Starts a testpmd with one port at `socket`. `folder` is for what it keeps.
///
/// # Panics
/// When it does not get ready; the package is `dpdk-dev`.
pub fn start(folder: &Path, socket: &Path, options: Options) -> Service {
    let Options { server, mode, queues, used, device } = options;
    let path = socket.display();
    let mut device = format!("net_virtio_user0,path={path},queues={queues},mac=02:00:00:00:00:77{device}");
    if server {
        device += ",server=1";
    }
    // The line by which it shows that it is ready would stay in its buffer.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "dpdk-testpmd", "--no-pci", "--no-telemetry", "--log-level", "error"]);
    command.args(["--no-huge", "-m", "256", "--single-file-segments", "-l", "0,1", "--vdev", &device, "--"]);
    command.args(["--no-mlockall", "--total-num-mbufs", "4096", "--no-flush-rx", "--stats-period", "3600"]);
    command.arg(format!("--forward-mode={mode}"));
    command.args(["--rxq", &used.to_string(), "--txq", &used.to_string()]);
    command.env("RUNTIME_DIRECTORY", folder);
    Service::start(&mut command, "packet forwarding - ports=1")
}
