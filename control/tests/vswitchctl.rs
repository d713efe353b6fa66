//! The program `vswitchctl` against a socket that answers as it is told: what it writes, and how it ends.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use control::api::*;
use control::schema::{Config, ConfigError, Place, PortKind};
use serde_json::{Value, json};

/// A switch with one socket in a directory of its own; it ends with the test.
struct MockSwitch {
    directory: PathBuf,
    asked: Receiver<Call>,
}

impl MockSwitch {
    /// `answer` gives the `result` or `error` member for each call.
    fn start(test: &str, answer: impl Fn(&Call) -> Result<Value, ApiError> + Send + 'static) -> Self {
        let directory = std::env::temp_dir().join(format!("vswitchctl-{}-{test}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("socket")).unwrap();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut writer = stream.try_clone().unwrap();
                let mut reader = MessageReader::new(stream, MAX_REQUEST_BYTES);
                while let Ok(Some(line)) = reader.next_line() {
                    let request = decode_request(&line).unwrap();
                    let _ = writer.write_all(&encode_response(request.id.as_ref(), &answer(&request.call)));
                    let _ = sender.send(request.call);
                }
            }
        });
        Self { directory, asked }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Runs `vswitchctl` with this socket and the arguments between the spaces.
    fn ctl(&self, line: &str) -> Output {
        ctl(&self.socket(), line)
    }

    /// The JSON that a command writes.
    #[track_caller]
    fn json(&self, line: &str) -> Value {
        let output = self.ctl(&format!("--json {line}"));
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for MockSwitch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn ctl(socket: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchctl"));
    command.env("VSWITCH_SOCKET", socket).stdin(Stdio::null());
    command.args(line.split(' ')).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A switch that reads documents for real, and knows one port.
fn answer(call: &Call) -> Result<Value, ApiError> {
    let parsed = |text: &str, file: &str| match Config::parse(text, file) {
        Ok(_) => Ok(json!({ "changed": true, "steps": ["add port \"web1\""] })),
        Err(errors) => Err(errors.into()),
    };
    let row = json!({
        "name": "web1", "type": "tap", "bridge": "blue", "vlan": "transparent", "state": "down",
        "reason": "namespace \"web1\" does not exist", "link": "down", "mode": null, "mtu": 1500,
        "mac": "02:00:00:00:00:01", "queues": 1, "rx_frames": 5, "rx_bytes": 300, "tx_frames": 7,
        "tx_bytes": 420, "drops": 3, "member_of_a_later_version": true,
    });
    match call {
        Call::Apply(apply) => parsed(&apply.config, &apply.file),
        Call::Diff(diff) => parsed(&diff.config, &diff.file),
        Call::Export(_) => Ok(json!({ "config": "[[bridge]]\nname = \"blue\"\n" })),
        Call::PortList(_) => Ok(json!([row])),
        Call::PortShow(show) => Err(ApiError::not_found("port", show.name.as_str(), ["web1"])),
        Call::PortAdd(_) | Call::PortDel(_) | Call::BridgeAdd(_) | Call::BridgeDel(_) => {
            Ok(json!({ "changed": true, "steps": ["a step"] }))
        }
        Call::FdbLoad(load) if load.origin == "wrong" => {
            let mut error = ApiError::new(ErrorCode::InvalidParams, "nothing was loaded");
            error.data.errors.push(ConfigError {
                file: "entries".to_owned(),
                line: 2,
                column: 1,
                object: "02:00:00:00:00:02".to_owned(),
                message: "no such port".to_owned(),
                hint: None,
            });
            Err(error)
        }
        Call::FdbLoad(_) => Ok(json!({ "changed": 2, "unchanged": 1, "removed": 0 })),
        Call::TunnelList(_) => {
            Ok(json!([{ "name": "dc1", "type": "vxlan", "underlay": "core", "state": "down",
            "reason": "no route", "local": null, "remotes": [] }]))
        }
        Call::NeighbourList(_) => Ok(json!({ "entries": [{ "bridge": "blue", "vlan": 0, "ip": "10.1.0.11",
            "mac": "02:00:00:00:00:01", "port": null, "tunnel": "dc1", "remote": "192.0.2.2", "origin": "arp",
            "age_s": 3 }], "next": null })),
        Call::Events(_) => {
            Ok(json!([{ "number": 1, "time": "2026-01-31T12:00:00.250Z", "kind": "duplicate-ip",
            "objects": ["neighbour 10.1.0.11", "bridge \"blue\""] }]))
        }
        Call::FdbAdd(_) | Call::FdbDel(_) => Ok(json!({ "changed": true, "steps": ["a step"] })),
        Call::FdbList(_) => {
            Ok(json!({ "entries": [{ "bridge": "blue", "vlan": 0, "mac": "02:00:00:00:00:01",
            "port": "web1", "kind": "learned", "age_s": 3 }], "next": null }))
        }
        Call::DropsList(_) => {
            Ok(json!([{ "port": "web1", "reason": "mtu", "frames": 3, "description": "too long" }]))
        }
        Call::FlowList(_) => Ok(json!({ "flows": [], "total": 0 })),
        Call::WorkerReset(_) => Ok(json!({})),
        Call::WorkerRebalance(_) => Ok(json!({ "moves": [], "before": [0.5], "after": [0.5] })),
        Call::Trace(trace) => Ok(json!({
            "stages": [{ "name": "parse", "read": trace.hex.clone().or(trace.notation.clone()), "decided": "ok" }],
            "key": "k", "mask": "m", "cached": false, "verdict": "forward", "reason": null,
            "outputs": [{ "port": "web2", "frame_hex": "00ff" }],
        })),
        other => Err(ApiError::new(ErrorCode::Internal, format!("{} is not mocked", other.name()))),
    }
}

#[test]
fn tables_for_people() {
    let switch = MockSwitch::start("tables", answer);
    let output = switch.ctl("port list");
    assert!(output.status.success());
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("NAME  TYPE  BRIDGE  VLAN         STATE  LINK  MODE   MTU  MAC"), "{text}");
    assert!(
        lines[1].starts_with("web1  tap   blue    transparent  down   down  -     1500  02:00:00"),
        "{text}"
    );
    assert!(lines[1].ends_with("namespace \"web1\" does not exist"), "{text}");
    assert!(!text.contains('\x1b'), "no colours into a pipe");
    let text = stdout(&switch.ctl("drops"));
    assert_eq!(text, "PORT  REASON  FRAMES  MEANING\nweb1  mtu          3  too long\n");
    assert_eq!(stdout(&switch.ctl("flow list")), "no flows\n");
    let text = stdout(&switch.ctl("tunnel list"));
    assert!(text.lines().nth(1).unwrap().ends_with("no route"), "{text}");
    let text = stdout(&switch.ctl("neighbour list"));
    assert!(text.contains("10.1.0.11  02:00:00:00:00:01  dc1 192.0.2.2  arp     3 s"), "{text}");
    let text = stdout(&switch.ctl("events"));
    assert!(
        text.ends_with("2026-01-31T12:00:00.250Z  duplicate-ip  neighbour 10.1.0.11, bridge \"blue\"\n"),
        "{text}"
    );
    assert_eq!(stdout(&switch.ctl("export")), "[[bridge]]\nname = \"blue\"\n");
}

#[test]
fn json_for_programs() {
    let switch = MockSwitch::start("json", answer);
    let ports = switch.json("port list");
    assert_eq!(
        (&ports[0]["type"], &ports[0]["state"], &ports[0]["rx_frames"]),
        (&json!("tap"), &json!("down"), &json!(5))
    );
    assert_eq!(switch.json("fdb list")[0]["kind"], "learned");
    assert_eq!(
        switch.json("drops")[0],
        json!({ "port": "web1", "reason": "mtu", "frames": 3, "description": "too long" })
    );
    assert_eq!(switch.json("flow list"), json!([]));
    assert_eq!(switch.json("neighbour list")[0]["origin"], "arp");
    assert_eq!(switch.json("events")[0]["kind"], "duplicate-ip");
    assert_eq!(switch.json("trace web1 --hex 00:FF")["stages"][0]["read"], "00ff");
    assert_eq!(switch.json("port del web1"), json!({ "changed": true, "steps": ["a step"] }));
}

#[test]
fn edits_reach_the_switch() {
    let switch = MockSwitch::start("edits", answer);
    let calls = [
        "port add web1 --bridge blue --type tap --netns n --vlan 10",
        "port del web1",
        "bridge add red --ageing-s 5 --no-flood-unknown",
        "bridge del red",
        "fdb add 02:00:00:00:00:01 --bridge blue --port web1",
        "fdb del 02:00:00:00:00:01 --bridge blue --vlan 10",
        "worker reset",
        "worker rebalance --dry-run",
        "bridge add red --vlan-vni 10=5010,20=5020 --tunnels dc1,dc2 --address 10.1.0.1/24",
        "fdb add 02:00:00:00:00:01 --bridge blue --tunnel dc1 --remote 192.0.2.2",
    ];
    for line in calls {
        let output = switch.ctl(line);
        assert!(output.status.success(), "{line}: {}", stderr(&output));
    }
    let asked: Vec<Call> = switch.asked.try_iter().collect();
    assert_eq!(asked.len(), calls.len());
    let Call::PortAdd(add) = &asked[0] else { panic!("{:?}", asked[0]) };
    assert!(matches!(&add.port.kind, PortKind::Tap(tap) if tap.endpoint.ifname == "eth0"));
    let Call::BridgeAdd(add) = &asked[2] else { panic!("{:?}", asked[2]) };
    assert!(add.bridge.ageing_s == 5 && !add.bridge.flood_unknown && add.bridge.flood_broadcast);
    let Call::FdbDel(del) = &asked[5] else { panic!("{:?}", asked[5]) };
    assert_eq!(del.entry.vlan, 10);
    assert_eq!(asked[7], Call::WorkerRebalance(WorkerRebalance { dry_run: true }));
    let Call::BridgeAdd(add) = &asked[8] else { panic!("{:?}", asked[8]) };
    assert_eq!((add.bridge.vnis().count(), add.bridge.tunnels.as_ref().map(Vec::len)), (2, Some(2)));
    assert_eq!(add.bridge.addresses.len(), 1);
    let Call::FdbAdd(add) = &asked[9] else { panic!("{:?}", asked[9]) };
    assert!(matches!(&add.entry.place, Place::Remote { tunnel, .. } if *tunnel == "dc1"));
}

#[test]
fn entries_are_loaded_in_one_request() {
    let switch = MockSwitch::start("load", answer);
    let file = switch.directory.join("entries");
    let good = r#"{"bridge":"blue","mac":"02:00:00:00:00:01","port":"web1"}"#;
    let far = r#"{"bridge":"blue","vlan":7,"mac":"02:00:00:00:00:02","tunnel":"dc1","remote":"192.0.2.2","ip":"10.1.0.2"}"#;
    std::fs::write(&file, format!("{good}\n\n{far}\n")).unwrap();
    let line = format!("fdb load {} --origin cni --replace", file.display());
    assert_eq!(stdout(&switch.ctl(&line)), "2 entries loaded, 1 were there already, 0 removed\n");
    let Call::FdbLoad(load) = switch.asked.recv().unwrap() else { panic!("another call") };
    assert!(load.replace && load.origin == "cni" && load.entries.len() == 2);
    assert_eq!(load.entries[1].ip, "10.1.0.2".parse().ok());

    std::fs::write(&file, format!("{good}\n{}\n", far.replace("remote", "remoet"))).unwrap();
    let output = switch.ctl(&line);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let wanted = format!("error: {}:2: unknown field `remoet`, expected one of `bridge`", file.display());
    assert!(text.starts_with(&wanted) && !text.contains("at line 1"), "{text}");
    assert_eq!(switch.asked.try_iter().count(), 0);

    std::fs::write(&file, format!("{good}\n\n{far}\n")).unwrap();
    let output = switch.ctl(&format!("fdb load {} --origin wrong", file.display()));
    assert_eq!(output.status.code(), Some(1));
    let wanted =
        format!("error: nothing was loaded\n{}:3:1: 02:00:00:00:00:02: no such port\n", file.display());
    assert_eq!(stderr(&output), wanted);
}

#[test]
fn documents_are_sent_and_their_mistakes_shown() {
    let switch = MockSwitch::start("documents", answer);
    let good = switch.directory.join("good.toml");
    std::fs::write(&good, "[switch]\nworkers = [0]\n").unwrap();
    let output = switch.ctl(&format!("apply --dry-run {}", good.display()));
    assert_eq!(stdout(&output), "would be done:\n  add port \"web1\"\n");
    assert_eq!(stdout(&switch.ctl(&format!("apply {}", good.display()))), "done:\n  add port \"web1\"\n");

    let bad = switch.directory.join("bad.toml");
    std::fs::write(&bad, "[switch]\nworkes = [0]\n").unwrap();
    let output = switch.ctl(&format!("diff {}", bad.display()));
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let place = format!("{}:2:1: [switch]: unknown key `workes`; nearest is `workers`", bad.display());
    assert!(text.contains(&place) && text.contains("    2 | workes = [0]\n      | ^"), "{text}");
    let output = switch.ctl(&format!("--json apply {}", bad.display()));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["data"]["errors"][0]["line"], 2);

    let output = switch.ctl("apply /does/not/exist.toml");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot read /does/not/exist.toml: No such file"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn refusals_say_what_to_do() {
    let switch = MockSwitch::start("refusals", answer);
    let output = switch.ctl("port show wbe1");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "error: port \"wbe1\" does not exist\n  fix: nearest is \"web1\"\n");
    let output = switch.ctl("--json port show wbe1");
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (&error["error"]["code"], &error["error"]["data"]["object"]),
        (&json!(2), &json!("port \"wbe1\""))
    );
}

#[test]
fn wrong_usage_ends_with_2_and_asks_nothing() {
    let switch = MockSwitch::start("usage", answer);
    for (line, what) in [
        ("prot list", "port"),
        ("port add web1 --bridge blue --type tap --driver afxdp", "no key of a tap port"),
        ("fdb add ff:ff:ff:ff:ff:ff --bridge b --port p", "not the address of a station"),
        ("trace web1 --hex 0x", "no hexadecimal digit"),
        ("port del web1 --watch", "--watch repeats"),
        ("trace web1", "required"),
    ] {
        let output = switch.ctl(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(stderr(&output).contains(what), "{line}: {}", stderr(&output));
    }
    assert_eq!(switch.asked.try_iter().count(), 0);
}

#[test]
fn no_daemon_is_explained() {
    let output = ctl(Path::new("/does/not/exist"), "status");
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("no switch listens at /does/not/exist") && text.contains("fix: start it"),
        "{text}"
    );
}

#[test]
fn watch_shows_again() {
    let switch = MockSwitch::start("watch", answer);
    let mut child = Command::new(env!("CARGO_BIN_EXE_vswitchctl"))
        .args(["--json", "--watch", "0.01", "port", "list", "--socket"])
        .arg(switch.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        let call = switch.asked.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        assert_eq!(call, Call::PortList(PortList::default()));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn completions_and_man_pages() {
    let nowhere = Path::new("/does/not/exist");
    for shell in ["bash", "zsh", "fish"] {
        let output = ctl(nowhere, &format!("completions {shell}"));
        assert!(output.status.success() && stdout(&output).contains("rebalance"), "{shell}");
    }
    let output = ctl(nowhere, "man");
    assert!(stdout(&output).contains(".TH vswitchctl 8"), "{}", stdout(&output));
    let directory = std::env::temp_dir().join(format!("vswitchctl-{}-man", std::process::id()));
    let output = ctl(nowhere, &format!("man {}", directory.display()));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(std::fs::read_dir(&directory).unwrap().count() > 10);
    std::fs::remove_dir_all(directory).unwrap();
}
