//! A switch without ports: keeps the place of the real one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use control::api::{ApiError, Export, Exported};
use vswitch::config::{Start, Store};
use vswitch::server::Backend;

pub(crate) struct Options {
    pub(crate) start: Start,
    pub(crate) store: Store,
    #[allow(dead_code)]
    pub(crate) config_file: Option<PathBuf>,
}

pub(crate) struct Switch {
    start: Start,
    _store: Mutex<Store>,
}

impl Switch {
    pub(crate) fn start(options: Options) -> Result<Arc<Switch>, ApiError> {
        let Options { start, mut store, .. } = options;
        if start.unsaved {
            store.save(&start.config, start.origin)?;
        }
        Ok(Arc::new(Switch { start, _store: Mutex::new(store) }))
    }

    pub(crate) fn stop(&self) {}
}

impl Backend for Switch {
    fn export(&self, _: Export) -> Result<Exported, ApiError> {
        Ok(Exported { config: self.start.config.to_toml() })
    }
}
