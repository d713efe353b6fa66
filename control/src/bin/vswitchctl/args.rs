//! The command line: nouns and verbs, as clap sees them.
//!
//! Only the grammar is here; what a command does is in `run`, how its result looks in `show`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use control::MacAddress;
use control::client::DEFAULT_SOCKET;
use control::schema::{BridgeName, IpPrefix, OriginName, PortName, TunnelName, VlanId, Vni};

use crate::overlay_args::{NeighbourCommand, TunnelCommand, vlan_vni, vni};
use crate::port_args::PortArgs;

/// Control a virtual switch
///
/// Every command asks the daemon vswitchd through its control socket. Exit codes: 0 done, 1 refused or failed,
/// 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "vswitchctl", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// The control socket of the daemon
    #[arg(long, global = true, help_heading = "Global options", value_name = "PATH", env = "VSWITCH_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// Write JSON for programs instead of tables for people
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Show again every so many seconds (1 if not given) until interrupted
    #[arg(long, global = true, help_heading = "Global options", value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "1", value_parser = seconds)]
    pub(crate) watch: Option<Duration>,
    /// Wait so many seconds for an answer
    #[arg(long, global = true, help_heading = "Global options", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the switch is asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the version, the memory and the frame counters of the switch
    Status,
    /// Make a TOML document the desired state, wholly or not at all
    Apply {
        /// The document; `-` reads standard input
        file: PathBuf,
        /// Show what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what `apply` of a document would change
    Diff {
        /// The document; `-` reads standard input
        file: PathBuf,
    },
    /// Write the desired state as a TOML document
    Export,
    /// Go back to the desired state before the last change
    Rollback {
        /// Show what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Ports: what is plugged into the switch
    #[command(subcommand)]
    Port(PortCommand),
    /// Bridges: broadcast domains that ports belong to
    #[command(subcommand)]
    Bridge(BridgeCommand),
    /// MAC addresses that the bridges know
    #[command(subcommand)]
    Fdb(FdbCommand),
    /// Tunnels: how other hosts are reached
    #[command(subcommand)]
    Tunnel(TunnelCommand),
    /// Which MAC addresses have which IP addresses
    #[command(subcommand)]
    Neighbour(NeighbourCommand),
    /// Show what happened of late: duplicate addresses, addresses that flap
    Events {
        /// Only those behind the event of this number
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
    },
    /// Flows that the workers have cached
    #[command(subcommand)]
    Flow(FlowCommand),
    /// Workers: the threads that move frames
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Show dropped frames by port and reason
    Drops {
        /// Only this port
        #[arg(long, value_name = "PORT")]
        port: Option<PortName>,
    },
    /// Show what the switch would do with a frame, and why, without sending it
    Trace(TraceArgs),
    /// Write a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man page, or all man pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PortCommand {
    /// List all ports
    List {
        /// Only ports of this bridge
        #[arg(long, value_name = "BRIDGE")]
        bridge: Option<BridgeName>,
    },
    /// Show everything about one port
    Show {
        /// The port
        name: PortName,
    },
    /// Add a port to the desired state, and open it
    Add(Box<PortArgs>),
    /// Remove a port, and its interface where the switch made it
    #[command(visible_alias = "delete")]
    Del {
        /// The port
        name: PortName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BridgeCommand {
    /// List all bridges
    List,
    /// Show everything about one bridge
    Show {
        /// The bridge
        name: BridgeName,
    },
    /// Add a bridge to the desired state
    Add(BridgeArgs),
    /// Remove a bridge that has no ports
    #[command(visible_alias = "delete")]
    Del {
        /// The bridge
        name: BridgeName,
    },
}

/// The keys of `[[bridge]]`.
#[derive(Debug, Args)]
pub(crate) struct BridgeArgs {
    /// The name of the new bridge
    pub(crate) name: BridgeName,
    /// Forget a MAC that was silent so long; 0: never
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ageing_s: Option<u32>,
    /// Learn at most so many MACs
    #[arg(long, value_name = "ENTRIES")]
    pub(crate) fdb_limit: Option<u32>,
    /// Drop unicast to unknown MACs instead of flooding it
    #[arg(long)]
    pub(crate) no_flood_unknown: bool,
    /// Drop broadcast instead of flooding it
    #[arg(long)]
    pub(crate) no_flood_broadcast: bool,
    /// Drop multicast instead of flooding it
    #[arg(long)]
    pub(crate) no_flood_multicast: bool,
    /// Join it with bridges of other hosts by this VNI
    #[arg(long, value_name = "VNI", value_parser = vni, conflicts_with = "vlan_vni")]
    pub(crate) vni: Option<Vni>,
    /// Join VLANs of it with other hosts: 10=5010,20=5020
    #[arg(long, value_name = "VLAN=VNI", value_delimiter = ',', value_parser = vlan_vni)]
    pub(crate) vlan_vni: Vec<(VlanId, Vni)>,
    /// Only by these tunnels; if not given, by all that carry the VNI
    #[arg(long, value_name = "TUNNELS", value_delimiter = ',')]
    pub(crate) tunnels: Option<Vec<TunnelName>>,
    /// An address of the switch in it, with prefix length; may be repeated
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) address: Vec<IpPrefix>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FdbCommand {
    /// List MAC addresses
    List {
        /// Only this bridge
        #[arg(long, value_name = "BRIDGE")]
        bridge: Option<BridgeName>,
        /// Only this port
        #[arg(long, value_name = "PORT")]
        port: Option<PortName>,
        /// Only this tunnel
        #[arg(long, value_name = "TUNNEL")]
        tunnel: Option<TunnelName>,
        /// Only this remote
        #[arg(long, value_name = "ADDRESS")]
        remote: Option<IpAddr>,
        /// Only this VLAN; 0: untagged frames of ports without VLAN settings
        #[arg(long, value_name = "VLAN")]
        vlan: Option<u16>,
        /// Only this address
        #[arg(long, value_name = "MAC")]
        mac: Option<MacAddress>,
    },
    /// Add a static entry: this address is behind that port, or behind that remote of a tunnel
    Add {
        /// The address
        mac: MacAddress,
        /// The bridge
        #[arg(long, value_name = "BRIDGE")]
        bridge: BridgeName,
        /// The VLAN; 0: untagged frames of ports without VLAN settings
        #[arg(long, value_name = "VLAN", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4094))]
        vlan: u16,
        /// The port
        #[arg(long, value_name = "PORT", required_unless_present = "tunnel", conflicts_with = "tunnel")]
        port: Option<PortName>,
        /// The tunnel
        #[arg(long, value_name = "TUNNEL", requires = "remote")]
        tunnel: Option<TunnelName>,
        /// The remote of the tunnel
        #[arg(long, value_name = "ADDRESS", requires = "tunnel")]
        remote: Option<IpAddr>,
    },
    /// Load entries that a controller knows of, all in one change or none
    ///
    /// They are no part of the desired state: they stay when this command has ended, until the same origin replaces them,
    /// and are gone when vswitchd ends. A remote that the tunnel is not configured with becomes one of its remotes, as
    /// long as an entry names it. With "mac": "00:00:00:00:00:00", what is flooded goes to the remote, too.
    Load {
        /// Lines of JSON: {"bridge", "vlan"?, "mac", "port" or "tunnel" and "remote", "ip"?}; `-` reads standard input
        file: PathBuf,
        /// Whose entries they are
        #[arg(long, value_name = "NAME")]
        origin: OriginName,
        /// Remove all other entries of this origin
        #[arg(long)]
        replace: bool,
    },
    /// Remove a static entry
    #[command(visible_alias = "delete")]
    Del {
        /// The address
        mac: MacAddress,
        /// The bridge
        #[arg(long, value_name = "BRIDGE")]
        bridge: BridgeName,
        /// The VLAN; 0: untagged frames of ports without VLAN settings
        #[arg(long, value_name = "VLAN", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4094))]
        vlan: u16,
    },
    /// Forget learned addresses
    Flush {
        /// Only of this bridge
        #[arg(long, value_name = "BRIDGE")]
        bridge: Option<BridgeName>,
        /// Only of this port
        #[arg(long, value_name = "PORT")]
        port: Option<PortName>,
        /// Only of this VLAN
        #[arg(long, value_name = "VLAN")]
        vlan: Option<u16>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FlowCommand {
    /// List cached flows
    List {
        /// Only flows that come from this port
        #[arg(long, value_name = "PORT")]
        port: Option<PortName>,
        /// Only flows of this worker
        #[arg(long, value_name = "WORKER")]
        worker: Option<u32>,
        /// At most so many
        #[arg(long, value_name = "FLOWS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List workers with their load
    List,
    /// Count frames and cycles from zero
    Reset,
    /// Spread queues over workers by their load
    Rebalance {
        /// Show what would move, and move nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// The port that the frame comes from
    pub(crate) port: PortName,
    #[command(flatten)]
    pub(crate) frame: TraceFrame,
}

/// The frame to trace, in one of three ways.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TraceFrame {
    /// The frame in words: 'eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02) ipv4(dst=10.0.0.2) tcp(dport=80)'
    #[arg(value_name = "FRAME")]
    pub(crate) notation: Option<String>,
    /// The frame as hexadecimal bytes from the Ethernet header on
    #[arg(long, value_name = "HEX")]
    pub(crate) hex: Option<String>,
    /// Frame N (from 1; 1 if not given) of a pcap or pcapng file
    #[arg(long, value_name = "FILE[:N]")]
    pub(crate) pcap: Option<String>,
}

impl Command {
    /// True if the command may be repeated: it changes nothing.
    pub(crate) fn reads_only(&self) -> bool {
        use Command::*;
        match self {
            Status | Diff { .. } | Export | Drops { .. } | Trace(_) | Flow(FlowCommand::List { .. }) => true,
            Apply { dry_run, .. } | Rollback { dry_run } => *dry_run,
            Port(command) => matches!(command, PortCommand::List { .. } | PortCommand::Show { .. }),
            Bridge(command) => matches!(command, BridgeCommand::List | BridgeCommand::Show { .. }),
            Fdb(command) => matches!(command, FdbCommand::List { .. }),
            Tunnel(command) => !matches!(command, TunnelCommand::Ping { .. }),
            Neighbour(NeighbourCommand::List { .. }) | Events { .. } => true,
            Worker(WorkerCommand::List) => true,
            Worker(WorkerCommand::Rebalance { dry_run }) => *dry_run,
            Worker(WorkerCommand::Reset) | Completions { .. } | Man { .. } => false,
        }
    }
}

/// Positive seconds, with a fraction if need be.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "seconds are a number like 2 or 0.5".to_owned())?;
    if (0.01..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("seconds are from 0.01 to 86400".to_owned())
    }
}

/// Joins `--watch 2` to `--watch=2`: clap would else take the noun of `--watch port list` for the seconds.
pub(crate) fn join_watch(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter().peekable();
    let mut joined = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            joined.push(argument);
            joined.extend(arguments);
            break;
        }
        let number = |next: &OsString| next.to_str().is_some_and(|text| text.parse::<f64>().is_ok());
        match arguments.next_if(|next| argument == "--watch" && number(next)) {
            Some(seconds) => {
                let mut both = argument;
                both.push("=");
                both.push(seconds);
                joined.push(both);
            }
            None => joined.push(argument),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(join_watch(line.split(' ').map(OsString::from)))
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn watch_takes_seconds_only_if_they_follow() {
        let watch = |line| parse(line).unwrap().watch;
        assert_eq!(watch("vswitchctl port list"), None);
        assert_eq!(watch("vswitchctl --watch port list"), Some(Duration::from_secs(1)));
        assert_eq!(watch("vswitchctl --watch 2 port list"), Some(Duration::from_secs(2)));
        assert_eq!(watch("vswitchctl port list --watch 0.5"), Some(Duration::from_millis(500)));
        assert_eq!(watch("vswitchctl port list --watch"), Some(Duration::from_secs(1)));
        assert!(parse("vswitchctl --watch 0 port list").is_err());
        assert!(parse("vswitchctl --watch=nan port list").is_err());
    }

    #[test]
    fn options_stand_before_and_after_the_command() {
        for line in ["vswitchctl --json --socket /s drops", "vswitchctl drops --socket=/s --json"] {
            let cli = parse(line).unwrap();
            assert!(cli.json && cli.socket == *"/s", "{line}");
        }
    }

    #[test]
    fn a_trace_needs_one_frame() {
        assert!(parse("vswitchctl trace web1 eth()").is_ok());
        assert!(parse("vswitchctl trace web1 --hex 00").is_ok());
        assert!(parse("vswitchctl trace web1").is_err());
        assert!(parse("vswitchctl trace web1 eth() --hex 00").is_err());
    }

    #[test]
    fn names_and_addresses_are_checked_at_once() {
        for line in [
            "vswitchctl port show a/b",
            "vswitchctl fdb add 02:00 --bridge b --port p",
            "vswitchctl fdb add 02:00:00:00:00:01 --bridge b --port p --vlan 4095",
            "vswitchctl fdb add 02:00:00:00:00:01 --port p",
            "vswitchctl fdb add 02:00:00:00:00:01 --bridge b",
            "vswitchctl fdb add 02:00:00:00:00:01 --bridge b --tunnel t",
            "vswitchctl fdb add 02:00:00:00:00:01 --bridge b --port p --tunnel t --remote 192.0.2.1",
            "vswitchctl fdb load - --replace",
            "vswitchctl bridge add b --vni 0",
            "vswitchctl bridge add b --vlan-vni 10:5010",
            "vswitchctl tunnel ping t 192.0.2",
            "vswitchctl flow list --limit 0",
            "vswitchctl completions sch",
            "vswitchctl nonsense",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn what_may_be_watched() {
        for (line, reads_only) in [
            ("status", true),
            ("port list", true),
            ("port del x", false),
            ("worker rebalance", false),
            ("worker rebalance --dry-run", true),
            ("apply f", false),
            ("apply f --dry-run", true),
            ("fdb flush", false),
            ("fdb load - --origin x", false),
            ("tunnel list", true),
            ("tunnel ping t", false),
            ("neighbour list", true),
            ("events", true),
        ] {
            assert_eq!(
                parse(&format!("vswitchctl {line}")).unwrap().command.reads_only(),
                reads_only,
                "{line}"
            );
        }
    }
}
