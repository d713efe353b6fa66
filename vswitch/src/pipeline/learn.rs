//! Stage `learn`: the source address is behind the in port from now on.

use super::{Context, Learning, Observer, Origin};
use crate::tables::fdb::{Fdb, Learned, Location, MacKey};
use crate::tables::versions::Witness;

/// What is known of the source afterwards.
pub struct Source {
    /// Its entry.
    pub location: Option<Location>,
    /// What was seen of the table.
    pub witness: Witness,
    /// What learning came to, or would come to.
    pub outcome: Learned,
}

/// Learns the source, or, for a described frame, says what that would come to.
#[inline]
pub fn learn<O: Observer>(
    context: &Context<'_>,
    fdb: &Fdb,
    vlan: u16,
    learning: Learning,
    observer: &mut O,
) -> Source {
    let key = MacKey { bridge: context.bridge_index, vlan, mac: context.link.src };
    if matches!(context.origin, Origin::Remote(remote, _) if !remote.learning || context.is_unlearned) {
        let whose = if context.is_unlearned { "the tunnel's header" } else { "the tunnel" };
        observer.stage("learn", || whose.into(), || "does not learn".into());
        return Source { location: None, witness: Witness::NOTHING, outcome: Learned::Known };
    }
    let source = match learning {
        Learning::On { worker, now_s } => {
            let learn = fdb.learn(key, context.in_port, worker, now_s);
            Source { location: learn.location, witness: learn.witness, outcome: learn.outcome }
        }
        Learning::Off => {
            let outcome = fdb.foresee(key, context.in_port);
            Source { location: None, witness: Witness::NOTHING, outcome }
        }
    };
    observer.stage(
        "learn",
        || "source address, VLAN, in port".into(),
        || match source.outcome {
            Learned::Known => "known on this port".into(),
            Learned::New => "would be learned".into(),
            Learned::Moved { from } => {
                format!("would move here from {}", context.snapshot.port_name(from))
            }
            Learned::Static => "configured or loaded to be behind another port: not learned".into(),
            Learned::Held => "has moved too often and is held behind another port: not learned".into(),
            Learned::LimitTable => "not learned: the table is full".into(),
            Learned::LimitBridge => "not learned: the bridge has all the addresses that it may".into(),
            Learned::LimitPort => "not learned: the port has all the addresses that it may".into(),
            Learned::Busy => "not learned: the table was busy".into(),
        },
    );
    source
}
