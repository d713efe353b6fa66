//! A host with containers: the set-up that nearly every system test starts from.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::ctl::{Ctl, number};
use crate::daemon::{Daemon, runtime_folder};
use crate::namespace::Namespace;
use crate::wait::{SOON, comes_true, wait_until};

/// How a container is plugged into the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A TAP that the switch makes inside the container.
    Tap,
    /// A veth pair that the switch makes, driven by AF_PACKET.
    VethPacket,
    /// A veth pair that the switch makes, driven by AF_XDP.
    VethAfxdp,
    /// A veth pair that was there before, driven by AF_PACKET.
    Packet,
}

impl Attachment {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tap, Self::VethPacket, Self::VethAfxdp, Self::Packet];

    /// A short name for ports and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::VethPacket => "vethpacket",
            Self::VethAfxdp => "vethafxdp",
            Self::Packet => "packet",
        }
    }
}

/// A namespace that plays a container, and the port that it hangs on.
#[derive(Debug)]
pub struct Container {
    /// The port's name.
    pub name: String,
    /// How it is attached.
    pub attachment: Attachment,
    /// The container's namespace; its interface is `eth0`.
    pub namespace: Namespace,
    /// Its IPv4 address, in 10.9.0.0/24.
    pub v4: IpAddr,
    /// Its IPv6 address, in fd09::/64.
    pub v6: IpAddr,
    /// The MTU of its interface.
    pub mtu: u32,
    number: u8,
}

impl Container {
    /// Its `[[port]]` table on bridge `blue`, with further lines of TOML.
    pub fn port(&self, further: &str) -> String {
        let Self { name, v4, v6, mtu, .. } = self;
        let mut text = format!("[[port]]\nname = \"{name}\"\nbridge = \"blue\"\n");
        let made = format!(
            "netns = \"{}\"\naddress = [\"{v4}/24\", \"{v6}/64\"]\nmtu = {mtu}\n",
            self.namespace.name()
        );
        match self.attachment {
            Attachment::Tap => text += &format!("type = \"tap\"\n{made}"),
            Attachment::VethPacket => text += &format!("type = \"veth\"\ndriver = \"packet\"\n{made}"),
            Attachment::VethAfxdp => text += &format!("type = \"veth\"\ndriver = \"afxdp\"\n{made}"),
            Attachment::Packet => {
                let _ = writeln!(text, "type = \"packet\"\ndevice = \"{}\"", self.device());
            }
        }
        text + further + "\n"
    }

    /// The name that the host end of a [`Attachment::Packet`] pair has in the host.
    pub fn device(&self) -> String {
        format!("pk{}", self.number)
    }

    /// The address of a family: 4 or 6.
    pub fn address(&self, family: u8) -> IpAddr {
        if family == 4 { self.v4 } else { self.v6 }
    }

    /// The MAC of its `eth0`.
    pub fn mac(&self) -> String {
        let links: Value =
            serde_json::from_str(&self.namespace.ip("-json link show eth0")).expect("ip prints JSON");
        links[0]["address"].as_str().expect("a link has an address").to_owned()
    }
}

/// A namespace that plays the host, and a folder for what the daemon keeps. Dropping it removes both.
#[derive(Debug)]
pub struct Lab {
    /// The host's namespace, in which the daemon runs.
    pub host: Namespace,
    folder: PathBuf,
    next: AtomicU32,
}

impl Lab {
    /// Makes an empty host; `tag` says in its name what it is for.
    ///
    /// # Panics
    /// When the kernel refuses, which it does to anybody but root.
    pub fn new(tag: &str) -> Self {
        let host = Namespace::new(tag);
        let folder = env::temp_dir().join(format!("{}-{}", host.name(), process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        Self { host, folder, next: AtomicU32::new(1) }
    }

    /// A folder of this test alone.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a container, with its device where that is not the switch's to make.
    pub fn container(&self, name: &str, attachment: Attachment, mtu: u32) -> Container {
        let number = u8::try_from(self.next.fetch_add(1, Ordering::Relaxed)).expect("few containers");
        let container = Container {
            name: name.to_owned(),
            attachment,
            namespace: Namespace::new(name),
            v4: Ipv4Addr::new(10, 9, 0, number).into(),
            v6: Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, number.into()).into(),
            mtu,
            number,
        };
        if attachment == Attachment::Packet {
            self.make_pair(&container);
        }
        container
    }

    /// What a container runtime would do: a veth pair with one end in the container.
    pub fn make_pair(&self, container: &Container) {
        let (device, inside, mtu) = (container.device(), &container.namespace, container.mtu);
        // Made again it has the same MAC, so that nobody's neighbour table is out of date.
        let mac = format!("02:00:00:09:00:{:02x}", container.number);
        let peer = format!("peer name eth0 address {mac} netns {} mtu {mtu}", inside.name());
        self.host.ip(&format!("link add {device} mtu {mtu} type veth {peer}"));
        self.host.ip(&format!("link set {device} addrgenmode none up"));
        inside.ip(&format!("address add {}/24 dev eth0", container.v4));
        inside.ip(&format!("address add {}/64 dev eth0 nodad", container.v6));
        inside.ip("link set eth0 up");
    }

    /// A configuration: one bridge `blue`, these workers, and a port for each container.
    pub fn configuration(workers: &str, containers: &[&Container]) -> String {
        let mut text = format!("[switch]\nworkers = {workers}\n\n[[bridge]]\nname = \"blue\"\n\n");
        containers.iter().for_each(|container| text += &container.port(""));
        text
    }

    /// Starts the daemon in the host.
    pub fn start(&self, configuration: &str) -> Daemon {
        Daemon::start(&self.host, &self.folder, configuration)
    }

    /// Writes a file into the test's folder and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("the test's folder can be written");
        path.to_str().expect("the path is text").to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_dir_all(runtime_folder(&self.folder));
    }
}

/// Waits until every named port is up.
pub fn await_up(ctl: &Ctl, names: &[&str]) {
    for name in names {
        wait_until(&format!("port {name} is up"), SOON, || {
            ctl.port(name).is_some_and(|port| port["state"] == "up")
        });
    }
}

/// Checks that every frame is accounted for: received + made = sent + dropped + consumed + held. Frames may still
/// be on their way, so it waits for the counters to agree.
///
/// # Panics
/// With both sides of the equation when they do not.
pub fn assert_conserved(ctl: &Ctl) {
    let mut last = Value::Null;
    let sides = |status: &Value| {
        let sum = |terms: &[&str]| terms.iter().map(|term| number(status, term)).sum::<u64>();
        (sum(&["received", "made"]), sum(&["sent", "dropped", "consumed", "held"]))
    };
    let agreed = comes_true(SOON, || {
        last = ctl.json(&["status"]);
        let (incoming, outgoing) = sides(&last);
        incoming == outgoing
    });
    assert!(agreed, "frames are not conserved: {:?} in {last}", sides(&last));
}
