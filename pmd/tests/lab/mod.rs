//! What the AF_XDP tests share: a private network namespace with a veth pair in it, raw frames at the far end.
//!
//! The namespace has no name and belongs to the test's thread: the kernel removes it, and the pair, when the thread
//! ends, however it ends.
#![allow(dead_code, unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// Ends of the pair.
pub(crate) const NEAR: &str = "vxnear";
/// The end that the test plays the container on.
pub(crate) const FAR: &str = "vxfar";

/// Moves the calling thread into a new namespace holding an up pair `NEAR`-`FAR` with `mtu`.
pub(crate) fn private_pair(mtu: u32) {
    // SAFETY: no pointers; concerns this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "unshare: {}", io::Error::last_os_error());
    let mtu = mtu.to_string();
    ip(&["link", "add", NEAR, "mtu", &mtu, "type", "veth", "peer", "name", FAR, "mtu", &mtu]);
    for end in [NEAR, FAR] {
        // No IPv6 chatter among the frames that a test counts.
        std::fs::write(format!("/proc/thread-self/net/../../../sys/net/ipv6/conf/{end}/disable_ipv6"), "1")
            .or_else(|_| std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1"))
            .expect("disable_ipv6");
        ip(&["link", "set", end, "up"]);
    }
}

/// Runs iproute2 in the thread's namespace.
pub(crate) fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The index of a device in the thread's namespace.
pub(crate) fn ifindex(device: &str) -> u32 {
    let name = std::ffi::CString::new(device).expect("name");
    // SAFETY: the name lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{device}");
    index
}

/// Frames as a plain packet socket sees them.
pub(crate) struct RawEnd(OwnedFd);

impl RawEnd {
    /// Opens the device.
    pub(crate) fn new(device: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, i32::from(protocol))
        };
        assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
        // SAFETY: fresh descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a structure of integers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex(device) as i32;
        // SAFETY: the address lives through the call, with its true size.
        let rc = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        };
        assert_eq!(rc, 0, "bind: {}", io::Error::last_os_error());
        RawEnd(fd)
    }

    /// Sends one frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the frame lives through the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "send: {}", io::Error::last_os_error());
    }

    /// The next frame that comes in (not one that we sent ourselves), within two seconds.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        eventually(|| self.try_receive())
    }

    /// The next frame that is there already.
    pub(crate) fn try_receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            // SAFETY: a structure of integers.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut length = size_of::<libc::sockaddr_ll>() as u32;
            // SAFETY: buffer and address live through the call, with their true sizes.
            let got = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &mut length,
                )
            };
            if got < 0 {
                return None;
            }
            if from.sll_pkttype != libc::PACKET_OUTGOING {
                buffer.truncate(got as usize);
                return Some(buffer);
            }
        }
    }
}

/// Asks until there is an answer, for two seconds.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::yield_now();
    }
}

/// A broadcast frame of `length` bytes whose payload tells `seed`.
pub(crate) fn frame(seed: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, seed, 0x88, 0xb5]);
    frame.extend((frame.len()..length).map(|i| seed.wrapping_add(i as u8)));
    frame
}

/// A container: a named network namespace whose `eth0` is the far end of a pair; removed when dropped.
pub(crate) struct Container {
    /// Its name in `/run/netns`.
    pub(crate) name: String,
    /// The near end, in the namespace of the thread that made it.
    pub(crate) device: String,
}

impl Container {
    /// Makes number `n` with the address 10.77.0.n/24, fd77::n/64.
    pub(crate) fn new(n: u8, mtu: u32) -> Self {
        let container = Container::bare(n);
        let (mtu, name) = (mtu.to_string(), container.name.as_str());
        ip(&[
            "link",
            "add",
            &container.device,
            "mtu",
            &mtu,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "mtu",
            &mtu,
            "netns",
            name,
        ]);
        ip(&["link", "set", &container.device, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        ip(&["-n", name, "addr", "add", &format!("10.77.0.{n}/24"), "dev", "eth0"]);
        ip(&["-n", name, "addr", "add", &format!("fd77::{n}/64"), "dev", "eth0", "nodad"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        container
    }

    /// Makes number `n` with nothing in it.
    pub(crate) fn bare(n: u8) -> Self {
        let name = format!("vx{}-{n}", std::process::id());
        ip(&["netns", "add", &name]);
        Container { name, device: format!("vxc{n}") }
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("namespace");
        std::thread::spawn(move || {
            // SAFETY: an open descriptor and a flag; concerns this thread alone.
            let rc = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(rc, 0, "setns: {}", io::Error::last_os_error());
            work()
        })
    }

    /// Runs a program inside; gives whether it succeeded and what it printed.
    pub(crate) fn run(&self, command: &[&str]) -> (bool, String) {
        let output =
            Command::new("ip").args(["netns", "exec", &self.name]).args(command).output().expect("iproute2");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The pair at once; with the namespace alone it would go some time later.
        let _ = Command::new("ip").args(["link", "del", &self.device]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}
