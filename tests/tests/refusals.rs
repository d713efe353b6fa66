//! Bad input: what cannot be done is refused with a message that names the object, the cause and the fix, and the
//! running state stays exactly as it was.

use serde_json::Value;
use vswitch_tests::lab::await_up;
use vswitch_tests::traffic::{await_ping, pings};
use vswitch_tests::{Attachment, Container, Ctl, Daemon, Lab, Refusal};

/// A running switch with two containers that reach each other, and the configuration it runs.
struct Running {
    left: Container,
    right: Container,
    configuration: String,
    daemon: Daemon,
    lab: Lab,
}

impl Running {
    fn start() -> Self {
        let lab = Lab::new("refusals");
        let left = lab.container("left", Attachment::Tap, 1500);
        let right = lab.container("right", Attachment::VethPacket, 1500);
        let configuration = Lab::configuration("[1]", &[&left, &right]);
        let daemon = lab.start(&configuration);
        await_ping(&left.namespace, right.v4);
        Self { left, right, configuration, daemon, lab }
    }

    /// All that must not change: the configuration, who is plugged in, the interfaces of the containers.
    fn state(&self) -> (String, Vec<Value>, [String; 2]) {
        let ctl = self.daemon.ctl();
        let plain = ["name", "type", "bridge", "state", "mtu", "mac", "queues"];
        let ports = ctl.rows(&["port", "list"]).into_iter();
        let ports = ports.map(|port| plain.iter().map(|field| port[*field].clone()).collect()).collect();
        let inside = |container: &Container| container.namespace.ip("-o address show eth0 scope global");
        (ctl.text(&["export"]), ports, [inside(&self.left), inside(&self.right)])
    }

    /// Applies the running configuration with `addition` behind it; it must be refused with all of `wanted` in the
    /// message and nothing changed.
    fn refuses(&mut self, what: &str, addition: &str, wanted: &[&str]) {
        let text = format!("{}{addition}", self.configuration);
        self.refuses_document(what, &text, wanted);
    }

    fn refuses_document(&mut self, what: &str, text: &str, wanted: &[&str]) {
        let before = self.state();
        let path = self.lab.write("bad.toml", text);
        let refusal = match self.daemon.ctl().attempt(&["apply", &path]) {
            Ok(answer) => panic!("{what} was accepted: {answer}"),
            Err(refusal) => refusal,
        };
        says(what, &refusal, wanted);
        assert_eq!(self.state(), before, "{what} changed the running state");
        assert!(pings(&self.left.namespace, self.right.v4), "{what} disturbed the traffic");
        self.daemon.assert_alive();
    }
}

fn says(what: &str, refusal: &Refusal, wanted: &[&str]) {
    assert_eq!(refusal.code, Some(1), "{what} should end with 1: {}", refusal.text);
    let text = refusal.text.to_lowercase();
    for part in wanted {
        assert!(
            text.contains(&part.to_lowercase()),
            "{what}: {part:?} is missing in the message: {}",
            refusal.text
        );
    }
}

/// A `[[port]]` table called `newcomer` with these lines.
fn newcomer(lines: &str) -> String {
    format!("[[port]]\nname = \"newcomer\"\nbridge = \"blue\"\n{lines}\n")
}

#[test]
fn mistakes_in_the_document_are_refused_with_their_place() {
    let mut running = Running::start();
    let line = |text: &str| format!(":{}:", running.configuration.lines().count() + text.lines().count());
    let unknown = newcomer("type = \"tap\"\nifname = \"eth7\"\nadress = [\"10.9.0.77/24\"]");
    let place = line(&unknown);
    running.refuses("an unknown key", &unknown, &["newcomer", "adress", "address", &place]);
    running.refuses("a wrong type", &newcomer("type = \"tap\"\nmtu = \"big\""), &["newcomer", "mtu"]);
    running.refuses("an unknown port type", &newcomer("type = \"tapp\""), &["newcomer", "tapp", "tap"]);
    let twice = "[[port]]\nname = \"left\"\nbridge = \"blue\"\ntype = \"null\"\n";
    running.refuses("a duplicate name", twice, &["left"]);
    running.refuses(
        "an unknown bridge",
        "[[port]]\nname = \"n\"\nbridge = \"bleu\"\ntype = \"null\"\n",
        &["bleu", "blue"],
    );
    running.refuses(
        "a VLAN too high",
        &newcomer("type = \"null\"\nvlan = 4095"),
        &["newcomer", "vlan", "4095"],
    );
    running.refuses(
        "an MTU too large",
        &newcomer("type = \"tap\"\nmtu = 70000"),
        &["newcomer", "mtu", "70000"],
    );
    running.refuses(
        "an address without sense",
        &newcomer("type = \"tap\"\naddress = [\"10.9.0.300/24\"]"),
        &["newcomer", "10.9.0.300"],
    );
    running.refuses(
        "a static entry for no port",
        "[[fdb]]\nbridge = \"blue\"\nmac = \"02:00:00:00:00:01\"\nport = \"lft\"\n",
        &["lft", "left"],
    );
    running.refuses("a broken document", "[[port]\n", &["bad.toml"]);
    running.daemon.stop();
}

#[test]
fn what_the_machine_does_not_have_is_refused() {
    let mut running = Running::start();
    let no_space = newcomer("type = \"tap\"\nnetns = \"nowhere-at-all\"");
    running.refuses("a missing namespace", &no_space, &["newcomer", "nowhere-at-all", "ip netns"]);
    let no_device = newcomer("type = \"packet\"\ndevice = \"nosuch0\"");
    running.refuses("a missing device", &no_device, &["newcomer", "nosuch0"]);
    let no_device = newcomer("type = \"afxdp\"\ndevice = \"nosuch0\"");
    running.refuses("a missing AF_XDP device", &no_device, &["newcomer", "nosuch0"]);
    let no_file = newcomer("type = \"pcap\"\nread = \"/nowhere/at/all.pcap\"");
    running.refuses("a missing capture file", &no_file, &["newcomer", "/nowhere/at/all.pcap"]);
    running.daemon.stop();
}

#[test]
fn what_overlays_cannot_do_yet_is_refused() {
    let mut running = Running::start();
    let underlay = "[[port]]\nname = \"up\"\ntype = \"afxdp\"\ndevice = \"lo\"\n\
         [[underlay]]\nname = \"core\"\nport = \"up\"\nshare = true\n";
    for key in ["bfd = true", "local = \"192.0.2.1\"\ngroup = \"239.0.0.1\""] {
        let tunnel =
            "[[tunnel]]\nname = \"dc\"\ntype = \"vxlan\"\nunderlay = \"core\"\nremote = \"192.0.2.2\"\n";
        let name = key.lines().last().and_then(|line| line.split(' ').next()).expect("a key");
        let text = format!("{underlay}{tunnel}{key}\n");
        running.refuses(key, &text, &["tunnel", "dc", &format!("`{name}`"), "leave"]);
    }
}

#[test]
fn a_cpu_that_is_not_there_is_refused() {
    let mut running = Running::start();
    let elsewhere = running.configuration.replace("workers = [1]", "workers = [1023]");
    running.refuses_document("a CPU that is not there", &elsewhere, &["1023", "workers"]);
    running.daemon.stop();
}

#[test]
fn what_is_taken_is_refused() {
    let mut running = Running::start();
    // The container has an eth0 that is not ours.
    let taken = running.lab.container("taken", Attachment::Packet, 1500);
    let name = taken.namespace.name().to_owned();
    let lines = format!("type = \"tap\"\nnetns = \"{name}\"");
    running.refuses("a name that is taken", &newcomer(&lines), &["newcomer", "eth0", &name]);
    let lines = format!("type = \"veth\"\nnetns = \"{name}\"");
    running.refuses("a name that is taken", &newcomer(&lines), &["newcomer", "eth0", &name]);
    // The host's own traffic goes over the device.
    running.lab.host.ip(&format!("address add 10.44.0.1/24 dev {}", taken.device()));
    let lines = format!("type = \"afxdp\"\ndevice = \"{}\"", taken.device());
    running.refuses(
        "a device with addresses",
        &newcomer(&lines),
        &["newcomer", &taken.device(), "exclusive", "10.44.0.1"],
    );
    running.lab.host.ip(&format!("address del 10.44.0.1/24 dev {}", taken.device()));
    let lines = format!("{lines}\nqueues = 2");
    running.refuses(
        "more queues than there are",
        &newcomer(&lines),
        &["newcomer", &taken.device(), "queues = 1"],
    );
    let bare = running.lab.container("bare", Attachment::Tap, 1500);
    let lines =
        format!("type = \"veth\"\ndriver = \"afxdp\"\nnetns = \"{}\"\nqueues = 64", bare.namespace.name());
    running.refuses("more queues than a pair can have", &newcomer(&lines), &["newcomer", "not 64"]);
    assert!(!bare.namespace.succeeds("ip link show eth0"), "a pair that was refused stayed");
    running.daemon.stop();
}

#[test]
fn a_device_that_another_switch_drives_is_refused_as_busy() {
    let mut running = Running::start();
    let taken = running.lab.container("taken", Attachment::Packet, 1500);
    let folder = running.lab.folder().join("other");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let lines = format!("type = \"afxdp\"\ndevice = \"{}\"", taken.device());
    let theirs = format!("{}{}", Lab::configuration("[0]", &[]), newcomer(&lines));
    let mut other = Daemon::start(&running.lab.host, &folder, &theirs);
    await_up(&other.ctl(), &["newcomer"]);
    running.refuses("a busy device", &newcomer(&lines), &["newcomer", &taken.device()]);
    assert_eq!(
        other.ctl().port("newcomer").expect("it is there")["state"],
        "up",
        "the other switch was disturbed"
    );
    other.stop();
    running.daemon.stop();
}

#[test]
fn one_bad_port_keeps_the_good_ones_beside_it_out() {
    let mut running = Running::start();
    let good = running.lab.container("good", Attachment::Tap, 1500);
    let bad = newcomer("type = \"tap\"\nnetns = \"nowhere-at-all\"");
    running.refuses("one good and one bad port", &format!("{}{bad}", good.port("")), &["newcomer"]);
    assert!(!good.namespace.succeeds("ip link show eth0"), "the good port's interface was left behind");
    let text = format!("{}{}", running.configuration, good.port(""));
    let path = running.lab.write("good.toml", &text);
    running.daemon.ctl().json(&["apply", &path]);
    await_ping(&running.left.namespace, good.v4);
    running.daemon.stop();
}

#[test]
fn a_dry_run_and_a_diff_change_nothing() {
    let mut running = Running::start();
    let further = running.lab.container("further", Attachment::Tap, 1500);
    let path = running.lab.write("more.toml", &format!("{}{}", running.configuration, further.port("")));
    let before = running.state();
    for command in [&["apply", "--dry-run", &path][..], &["diff", &path]] {
        let answer = running.daemon.ctl().json(command);
        assert!(answer.to_string().contains("further"), "{command:?} should name the new port: {answer}");
        assert_eq!(running.state(), before, "{command:?} changed something");
    }
    running.daemon.stop();
}

/// Starts a daemon without some privilege, as `prefix` leaves it, and has it refuse a port.
fn refused_without(prefix: &[&str], attachment: Attachment, wanted: &[&str]) {
    let lab = Lab::new("unprivileged");
    let container = lab.container("newcomer", attachment, 1500);
    let empty = Lab::configuration("[1]", &[]);
    let daemon = Daemon::attempt(&lab.host, lab.folder(), &empty, prefix);
    let mut daemon = daemon.unwrap_or_else(|failure| panic!("{failure}"));
    let path = lab.write("port.toml", &Lab::configuration("[1]", &[&container]));
    let refusal = daemon.ctl().attempt(&["apply", &path]).expect_err("it must be refused");
    says("a missing privilege", &refusal, wanted);
    assert_eq!(daemon.ctl().rows(&["port", "list"]), Vec::<Value>::new());
    daemon.stop();
}

#[test]
fn no_privilege_is_told() {
    let prefix = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    refused_without(&prefix, Attachment::Tap, &["newcomer", "CAP_NET_ADMIN"]);
}

#[test]
fn a_memory_lock_limit_is_told() {
    let prefix = [
        "setpriv",
        "--bounding-set",
        "-ipc_lock",
        "--inh-caps",
        "-ipc_lock",
        "prlimit",
        "--memlock=65536:65536",
    ];
    refused_without(&prefix, Attachment::VethAfxdp, &["newcomer", "memlock"]);
}

#[test]
fn wrong_usage_ends_with_2_and_an_absent_daemon_is_named() {
    let lab = Lab::new("usage");
    let mut daemon = lab.start(&Lab::configuration("[1]", &[]));
    let refusal = daemon.ctl().attempt(&["prot", "list"]).expect_err("there is no such command");
    assert_eq!(refusal.code, Some(2), "{}", refusal.text);
    let nobody = Ctl::new(&lab.folder().join("nobody.sock"));
    let refusal = nobody.attempt(&["status"]).expect_err("nobody listens");
    says("no daemon", &refusal, &["nobody.sock", "vswitchd"]);
    daemon.stop();
}
