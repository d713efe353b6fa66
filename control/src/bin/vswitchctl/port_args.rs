//! The options of `port add`: the keys of `[[port]]`.
//!
//! They become the same object that the API takes, and are read by the schema's own rules: a key that
//! does not belong to the type is refused here in the same words as in a document.

use clap::Args;
use control::MacAddress;
use control::schema::Port;
use serde_json::{Map, Value, json};

#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// The name of the new port
    name: String,
    /// The bridge that it belongs to
    #[arg(long, value_name = "BRIDGE")]
    bridge: String,
    /// Its type: tap, veth, afxdp, packet, pcap, null, vhost-user
    #[arg(long = "type", value_name = "TYPE")]
    port_type: String,
    /// Access port of this VLAN
    #[arg(long, value_name = "VLAN", conflicts_with = "trunk")]
    vlan: Option<u16>,
    /// Trunk that carries these VLANs: 10,20-29 or all
    #[arg(long, value_name = "VLANS")]
    trunk: Option<String>,
    /// VLAN of untagged frames on a trunk
    #[arg(long, value_name = "VLAN", requires = "trunk")]
    native_vlan: Option<u16>,
    /// Let no frame pass to or from another isolated port
    #[arg(long)]
    isolated: bool,
    /// Let frames leave by the port that they came from
    #[arg(long)]
    hairpin: bool,
    /// Learn at most so many MACs on it
    #[arg(long, value_name = "ENTRIES")]
    fdb_limit: Option<u32>,
    /// The policy group of the senders behind it, for tunnels with gbp
    #[arg(long, value_name = "GROUP")]
    policy_group: Option<u16>,
    /// Rx queues (vhost-user: queue pairs, 8 at most); if not given, all of an afxdp device and one of any other
    /// port
    #[arg(long, value_name = "QUEUES")]
    queues: Option<u16>,
    /// Workers that serve it, by their place in the list of workers: 0,1
    #[arg(long, value_name = "WORKERS", value_delimiter = ',')]
    workers: Vec<u16>,
    /// tap, veth: the namespace of the interface; afxdp, packet: of the device
    #[arg(long, value_name = "NETNS")]
    netns: Option<String>,
    /// tap, veth: the name of the interface (eth0 in a namespace)
    #[arg(long, value_name = "NAME")]
    ifname: Option<String>,
    /// tap, veth, vhost-user: the MAC address of the interface
    #[arg(long, value_name = "MAC")]
    mac: Option<MacAddress>,
    /// tap, veth, vhost-user: its MTU
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// tap, veth: an address with prefix length; may be repeated
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    address: Vec<String>,
    /// tap, veth: the default gateway; once for each of IPv4 and IPv6
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    gateway: Vec<String>,
    /// veth: what drives our end: packet, afxdp
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,
    /// afxdp, packet: the existing device
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// afxdp: auto, zero-copy, copy; vhost-user: server, client
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// vhost-user: the file of the unix socket (`socket`; --socket is the control socket)
    #[arg(long, value_name = "FILE")]
    port_socket: Option<String>,
    /// vhost-user: permissions of the socket: 0660
    #[arg(long, value_name = "MODE")]
    socket_mode: Option<String>,
    /// vhost-user: the group that the socket belongs to
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,
    /// vhost-user: whether partial checksums and frames of up to 64 KB pass
    #[arg(long, value_name = "BOOL")]
    offloads: Option<bool>,
    /// vhost-user: whether packed rings may be used
    #[arg(long, value_name = "BOOL")]
    packed: Option<bool>,
    /// afxdp, packet: take the device although the host has addresses on it
    #[arg(long)]
    exclusive: bool,
    /// pcap: the file whose frames the port receives
    #[arg(long, value_name = "FILE")]
    read: Option<String>,
    /// pcap: the file that its frames are recorded into
    #[arg(long, value_name = "FILE")]
    write: Option<String>,
    /// pcap: start again at the end of the file
    #[arg(long = "loop")]
    repeat: bool,
    /// null: frames that it receives in a second
    #[arg(long, value_name = "FRAMES")]
    rate: Option<u64>,
    /// null: bytes of those frames
    #[arg(long, value_name = "BYTES")]
    size: Option<u32>,
}

impl PortArgs {
    /// The port that the options describe, or what is wrong with them.
    pub(crate) fn port(&self) -> Result<Port, String> {
        serde_json::from_value(Value::Object(self.object())).map_err(|error| error.to_string())
    }

    fn object(&self) -> Map<String, Value> {
        let list = |items: &[String]| (!items.is_empty()).then(|| json!(items));
        let flag = |on: bool| on.then_some(Value::Bool(true));
        let text = |value: &Option<String>| value.as_ref().map(|value| json!(value));
        let fields = [
            ("name", Some(json!(self.name))),
            ("bridge", Some(json!(self.bridge))),
            ("type", Some(json!(self.port_type))),
            ("vlan", self.vlan.map(|vlan| json!(vlan))),
            ("trunk", self.trunk.as_deref().map(trunk)),
            ("native_vlan", self.native_vlan.map(|vlan| json!(vlan))),
            ("isolated", flag(self.isolated)),
            ("hairpin", flag(self.hairpin)),
            ("fdb_limit", self.fdb_limit.map(|limit| json!(limit))),
            ("policy_group", self.policy_group.map(|group| json!(group))),
            ("queues", self.queues.map(|queues| json!(queues))),
            ("workers", (!self.workers.is_empty()).then(|| json!(self.workers))),
            ("netns", text(&self.netns)),
            ("ifname", text(&self.ifname)),
            ("mac", self.mac.map(|mac| json!(mac))),
            ("mtu", self.mtu.map(|mtu| json!(mtu))),
            ("address", list(&self.address)),
            ("gateway", list(&self.gateway)),
            ("driver", text(&self.driver)),
            ("device", text(&self.device)),
            ("mode", text(&self.mode)),
            ("exclusive", flag(self.exclusive)),
            ("socket", text(&self.port_socket)),
            ("socket_mode", text(&self.socket_mode)),
            ("socket_group", text(&self.socket_group)),
            ("packed", self.packed.map(|packed| json!(packed))),
            ("offloads", self.offloads.map(|offloads| json!(offloads))),
            ("read", text(&self.read)),
            ("write", text(&self.write)),
            ("loop", flag(self.repeat)),
            ("rate", self.rate.map(|rate| json!(rate))),
            ("size", self.size.map(|size| json!(size))),
        ];
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// `all`, or numbers and ranges between commas.
fn trunk(text: &str) -> Value {
    match text {
        "all" => json!("all"),
        list => list.split(',').map(|item| json!(item.trim())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use control::schema::{PortKind, VlanMode};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        port: PortArgs,
    }

    fn port(line: &str) -> Result<Port, String> {
        Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.port.port()
    }

    #[test]
    fn options_are_keys() {
        let port = port(
            "add web1 --bridge blue --type tap --netns n --trunk 10,20-29 --native-vlan 5 --isolated --mtu 9000 \
             --mac 02:00:00:00:00:01 --address 10.1.0.11/24,fd00::1/64 --gateway 10.1.0.1 --queues 2 --workers 0,1"
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .as_str(),
        )
        .unwrap();
        let document = "name = \"web1\"\nbridge = \"blue\"\ntype = \"tap\"\nnetns = \"n\"\n\
                        trunk = [10, \"20-29\"]\nnative_vlan = 5\nisolated = true\nmtu = 9000\n\
                        mac = \"02:00:00:00:00:01\"\naddress = [\"10.1.0.11/24\", \"fd00::1/64\"]\n\
                        gateway = \"10.1.0.1\"\nqueues = 2\nworkers = [0, 1]\n";
        let text = format!("[[bridge]]\nname = \"blue\"\n[[port]]\n{document}");
        assert_eq!(port, control::schema::Config::parse(&text, "").unwrap().ports[0]);
    }

    #[test]
    fn every_option_reaches_its_type() {
        let PortKind::Pcap(pcap) =
            port("add p --bridge b --type pcap --read /a --write /b --loop").unwrap().kind
        else {
            panic!("another type")
        };
        assert!(pcap.repeat && pcap.read.is_some() && pcap.write.is_some());
        let PortKind::Null(null) = port("add p --bridge b --type null --rate 5 --size 64").unwrap().kind
        else {
            panic!("another type")
        };
        assert_eq!((null.rate, null.size), (5, 64));
        let PortKind::Afxdp(afxdp) =
            port("add p --bridge b --type afxdp --device eth1 --mode copy --exclusive").unwrap().kind
        else {
            panic!("another type")
        };
        assert!(afxdp.exclusive && afxdp.device == "eth1" && afxdp.mode.as_str() == "copy");
        let PortKind::VhostUser(vhost) =
            port("add p --bridge b --type vhost-user --port-socket /s --mode client --offloads false")
                .unwrap()
                .kind
        else {
            panic!("another type")
        };
        assert!(vhost.socket.as_os_str() == "/s" && vhost.mode.as_str() == "client" && !vhost.offloads);
        let line = "add p --bridge b --type vhost-user --port-socket /s --socket-mode 0600 --socket-group 7 --packed false";
        let PortKind::VhostUser(vhost) = port(line).unwrap().kind else { panic!("another type") };
        assert_eq!((vhost.socket_mode.bits(), vhost.socket_group.as_deref()), (0o600, Some("7")));
        assert!(vhost.offloads && !vhost.packed);
        let veth =
            port("add p --bridge b --type veth --driver afxdp --trunk all --hairpin --fdb-limit 9").unwrap();
        assert!(matches!(&veth.vlan, VlanMode::Trunk { vlans, native: None } if vlans.is_all()));
        assert!(veth.hairpin && veth.fdb_limit == Some(9));
    }

    #[test]
    fn wrong_options_are_explained_as_in_a_document() {
        let error = port("add p --bridge b --type tap --driver afxdp").unwrap_err();
        assert_eq!(error, "port \"p\": `driver` is no key of a tap port; ports of type `veth` have it");
        let error = port("add p --bridge b --type tpa").unwrap_err();
        assert!(error.contains("nearest is `tap`"), "{error}");
        let error = port("add p --bridge b --type tap --vlan 4095").unwrap_err();
        assert!(error.contains("the range is 1 to 4094"), "{error}");
        assert!(
            port("add p --bridge b --type tap --vlan 5 --trunk 6")
                .unwrap_err()
                .contains("cannot be used with")
        );
        assert!(port("add p --bridge b --type tap --trunk x").unwrap_err().contains("no range of VLANs"));
    }
}
