//! The daemon: a switch, the state that it comes back to, and the answers of the API.
//!
//! Every change goes one way: the new desired state is written beside the valid one, the switch opens all that
//! it needs for it, it becomes the valid one, and the switch changes. So a full disk changes nothing, and
//! neither does a port that cannot be opened. The imperative requests (`port.add`) edit a copy of the desired
//! state and go the same way.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use control::api::*;
use control::schema::{BridgeName, Config, HugePages, PortName, TunnelName};

use crate::config::state::Origin;
use crate::config::{Start, Store, diff, edit};
use crate::notation;
use crate::server::Backend;
use crate::switch::{
    ApplyError, AtStart, Cause, LoadError, Orphans, StartError, Switch, check, remove_orphans,
};

/// What a daemon starts with.
pub struct Options {
    /// The desired state and where it came from.
    pub start: Start,
    /// Where it is kept.
    pub store: Store,
    /// The file given at the start.
    pub config_file: Option<PathBuf>,
    /// The folder for what lives as long as the host's memory does.
    pub runtime_dir: PathBuf,
}

/// A running daemon.
pub struct Daemon {
    switch: Arc<Switch>,
    kept: Mutex<Kept>,
    config_file: Option<PathBuf>,
    source: ConfigSource,
    started: Instant,
}

/// The stored state. Locked during a change, so that changes come one after the other.
struct Kept {
    store: Store,
    origin: Origin,
}

impl Daemon {
    /// Starts the switch. New configuration is refused if it cannot be carried out; what ran before comes
    /// back as far as it can, and the rest is tried again.
    ///
    /// # Errors
    /// Memory, CPUs, ports, or the state directory.
    pub fn start(options: Options) -> Result<Arc<Daemon>, ApiError> {
        let Options { start, mut store, config_file, runtime_dir } = options;
        let at_start = match start.source {
            ConfigSource::File => AtStart::Refuse,
            ConfigSource::Stored | ConfigSource::Empty => AtStart::Retry,
        };
        let mut seed = [0; 8];
        if rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).is_err() {
            return Err(ApiError::new(ErrorCode::System, "getrandom: the kernel has no random bytes"));
        }
        // All that may refuse the start comes before the first interface that goes.
        let pending = start.unsaved.then(|| store.prepare(&start.config, start.origin)).transpose()?;
        if at_start == AtStart::Refuse {
            check(&start.config)?;
        }
        if let Some(before) = &start.before {
            remove_orphans(before, &start.config, Orphans::InTheWay);
        }
        let save = || pending.map_or(Ok(()), |pending| store.commit(pending).map_err(ApiError::from));
        let (seed, rings) = (u64::from_ne_bytes(seed), runtime_dir.join("rings"));
        let switch = Switch::start(start.config.clone(), at_start, seed, rings, save)?;
        if let Some(before) = &start.before {
            remove_orphans(before, &start.config, Orphans::Elsewhere);
        }
        Ok(Arc::new(Daemon {
            switch,
            kept: Mutex::new(Kept { store, origin: start.origin }),
            config_file,
            source: start.source,
            started: Instant::now(),
        }))
    }

    /// What the switch runs on, for the log.
    pub fn describe(&self) -> String {
        let totals = self.switch.totals();
        let pages = match totals.page_size {
            4096 if self.switch.config().switch.huge_pages == HugePages::Off => "4 KB pages",
            4096 => {
                "4 KB pages (no huge pages: reserve some through /proc/sys/vm/nr_hugepages to save TLB misses)"
            }
            _ => "2 MB pages",
        };
        let cpus: Vec<_> = self.switch.workers().iter().map(|worker| worker.cpu.to_string()).collect();
        format!("{} frames on {pages}; workers on CPU {}", totals.frames, cpus.join(", "))
    }

    /// Ends the switch; containers keep their interfaces.
    pub fn stop(&self) {
        self.switch.stop();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one way of a change.
    fn change(&self, kept: &mut Kept, wanted: Config, origin: Origin) -> Result<Applied, ApiError> {
        if wanted == self.switch.config() && origin == kept.origin {
            // Nothing for the disk either, whose `fsync` takes longer than all the rest.
            return Ok(Applied { changed: false, steps: Vec::new() });
        }
        let pending = kept.store.prepare(&wanted, origin)?;
        let store = &mut kept.store;
        let steps = self.switch.apply(wanted, || store.commit(pending).map_err(ApiError::from))?;
        kept.origin = origin;
        Ok(Applied { changed: !steps.is_empty(), steps })
    }

    fn edit(&self, edit: impl FnOnce(&Config) -> Result<Config, ApiError>) -> Result<Applied, ApiError> {
        let mut kept = self.kept();
        let wanted = edit(&self.switch.config())?;
        let origin = kept.origin.after_edit();
        self.change(&mut kept, wanted, origin)
    }

    fn preview(&self, wanted: &Config) -> Result<Applied, ApiError> {
        let steps = diff(&self.switch.config(), wanted)?;
        Ok(Applied { changed: !steps.is_empty(), steps: steps.iter().map(ToString::to_string).collect() })
    }

    fn unknown_port(&self, name: &PortName) -> ApiError {
        let config = self.switch.config();
        ApiError::not_found("port", name.as_str(), config.ports.iter().map(|port| port.name.as_str()))
    }

    /// Refuses a filter that names nothing: an empty answer would look like one.
    fn check_names(&self, bridge: Option<&BridgeName>, port: Option<&PortName>) -> Result<(), ApiError> {
        let config = self.switch.config();
        if let Some(bridge) = bridge.filter(|bridge| config.bridge(bridge.as_str()).is_none()) {
            return Err(self.unknown_bridge(bridge));
        }
        if let Some(port) = port.filter(|port| config.port(port.as_str()).is_none()) {
            return Err(self.unknown_port(port));
        }
        Ok(())
    }

    fn check_tunnel(&self, tunnel: Option<&TunnelName>) -> Result<(), ApiError> {
        let config = self.switch.config();
        match tunnel.filter(|tunnel| config.tunnel(tunnel.as_str()).is_none()) {
            Some(tunnel) => {
                let known = config.tunnels.iter().map(|tunnel| tunnel.name.as_str());
                Err(ApiError::not_found("tunnel", tunnel.as_str(), known))
            }
            None => Ok(()),
        }
    }

    fn unknown_bridge(&self, name: &BridgeName) -> ApiError {
        let config = self.switch.config();
        ApiError::not_found("bridge", name.as_str(), config.bridges.iter().map(|bridge| bridge.name.as_str()))
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> ApiError {
        let ApplyError { object, cause } = error;
        let refused = |code, cause: String| {
            let message = format!("{object}: {cause}");
            ApiError::new(code, message).object(object.clone()).cause(cause)
        };
        match cause {
            Cause::Restart(needed) => needed.into(),
            Cause::Open(cause) => refused(ErrorCode::System, cause),
            Cause::Limit { cause, fix } => refused(ErrorCode::Limit, cause).fix(fix),
        }
    }
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> ApiError {
        match error {
            StartError::Apply(error) => error.into(),
            other => ApiError::new(ErrorCode::System, other.to_string()),
        }
    }
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> ApiError {
        let mistakes = match error {
            LoadError::Limit(error) => return error.into(),
            LoadError::Entries(mistakes) => mistakes,
        };
        let first = mistakes.first().map_or_else(String::new, ToString::to_string);
        let more = match mistakes.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let mut error = ApiError::new(ErrorCode::InvalidParams, format!("nothing was loaded: {first}{more}"));
        error.data.errors = mistakes;
        error
    }
}

fn resident_bytes() -> u64 {
    let pages = |text: String| text.split_whitespace().nth(1)?.parse::<u64>().ok();
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(pages).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

impl Backend for Daemon {
    fn status(&self, _: GetStatus) -> Result<Status, ApiError> {
        let totals = self.switch.totals();
        let config = self.switch.config();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.started.elapsed().as_secs(),
            config: self.source,
            config_file: self.config_file.as_ref().map(|file| file.display().to_string()),
            edited: self.kept().origin.edited,
            page_size: totals.page_size,
            frames: totals.frames,
            frames_free: totals.frames_free,
            generation: totals.generation,
            rss_bytes: resident_bytes(),
            workers: totals.workers,
            ports: config.ports.len() as u32,
            bridges: config.bridges.len() as u32,
            received: totals.received,
            made: totals.made,
            sent: totals.sent,
            dropped: totals.dropped,
            consumed: totals.consumed,
            held: totals.held,
        })
    }

    fn apply(&self, request: Apply) -> Result<Applied, ApiError> {
        let wanted = Config::parse(&request.config, &request.file)?;
        let mut kept = self.kept();
        if request.dry_run {
            return self.preview(&wanted);
        }
        let origin = kept.origin.after_apply(request.config.as_bytes());
        self.change(&mut kept, wanted, origin)
    }

    fn diff(&self, request: Diff) -> Result<Applied, ApiError> {
        self.preview(&Config::parse(&request.config, &request.file)?)
    }

    fn export(&self, _: Export) -> Result<Exported, ApiError> {
        Ok(Exported { config: self.switch.config().to_toml() })
    }

    fn rollback(&self, request: Rollback) -> Result<Applied, ApiError> {
        let mut kept = self.kept();
        let previous = kept.store.previous()?.or_else(|| self.switch.previous());
        let Some(previous) = previous else {
            return Err(ApiError::new(ErrorCode::NotFound, "there is no earlier state to go back to")
                .fix("apply a configuration; from the second change on there is one"));
        };
        if request.dry_run {
            return self.preview(&previous);
        }
        let origin = kept.origin.after_edit();
        self.change(&mut kept, previous, origin)
    }

    fn port_list(&self, request: PortList) -> Result<Vec<PortRow>, ApiError> {
        self.check_names(request.bridge.as_ref(), None)?;
        let mut rows = self.switch.ports();
        rows.retain(|row| request.bridge.is_none() || row.bridge == request.bridge);
        Ok(rows)
    }

    fn port_show(&self, request: PortShow) -> Result<PortDetail, ApiError> {
        self.switch.port(&request.name).ok_or_else(|| self.unknown_port(&request.name))
    }

    fn port_add(&self, request: PortAdd) -> Result<Applied, ApiError> {
        self.edit(|config| edit::add_port(config, request.port))
    }

    fn port_del(&self, request: PortDel) -> Result<Applied, ApiError> {
        self.edit(|config| edit::delete_port(config, &request.name))
    }

    fn bridge_list(&self, _: BridgeList) -> Result<Vec<BridgeRow>, ApiError> {
        Ok(self.switch.bridges().into_iter().map(|bridge| bridge.row).collect())
    }

    fn bridge_show(&self, request: BridgeShow) -> Result<BridgeDetail, ApiError> {
        let found = self.switch.bridges().into_iter().find(|bridge| bridge.row.name == request.name);
        found.ok_or_else(|| self.unknown_bridge(&request.name))
    }

    fn bridge_add(&self, request: BridgeAdd) -> Result<Applied, ApiError> {
        self.edit(|config| edit::add_bridge(config, request.bridge))
    }

    fn bridge_del(&self, request: BridgeDel) -> Result<Applied, ApiError> {
        self.edit(|config| edit::delete_bridge(config, &request.name))
    }

    fn fdb_list(&self, request: FdbList) -> Result<FdbPage, ApiError> {
        self.check_names(request.bridge.as_ref(), request.port.as_ref())?;
        self.check_tunnel(request.tunnel.as_ref())?;
        Ok(FdbPage::cut(self.switch.fdb(), &request))
    }

    fn fdb_add(&self, request: FdbAdd) -> Result<Applied, ApiError> {
        self.edit(|config| edit::add_entry(config, request.entry))
    }

    fn fdb_del(&self, request: FdbDel) -> Result<Applied, ApiError> {
        self.edit(|config| edit::delete_entry(config, &request.entry))
    }

    fn fdb_load(&self, request: FdbLoad) -> Result<FdbLoaded, ApiError> {
        Ok(self.switch.load(request)?)
    }

    fn fdb_flush(&self, request: FdbFlush) -> Result<Flushed, ApiError> {
        self.check_names(request.bridge.as_ref(), request.port.as_ref())?;
        Ok(Flushed { removed: self.switch.flush(&request) })
    }

    fn tunnel_list(&self, _: TunnelList) -> Result<Vec<TunnelRow>, ApiError> {
        Ok(self.switch.tunnels())
    }

    fn tunnel_show(&self, request: TunnelShow) -> Result<TunnelDetail, ApiError> {
        self.check_tunnel(Some(&request.name))?;
        self.switch
            .tunnel(&request.name)
            .ok_or_else(|| ApiError::not_found("tunnel", request.name.as_str(), []))
    }

    fn tunnel_ping(&self, request: TunnelPing) -> Result<Vec<Pinged>, ApiError> {
        self.check_tunnel(Some(&request.name))?;
        self.switch.ping(&request.name, request.remote).ok_or_else(|| {
            let remote = request.remote.map_or_else(String::new, |remote| format!(" {remote}"));
            ApiError::new(ErrorCode::NotFound, format!("tunnel \"{}\" has no remote{remote}", request.name))
                .object(format!("tunnel \"{}\"", request.name))
                .fix("`vswitchctl tunnel list` shows the remotes of every tunnel")
        })
    }

    fn neighbour_list(&self, request: NeighbourList) -> Result<NeighbourPage, ApiError> {
        self.check_names(request.bridge.as_ref(), None)?;
        Ok(NeighbourPage::cut(self.switch.neighbours(), &request))
    }

    fn events(&self, request: Events) -> Result<Vec<Event>, ApiError> {
        Ok(self.switch.events(request.after))
    }

    fn flow_list(&self, request: FlowList) -> Result<FlowPage, ApiError> {
        self.check_names(None, request.port.as_ref())?;
        if let Some(worker) = request.worker
            && worker >= self.switch.totals().workers
        {
            return Err(ApiError::not_found("worker", &worker.to_string(), []));
        }
        Ok(self.switch.flows(&request))
    }

    fn worker_list(&self, _: WorkerList) -> Result<Vec<WorkerRow>, ApiError> {
        Ok(self.switch.workers())
    }

    fn worker_reset(&self, _: WorkerReset) -> Result<Nothing, ApiError> {
        self.switch.reset_workers();
        Ok(Nothing {})
    }

    fn worker_rebalance(&self, request: WorkerRebalance) -> Result<Rebalanced, ApiError> {
        Ok(self.switch.rebalance(request.dry_run))
    }

    fn drops_list(&self, request: DropsList) -> Result<Vec<DropRow>, ApiError> {
        self.check_names(None, request.port.as_ref())?;
        Ok(self.switch.drops(request.port.as_ref()))
    }

    fn trace(&self, request: Trace) -> Result<Traced, ApiError> {
        let frame = match (&request.notation, &request.hex) {
            (Some(text), None) => notation::build(text).map_err(|error| {
                ApiError::new(ErrorCode::InvalidParams, format!("the described frame: {error}"))
                    .object("the described frame")
                    .fix(error.fix())
            })?,
            (None, Some(hex)) => decode_hex(hex).map_err(|error| {
                ApiError::new(ErrorCode::InvalidParams, format!("the frame's bytes: {error}"))
            })?,
            _ => {
                return Err(ApiError::new(
                    ErrorCode::InvalidParams,
                    "exactly one of `notation` and `hex` describes the frame",
                ));
            }
        };
        self.switch.trace(&request.port, &frame).ok_or_else(|| self.unknown_port(&request.port))
    }
}
