//! Stage `learn`: the source address is behind the in port from now on.

use super::{Context, Learning, Observer};
use crate::tables::fdb::{Fdb, Learned, Location, MacKey};
use crate::tables::versions::Witness;

/// What is known of the source afterwards.
pub struct Source {
    /// Its entry.
    pub location: Option<Location>,
    /// What was seen of the table.
    pub witness: Witness,
    /// What learning came to.
    pub outcome: Option<Learned>,
}

/// Learns the source, or, for a described frame, looks it up.
#[inline]
pub fn learn<O: Observer>(
    context: &Context<'_>,
    fdb: &Fdb,
    vlan: u16,
    learning: Learning,
    observer: &mut O,
) -> Source {
    let key = MacKey { bridge: context.port.bridge, vlan, mac: context.link.src };
    let source = match learning {
        Learning::On { worker, now_s } => {
            let learn = fdb.learn(key, context.in_port, worker, now_s);
            Source { location: learn.location, witness: learn.witness, outcome: Some(learn.outcome) }
        }
        Learning::Off => {
            let lookup = fdb.lookup(key);
            Source { location: None, witness: lookup.witness, outcome: None }
        }
    };
    observer.stage(
        "learn",
        || "source address, VLAN, in port".into(),
        || match (source.outcome, fdb.lookup(key).found) {
            (Some(outcome), _) => format!("{outcome:?}").to_lowercase(),
            (None, None) => "would be learned".into(),
            (None, Some(found)) if found.port == context.in_port => "known on this port".into(),
            (None, Some(found)) => {
                format!("would move here from {}", context.snapshot.port_name(found.port))
            }
        },
    );
    source
}
