//! What the server asks of the switch: one method for each request of the API.

use control::api::*;

macro_rules! backend {
    ($($(#[$doc:meta])* $method:ident($call:ident) -> $response:ty;)*) => {
        /// Carries requests out. Called from many threads at a time; each call may block its client only.
        pub trait Backend: Send + Sync {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// Why it was refused: object, cause and what to do.
                fn $method(&self, request: $call) -> Result<$response, ApiError>;
            )*
        }

        /// Carries a call out and writes the answer as a line.
        pub(super) fn answer(backend: &dyn Backend, id: Option<&Id>, call: Call) -> Vec<u8> {
            match call {
                $(Call::$call(request) => encode_response(id, &backend.$method(request)),)*
            }
        }
    };
}

backend! {
    /// How the switch is.
    status(GetStatus) -> Status;
    /// Makes a document the desired state, wholly or not at all.
    apply(Apply) -> Applied;
    /// What `apply` would do.
    diff(Diff) -> Applied;
    /// The desired state as a document.
    export(Export) -> Exported;
    /// Back to the desired state before the last change.
    rollback(Rollback) -> Applied;
    /// Every port.
    port_list(PortList) -> Vec<PortRow>;
    /// Everything about a port.
    port_show(PortShow) -> PortDetail;
    /// Adds a port to the desired state.
    port_add(PortAdd) -> Applied;
    /// Removes a port from the desired state.
    port_del(PortDel) -> Applied;
    /// Every bridge.
    bridge_list(BridgeList) -> Vec<BridgeRow>;
    /// Everything about a bridge.
    bridge_show(BridgeShow) -> BridgeDetail;
    /// Adds a bridge to the desired state.
    bridge_add(BridgeAdd) -> Applied;
    /// Removes a bridge from the desired state.
    bridge_del(BridgeDel) -> Applied;
    /// A page of the MAC tables.
    fdb_list(FdbList) -> FdbPage;
    /// Adds a static entry to the desired state.
    fdb_add(FdbAdd) -> Applied;
    /// Removes a static entry from the desired state.
    fdb_del(FdbDel) -> Applied;
    /// Makes entries of a controller those of the MAC tables, all in one change.
    fdb_load(FdbLoad) -> FdbLoaded;
    /// Forgets learned addresses.
    fdb_flush(FdbFlush) -> Flushed;
    /// Every tunnel.
    tunnel_list(TunnelList) -> Vec<TunnelRow>;
    /// Everything about a tunnel.
    tunnel_show(TunnelShow) -> TunnelDetail;
    /// Round trip and path MTU to the remotes of a tunnel.
    tunnel_ping(TunnelPing) -> Vec<Pinged>;
    /// A page of the neighbour table.
    neighbour_list(NeighbourList) -> NeighbourPage;
    /// What happened of late.
    events(Events) -> Vec<Event>;
    /// The flows with most frames.
    flow_list(FlowList) -> FlowPage;
    /// Every worker.
    worker_list(WorkerList) -> Vec<WorkerRow>;
    /// Counts frames and cycles of workers from zero.
    worker_reset(WorkerReset) -> Nothing;
    /// Spreads rx queues over the workers.
    worker_rebalance(WorkerRebalance) -> Rebalanced;
    /// Drops by port and reason.
    drops_list(DropsList) -> Vec<DropRow>;
    /// What the switch would do with a frame.
    trace(Trace) -> Traced;
}
