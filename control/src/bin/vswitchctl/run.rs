//! What each command does: ask the switch, and say how the answer looks to people and to programs.

use std::io::Read;
use std::path::Path;

use clap::CommandFactory;
use control::api::*;
use control::client::{Client, ClientError};
use control::schema::{Bridge, ConfigError, Place, StaticEntry, VlanId};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::{
    BridgeArgs, BridgeCommand, Cli, Command, FdbCommand, FlowCommand, PortCommand, TraceArgs, WorkerCommand,
};
use crate::capture::{self, CaptureError};
use crate::overlay_args::{NeighbourCommand, TunnelCommand};
use crate::table::Style;
use crate::{overlay, show};

/// What a command puts out.
#[derive(Debug)]
pub(crate) struct Output {
    /// For people.
    pub(crate) text: String,
    /// For programs.
    pub(crate) json: Value,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line cannot be carried out, whatever the switch says.
    #[error("{0}")]
    Usage(String),
    /// The switch refused, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The switch refused a document, whose lines are shown.
    #[error("{}", show_mistakes(.error, .text))]
    Document { error: Box<ApiError>, text: String },
    /// A file of ours.
    #[error("cannot read {0}: {1}")]
    Read(String, std::io::Error),
    /// A line of a file of ours.
    #[error("{file}:{line}: {what}\n  fix: correct the line; nothing was loaded")]
    Line { file: String, line: u32, what: String },
    /// The switch refused entries of a file of ours.
    #[error("{}", show_entries(.0))]
    Entries(Box<ApiError>),
    /// A capture file.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The result cannot be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
}

impl Failure {
    /// The error as the API would write it, for `--json`.
    pub(crate) fn json(&self) -> Value {
        match self {
            Failure::Client(ClientError::Switch(error))
            | Failure::Document { error, .. }
            | Failure::Entries(error) => {
                json!({ "error": error })
            }
            other => json!({ "error": { "message": other.to_string() } }),
        }
    }
}

/// Carries a command out.
pub(crate) fn run(cli: &Cli, style: Style) -> Result<Output, Failure> {
    match &cli.command {
        Command::Completions { shell } => return completions(*shell),
        Command::Man { directory } => return man(directory.as_deref()),
        _ => {}
    }
    // Whatever is wrong with the command line or a file is said before the switch is asked.
    let plan = plan(&cli.command)?;
    let mut client = Client::connect(&cli.socket, cli.timeout)?;
    plan(&mut client, style)
}

/// A command that is ready to be asked.
type Plan = Box<dyn FnOnce(&mut Client, Style) -> Result<Output, Failure>>;

/// A call whose answer is shown by a function.
fn ask<M: Method + 'static>(request: M, show: impl FnOnce(&M::Response, Style) -> String + 'static) -> Plan {
    Box::new(move |client, style| {
        let answer = client.call(&request)?;
        Ok(output(&answer, show(&answer, style)))
    })
}

/// An edit of the desired state.
fn edit<M: Method<Response = Applied> + 'static>(request: M) -> Plan {
    ask(request, |applied, _| show::applied(applied, false))
}

fn output(answer: &impl Serialize, text: String) -> Output {
    Output { text, json: serde_json::to_value(answer).unwrap_or(Value::Null) }
}

fn plan(command: &Command) -> Result<Plan, Failure> {
    Ok(match command {
        Command::Status => ask(GetStatus {}, show::status),
        Command::Apply { file, dry_run } => apply(file, *dry_run)?,
        Command::Diff { file } => diff(file)?,
        Command::Export => ask(Export {}, |exported, _| exported.config.clone()),
        Command::Rollback { dry_run } => {
            let dry_run = *dry_run;
            ask(Rollback { dry_run }, move |applied, _| show::applied(applied, dry_run))
        }
        Command::Port(command) => port(command)?,
        Command::Bridge(command) => bridge(command),
        Command::Fdb(command) => fdb(command)?,
        Command::Tunnel(command) => tunnel(command),
        Command::Neighbour(NeighbourCommand::List { bridge, vlan, ip, mac }) => {
            let request =
                NeighbourList { bridge: bridge.clone(), vlan: *vlan, ip: *ip, mac: *mac, after: None };
            Box::new(move |client, style| {
                let rows = client.neighbours(&request)?;
                Ok(output(&rows, overlay::neighbours(&rows, style)))
            })
        }
        Command::Events { after } => {
            ask(Events { after: *after }, |events, style| overlay::events(events, style))
        }
        Command::Flow(FlowCommand::List { port, worker, limit }) => {
            let request = FlowList { port: port.clone(), worker: *worker, limit: *limit };
            Box::new(move |client, style| {
                let page = client.call(&request)?;
                Ok(output(&page.flows, show::flows(&page, style)))
            })
        }
        Command::Worker(command) => worker(command),
        Command::Drops { port } => {
            ask(DropsList { port: port.clone() }, |rows, style| show::drops(rows, style))
        }
        Command::Trace(arguments) => ask(trace(arguments)?, show::traced),
        Command::Completions { .. } | Command::Man { .. } => {
            return Err(Failure::Usage("this command asks no switch".to_owned()));
        }
    })
}

fn apply(file: &Path, dry_run: bool) -> Result<Plan, Failure> {
    let (config, file) = document(file)?;
    Ok(Box::new(move |client, _| {
        let request = Apply { config, file, dry_run };
        let applied = client.call(&request).map_err(|error| explain(error, request.config))?;
        Ok(output(&applied, show::applied(&applied, dry_run)))
    }))
}

fn diff(file: &Path) -> Result<Plan, Failure> {
    let (config, file) = document(file)?;
    Ok(Box::new(move |client, _| {
        let request = Diff { config, file };
        let applied = client.call(&request).map_err(|error| explain(error, request.config))?;
        Ok(output(&applied, show::applied(&applied, true)))
    }))
}

/// The text of a document, and what errors call it.
fn document(file: &Path) -> Result<(String, String), Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| Failure::Read(name.clone(), error))?;
    Ok((text, name))
}

/// A refusal that points into a document takes the document along.
fn explain(error: ClientError, text: String) -> Failure {
    match error {
        ClientError::Switch(error) if !error.data.errors.is_empty() => Failure::Document { error, text },
        other => Failure::Client(other),
    }
}

/// Each mistake with the line that it is on.
fn show_mistakes(error: &ApiError, text: &str) -> String {
    let mut shown = "the configuration is refused, and the switch is as it was".to_owned();
    for mistake in &error.data.errors {
        shown.push_str(&format!("\n{mistake}"));
        let line = (mistake.line as usize).checked_sub(1).and_then(|index| text.lines().nth(index));
        if let Some(line) = line.filter(|line| line.chars().count() <= 160) {
            let line = line.replace('\t', " ");
            let indent = " ".repeat((mistake.column as usize).saturating_sub(1));
            shown.push_str(&format!(
                "\n{:>5} | {}\n      | {indent}^",
                mistake.line,
                crate::table::printable(&line)
            ));
        }
    }
    shown
}

fn port(command: &PortCommand) -> Result<Plan, Failure> {
    Ok(match command {
        PortCommand::List { bridge } => {
            ask(PortList { bridge: bridge.clone() }, |rows, style| show::ports(rows, style))
        }
        PortCommand::Show { name } => ask(PortShow { name: name.clone() }, show::port),
        PortCommand::Add(arguments) => edit(PortAdd { port: arguments.port().map_err(Failure::Usage)? }),
        PortCommand::Del { name } => edit(PortDel { name: name.clone() }),
    })
}

fn bridge(command: &BridgeCommand) -> Plan {
    match command {
        BridgeCommand::List => ask(BridgeList {}, |rows, style| show::bridges(rows, style)),
        BridgeCommand::Show { name } => ask(BridgeShow { name: name.clone() }, show::bridge),
        BridgeCommand::Add(arguments) => edit(BridgeAdd { bridge: new_bridge(arguments) }),
        BridgeCommand::Del { name } => edit(BridgeDel { name: name.clone() }),
    }
}

fn new_bridge(arguments: &BridgeArgs) -> Bridge {
    let default = Bridge::new(arguments.name.clone());
    Bridge {
        ageing_s: arguments.ageing_s.unwrap_or(default.ageing_s),
        fdb_limit: arguments.fdb_limit,
        flood_unknown: !arguments.no_flood_unknown,
        flood_broadcast: !arguments.no_flood_broadcast,
        flood_multicast: !arguments.no_flood_multicast,
        vni: arguments.vni,
        vlan_vni: arguments.vlan_vni.iter().copied().collect(),
        tunnels: arguments.tunnels.clone(),
        addresses: arguments.address.clone(),
        ..default
    }
}

fn fdb(command: &FdbCommand) -> Result<Plan, Failure> {
    Ok(match command {
        FdbCommand::List { bridge, port, tunnel, remote, vlan, mac } => {
            let (bridge, port, tunnel) = (bridge.clone(), port.clone(), tunnel.clone());
            let (remote, vlan, mac) = (*remote, *vlan, *mac);
            let request = FdbList { bridge, port, tunnel, remote, vlan, mac, after: None };
            Box::new(move |client, style| {
                let rows = client.fdb(&request)?;
                Ok(output(&rows, show::fdb(&rows, style)))
            })
        }
        FdbCommand::Add { mac, bridge, vlan, port, tunnel, remote } => {
            if !mac.is_station() {
                let message = format!("{mac} is not the address of a station and cannot be bound to a port");
                return Err(Failure::Usage(message));
            }
            let place = match (port, tunnel, remote) {
                (Some(port), ..) => Place::Port(port.clone()),
                (None, Some(tunnel), Some(remote)) => {
                    Place::Remote { tunnel: tunnel.clone(), remote: *remote }
                }
                _ => return Err(Failure::Usage("name `--port`, or `--tunnel` and `--remote`".to_owned())),
            };
            let vlan = VlanId::new(*vlan).ok();
            edit(FdbAdd { entry: StaticEntry { bridge: bridge.clone(), vlan, mac: *mac, place } })
        }
        FdbCommand::Load { file, origin, replace } => {
            let (entries, lines) = entries(file)?;
            let request = FdbLoad { origin: origin.clone(), replace: *replace, entries };
            Box::new(move |client, _| {
                let loaded = client.call(&request).map_err(|error| lines.point(error))?;
                Ok(output(&loaded, overlay::loaded(&loaded)))
            })
        }
        FdbCommand::Del { mac, bridge, vlan } => {
            edit(FdbDel { entry: FdbKey { bridge: bridge.clone(), vlan: *vlan, mac: *mac } })
        }
        FdbCommand::Flush { bridge, port, vlan } => {
            let request = FdbFlush { bridge: bridge.clone(), port: port.clone(), vlan: *vlan };
            ask(request, |flushed, _| format!("{} addresses forgotten\n", flushed.removed))
        }
    })
}

/// The lines of a file that entries are on, in the order of these.
struct Lines {
    file: String,
    numbers: Vec<u32>,
}

impl Lines {
    /// A refusal of entries, which the switch numbers, in terms of the file.
    fn point(&self, error: ClientError) -> Failure {
        let ClientError::Switch(mut error) = error else { return Failure::Client(error) };
        if error.data.errors.is_empty() {
            return Failure::Client(ClientError::Switch(error));
        }
        for mistake in &mut error.data.errors {
            mistake.file.clone_from(&self.file);
            let entry = (mistake.line as usize).checked_sub(1);
            mistake.line = entry.and_then(|entry| self.numbers.get(entry)).copied().unwrap_or(0);
        }
        Failure::Entries(error)
    }
}

/// The entries of a file, one a line.
fn entries(file: &Path) -> Result<(Vec<FdbEntry>, Lines), Failure> {
    let (text, file) = document(file)?;
    let (mut entries, mut numbers) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let entry = serde_json::from_str(line).map_err(|error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let what = error.to_string();
            let what = what.strip_suffix(&place).unwrap_or(&what).to_owned();
            Failure::Line { file: file.clone(), line: number, what }
        })?;
        entries.push(entry);
        numbers.push(number);
    }
    Ok((entries, Lines { file, numbers }))
}

/// Each entry that was refused, with its line.
fn show_entries(error: &ApiError) -> String {
    let line = |mistake: &ConfigError| format!("\n{mistake}");
    "nothing was loaded".to_owned() + &error.data.errors.iter().map(line).collect::<String>()
}

fn tunnel(command: &TunnelCommand) -> Plan {
    match command {
        TunnelCommand::List => ask(TunnelList {}, |rows, style| overlay::tunnels(rows, style)),
        TunnelCommand::Show { name } => ask(TunnelShow { name: name.clone() }, overlay::tunnel),
        TunnelCommand::Ping { name, remote } => {
            let request = TunnelPing { name: name.clone(), remote: *remote };
            ask(request, |answers, style| overlay::pinged(answers, style))
        }
    }
}

fn worker(command: &WorkerCommand) -> Plan {
    match command {
        WorkerCommand::List => ask(WorkerList {}, |rows, style| show::workers(rows, style)),
        WorkerCommand::Reset => ask(WorkerReset {}, |_, _| "frames and cycles count from zero\n".to_owned()),
        WorkerCommand::Rebalance { dry_run } => {
            let dry_run = *dry_run;
            ask(WorkerRebalance { dry_run }, move |result, style| show::rebalanced(result, dry_run, style))
        }
    }
}

fn trace(arguments: &TraceArgs) -> Result<Trace, Failure> {
    let hex = match (&arguments.frame.hex, &arguments.frame.pcap) {
        (Some(hex), _) => {
            let bytes = decode_hex(hex).map_err(|error| Failure::Usage(format!("--hex: {error}")))?;
            Some(encode_hex(&bytes))
        }
        (None, Some(place)) => {
            let (file, number) = capture::split(place);
            Some(encode_hex(&capture::frame(&file, number)?))
        }
        (None, None) => None,
    };
    Ok(Trace { port: arguments.port.clone(), notation: arguments.frame.notation.clone(), hex })
}

fn completions(shell: clap_complete::Shell) -> Result<Output, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vswitchctl", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    Ok(Output { json: json!(text), text })
}

fn man(directory: Option<&Path>) -> Result<Output, Failure> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).section("8").render(&mut page)?;
        let text = String::from_utf8_lossy(&page).into_owned();
        return Ok(Output { json: json!(text), text });
    };
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)?;
    let text = format!("man pages are in {}\n", directory.display());
    Ok(Output { json: json!(directory), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::schema::Config;

    #[test]
    fn mistakes_show_their_line() {
        let text = "[switch]\nworker = [1]\n";
        let errors = Config::parse(text, "s.toml").unwrap_err();
        let failure = explain(ClientError::Switch(Box::new(errors.into())), text.to_owned());
        assert_eq!(
            failure.to_string(),
            "the configuration is refused, and the switch is as it was\n\
             s.toml:2:1: [switch]: unknown key `worker`; nearest is `workers`\n    2 | worker = [1]\n      | ^"
        );
        assert_eq!(failure.json()["error"]["data"]["errors"][0]["line"], 2);
    }
}
