//! A virtual machine with one vhost-user network card: QEMU, Debian's kernel for clouds, and nothing inside but
//! busybox, iproute2's `ip`, iperf3 and `netprobe`.
//!
//! `scripts/guest-image` makes what it boots from; here the addresses of this one are added. Its processor is
//! emulated, so that it needs no virtualization and is up in a few seconds. The guest's `init` reads commands from its
//! second serial port, a socket that we listen on, and answers each by its output and a line `@NUMBER STATUS`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binaries::{binary, workspace};
use crate::lab::Lab;
use crate::namespace::run;
use crate::wait::{SOON, wait_for};

/// How long a boot may take: some seconds, with room for a machine that does a lot beside it.
const BOOT: Duration = Duration::from_secs(60);

/// Which QEMU runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qemu {
    /// Debian 12's own, 7.2.
    Debian,
    /// 10.0, of Debian's backports.
    Backports,
}

impl Qemu {
    fn command(self) -> Command {
        match self {
            Self::Debian => Command::new("qemu-system-x86_64"),
            Self::Backports => {
                let root = workspace().join("build/guest/qemu/root/usr");
                let mut command = Command::new(root.join("bin/qemu-system-x86_64"));
                command.arg("-L").arg(root.join("share/qemu")).arg("-L").arg(root.join("share/seabios"));
                command.env("LD_LIBRARY_PATH", root.join("lib/x86_64-linux-gnu"));
                command
            }
        }
    }

    /// How it is told to connect again, as soon as it can.
    fn reconnect(self) -> &'static str {
        match self {
            Self::Debian => "reconnect=1",
            Self::Backports => "reconnect-ms=20",
        }
    }
}

/// What a guest is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// What its addresses end in.
    pub number: u8,
    /// What runs it.
    pub qemu: Qemu,
    /// The socket of its card.
    pub socket: PathBuf,
    /// QEMU listens there, and the switch connects.
    pub listens: bool,
    /// The card's queue pairs; it has as many processors.
    pub queues: u8,
    /// Further options of its card, each after a comma.
    pub options: String,
    /// It does not boot, but waits for another one's state: what to listen on, as QEMU has it.
    pub incoming: Option<String>,
}

impl Plan {
    /// A guest with one queue pair, to be booted.
    pub fn new(name: &str, number: u8, qemu: Qemu, socket: &Path, listens: bool) -> Self {
        let (name, socket, options) = (name.to_owned(), socket.to_owned(), String::new());
        Self { name, number, qemu, socket, listens, queues: 1, options, incoming: None }
    }

    /// Its MAC address.
    pub fn mac(&self) -> String {
        format!("52:54:00:09:00:{:02x}", self.number)
    }

    /// Its address of a family, 4 or 6.
    pub fn address(&self, family: u8) -> IpAddr {
        match family {
            4 => Ipv4Addr::new(10, 9, 0, self.number).into(),
            _ => Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, self.number.into()).into(),
        }
    }

    /// What its `init` does first.
    fn start(&self) -> String {
        let [v4, v6] = [4, 6].map(|family| self.address(family));
        format!(
            "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad\n\
             ip address add {v4}/24 dev eth0\nip address add {v6}/64 dev eth0\nip link set eth0 up\n"
        )
    }
}

/// A virtual machine. Dropping it kills it.
#[derive(Debug)]
pub struct Guest {
    /// What it is like.
    pub plan: Plan,
    folder: PathBuf,
    child: Option<Child>,
    shell: Option<BufReader<UnixStream>>,
    monitor: Option<BufReader<UnixStream>>,
    commands: u64,
}

impl Guest {
    /// Starts it; it boots while others do.
    ///
    /// # Panics
    /// When QEMU does not start; with its messages.
    pub fn start(lab: &Lab, plan: Plan) -> Self {
        let folder = lab.folder().join(&plan.name);
        fs::create_dir_all(&folder).expect("a folder can be made");
        let mut guest = Self { plan, folder, child: None, shell: None, monitor: None, commands: 0 };
        guest.write_initramfs();
        guest.start_again();
        guest
    }

    /// Starts it again after [`Guest::kill`].
    ///
    /// # Panics
    /// When QEMU does not start; with its messages.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.plan.name);
        let [shell, monitor] = ["shell", "monitor"].map(|name| {
            let path = self.folder.join(name);
            let _ = fs::remove_file(&path);
            UnixListener::bind(&path).expect("a socket can be made")
        });
        let mut command = self.command();
        let log = File::create(self.folder.join("qemu.log")).expect("a log can be made");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        self.shell = Some(self.accept(&shell));
        self.monitor = Some(self.accept(&monitor));
        let greeting = self.monitor_line();
        assert!(greeting["QMP"].is_object(), "{greeting}");
        self.monitor("qmp_capabilities", json!({}));
    }

    fn accept(&mut self, listener: &UnixListener) -> BufReader<UnixStream> {
        listener.set_nonblocking(true).expect("a socket's flag");
        let stream = wait_for(&format!("QEMU of {} starts", self.plan.name), SOON, || {
            self.assert_runs();
            listener.accept().ok().map(|(stream, _)| stream)
        });
        stream.set_nonblocking(false).expect("a socket's flag");
        BufReader::new(stream)
    }

    fn write_initramfs(&self) {
        fs::write(self.folder.join("start"), self.plan.start()).expect("the test's folder can be written");
        let own = archive(&self.folder, &["start"]);
        fs::write(self.folder.join("initramfs"), [image(), &own].concat()).expect("it can be written");
    }

    fn command(&self) -> Command {
        let Plan { qemu, socket, listens, queues, options, incoming, .. } = &self.plan;
        let mut command = qemu.command();
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-cpu", "max", "-m", "192"]);
        command.args(["-machine", "q35,accel=tcg,memory-backend=memory", "-smp", &queues.to_string()]);
        command.args(["-object", "memory-backend-memfd,id=memory,size=192M,share=on"]);
        command.arg("-kernel").arg(workspace().join("build/guest/image/vmlinuz"));
        command.arg("-initrd").arg(self.folder.join("initramfs"));
        command.args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1 net.ifnames=0 mitigations=off"]);
        let path = |name: &str| self.folder.join(name).display().to_string();
        command.args(["-serial", &format!("file:{}", path("console"))]);
        command.args(["-chardev", &format!("socket,id=shell,path={}", path("shell"))]);
        command.args(["-serial", "chardev:shell"]);
        command.args(["-chardev", &format!("socket,id=monitor,path={}", path("monitor"))]);
        command.args(["-mon", "chardev=monitor,mode=control"]);
        let side = if *listens { "server=on,wait=off" } else { qemu.reconnect() };
        command.args(["-chardev", &format!("socket,id=card,path={},{side}", socket.display())]);
        command.args(["-netdev", &format!("vhost-user,id=net,chardev=card,queues={queues}")]);
        let mut device = format!("virtio-net-pci,netdev=net,romfile=,mac={}{options}", self.plan.mac());
        if *queues > 1 {
            device += ",mq=on";
        }
        if *qemu == Qemu::Debian {
            // It falls over the interrupts of vhost-user cards on an emulated processor.
            device += ",vectors=0";
        }
        command.args(["-device", &device]);
        if let Some(incoming) = incoming {
            command.args(["-incoming", incoming]);
        }
        command
    }

    /// Waits until it has booted.
    ///
    /// # Panics
    /// When it does not; with its console.
    pub fn await_boot(&mut self) {
        self.read_until(|line| (line == "@ready").then_some(()), BOOT);
    }

    /// Runs a command line in its shell and returns what that printed.
    ///
    /// # Panics
    /// When it fails, or takes longer than `deadline`; with its output.
    pub fn run_for(&mut self, line: &str, deadline: Duration) -> String {
        self.commands += 1;
        let mark = format!("@{} ", self.commands);
        let shell = self.shell.as_mut().expect("the guest runs");
        writeln!(shell.get_mut(), "{} {line}", self.commands).expect("its serial port takes a line");
        let (output, status) = self.read_until(|line| line.strip_prefix(&mark).map(str::to_owned), deadline);
        assert_eq!(status, "0", "{}: {line}: {output}", self.plan.name);
        output
    }

    /// The same for what is soon done.
    ///
    /// # Panics
    /// When it fails, or takes long.
    pub fn run(&mut self, line: &str) -> String {
        self.run_for(line, SOON)
    }

    /// Reads lines until one is what is wanted; all those before it, and what was wanted.
    fn read_until<T>(&mut self, wanted: impl Fn(&str) -> Option<T>, deadline: Duration) -> (String, T) {
        let (start, mut lines, mut bytes) = (Instant::now(), String::new(), Vec::new());
        let shell = self.shell.as_mut().expect("the guest runs");
        loop {
            let left = deadline.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
            shell.get_mut().set_read_timeout(Some(left)).expect("a socket's time limit");
            let read = shell.read_until(b'\n', &mut bytes);
            if !read.as_ref().is_ok_and(|count| *count > 0) {
                let (name, console) = (&self.plan.name, self.messages());
                panic!("{name} did not answer within {deadline:?} ({read:?}): {lines}\n{console}");
            }
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if let Some(value) = wanted(&line) {
                return (lines, value);
            }
            lines += &(line + "\n");
        }
    }

    /// What its console and QEMU said.
    pub fn messages(&self) -> String {
        ["console", "qemu.log"]
            .map(|name| fs::read_to_string(self.folder.join(name)).unwrap_or_default())
            .concat()
    }

    fn assert_runs(&mut self) {
        let ended = self.child.as_mut().expect("QEMU was started").try_wait().expect("a child");
        if let Some(status) = ended {
            panic!("QEMU of {} ended with {status}: {}", self.plan.name, self.messages());
        }
    }

    /// Gives QEMU a command (its machine protocol, QMP) and returns the answer.
    ///
    /// # Panics
    /// When QEMU refuses.
    pub fn monitor(&mut self, command: &str, arguments: Value) -> Value {
        let stream = self.monitor.as_mut().expect("the guest runs").get_mut();
        writeln!(stream, "{}", json!({"execute": command, "arguments": arguments})).expect("QEMU reads");
        loop {
            let mut line = self.monitor_line();
            if line["event"].is_null() {
                assert!(line["error"].is_null(), "{command}: {line}");
                return line["return"].take();
            }
        }
    }

    fn monitor_line(&mut self) -> Value {
        let monitor = self.monitor.as_mut().expect("the guest runs");
        monitor.get_mut().set_read_timeout(Some(SOON)).expect("a socket's time limit");
        let mut line = String::new();
        let read = monitor.read_line(&mut line);
        serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("QEMU of {} should answer: {read:?}, {error}: {}", self.plan.name, self.messages())
        })
    }

    /// Has it boot again, from inside.
    ///
    /// # Panics
    /// When it does not come up again.
    pub fn reboot(&mut self) {
        let shell = self.shell.as_mut().expect("the guest runs");
        writeln!(shell.get_mut(), "0 reboot -f").expect("its serial port takes a line");
        self.await_boot();
    }

    /// Kills QEMU (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Turns it off, from inside.
    ///
    /// # Panics
    /// When QEMU does not end by itself.
    pub fn power_off(mut self) {
        let shell = self.shell.as_mut().expect("the guest runs");
        writeln!(shell.get_mut(), "0 poweroff -f").expect("its serial port takes a line");
        let child = self.child.as_mut().expect("the guest runs");
        let status =
            wait_for(&format!("{} is off", self.plan.name), SOON, || child.try_wait().expect("a child"));
        assert!(status.success(), "QEMU ended with {status}: {}", self.messages());
        self.child = None;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("console and QEMU's messages of {}:\n{}", self.plan.name, self.messages());
        }
    }
}

/// Files of a folder as an initramfs.
fn archive(folder: &Path, names: &[&str]) -> Vec<u8> {
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "-o", "-H", "newc"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut cpio = cpio.spawn().expect("cpio starts: the package is cpio");
    let mut input = cpio.stdin.take().expect("its input is a pipe");
    input.write_all(names.join("\n").as_bytes()).expect("cpio reads");
    drop(input);
    let mut bytes = Vec::new();
    cpio.stdout.take().expect("its output is a pipe").read_to_end(&mut bytes).expect("cpio writes");
    assert!(cpio.wait().expect("a child").success(), "cpio fails");
    bytes
}

/// The initramfs that all guests have in common.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        run(&mut Command::new(workspace().join("scripts/guest-image")));
        let folder = std::env::temp_dir().join(format!("vstest-image-{}", std::process::id()));
        fs::create_dir_all(folder.join("bin")).expect("a folder can be made");
        // Without what debuggers want it is a tenth.
        run(Command::new("strip").arg("-o").arg(folder.join("bin/netprobe")).arg(binary("netprobe")));
        let base = fs::read(workspace().join("build/guest/image/base.cpio")).expect("just made");
        let image = [base, archive(&folder, &["bin/netprobe"])].concat();
        let _ = fs::remove_dir_all(folder);
        image
    })
}
