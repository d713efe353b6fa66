//! The messages of the control socket: newline-delimited JSON-RPC 2.0.
//!
//! One request is one line of JSON, one response is one line. `API.md` beside this crate describes
//! every message for those who speak it from another language; a test holds the two together.
//!
//! Each method is a type: its fields are the parameters, [`Method::Response`] is the result. The
//! daemon reads a line with [`MessageReader`], decodes it with [`decode_request`] into a [`Call`],
//! matches on that, and answers with [`encode_response`]. A client uses
//! [`client::Client`](crate::client::Client).
//!
//! Nothing here knows how the switch gets its figures. All sizes are bounded: a line that is longer
//! than [`MAX_REQUEST_BYTES`] or deeper than [`MAX_DEPTH`] is refused before it is parsed.

mod bridge;
mod error;
mod event;
mod fdb;
mod message;
mod neighbour;
mod page;
mod port;
mod state;
mod trace;
mod traffic;
mod tunnel;

pub use bridge::*;
pub use error::{ApiError, ErrorCode, ErrorData};
pub use event::*;
pub use fdb::*;
pub use message::{
    BadRequest, Id, MAX_DEPTH, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MessageReader, Request, Response,
    decode_request, decode_response, encode_request, encode_response,
};
pub use neighbour::*;
pub use port::*;
pub use state::*;
pub use trace::*;
pub use traffic::*;
pub use tunnel::*;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A method of the API: the implementing type is its parameters.
pub trait Method: Serialize + DeserializeOwned {
    /// The name in the `method` member.
    const NAME: &'static str;
    /// What the `result` member holds.
    type Response: Serialize + DeserializeOwned;
}

macro_rules! methods {
    ($($name:literal $method:ident -> $response:ty;)*) => {
        /// A decoded request: one variant for each method, with its parameters.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Call {
            $(
                #[doc = concat!("`", $name, "`")]
                $method($method),
            )*
        }

        /// The names of all methods.
        pub const METHODS: &[&str] = &[$($name),*];

        $(
            impl Method for $method {
                const NAME: &'static str = $name;
                type Response = $response;
            }

            impl From<$method> for Call {
                fn from(params: $method) -> Call {
                    Call::$method(params)
                }
            }
        )*

        impl Call {
            /// The name of the method.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Call::$method(_) => $name,)*
                }
            }

            /// The call that a method's name and parameters make; None if there is no such method.
            fn decode(name: &str, params: serde_json::Value) -> Option<Result<Call, serde_json::Error>> {
                match name {
                    $($name => Some(serde_json::from_value(params).map(Call::$method)),)*
                    _ => None,
                }
            }
        }
    };
}

methods! {
    "status" GetStatus -> Status;
    "apply" Apply -> Applied;
    "diff" Diff -> Applied;
    "export" Export -> Exported;
    "rollback" Rollback -> Applied;
    "port.list" PortList -> Vec<PortRow>;
    "port.show" PortShow -> PortDetail;
    "port.add" PortAdd -> Applied;
    "port.del" PortDel -> Applied;
    "bridge.list" BridgeList -> Vec<BridgeRow>;
    "bridge.show" BridgeShow -> BridgeDetail;
    "bridge.add" BridgeAdd -> Applied;
    "bridge.del" BridgeDel -> Applied;
    "fdb.list" FdbList -> FdbPage;
    "fdb.add" FdbAdd -> Applied;
    "fdb.del" FdbDel -> Applied;
    "fdb.load" FdbLoad -> FdbLoaded;
    "fdb.flush" FdbFlush -> Flushed;
    "tunnel.list" TunnelList -> Vec<TunnelRow>;
    "tunnel.show" TunnelShow -> TunnelDetail;
    "tunnel.ping" TunnelPing -> Vec<Pinged>;
    "neighbour.list" NeighbourList -> NeighbourPage;
    "events" Events -> Vec<Event>;
    "flow.list" FlowList -> FlowPage;
    "worker.list" WorkerList -> Vec<WorkerRow>;
    "worker.reset" WorkerReset -> Nothing;
    "worker.rebalance" WorkerRebalance -> Rebalanced;
    "drops.list" DropsList -> Vec<DropRow>;
    "trace" Trace -> Traced;
}
