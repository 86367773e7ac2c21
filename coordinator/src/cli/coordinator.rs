//! `assay coordinator`.

use std::path::Path;

use super::args::CoordinatorArgs;
use super::print;
use crate::cluster;
use crate::config::{
    Config, CoordinatorSettings, L1Settings, QueueSettings, Settings, SettleSettings, StoreSettings,
};
use crate::error::Error;

pub(super) fn run(config: Option<&Path>, arguments: CoordinatorArgs) -> Result<(), Error> {
    let config = Config::load(config, settings(arguments))?;
    let program = std::env::current_exe().map_err(|e| Error::Stage {
        stage: "start".to_owned(),
        reason: format!("cannot find this program: {e}"),
    })?;
    // A closed standard output is no reason to stop a service.
    cluster::run(&config, program, &mut |line| drop(print(line)))
}

/// The flags as a source of settings.
fn settings(arguments: CoordinatorArgs) -> Settings {
    Settings {
        out: arguments.out,
        settle: SettleSettings { bitcoind: arguments.bitcoind, bitcoind_cookie: arguments.bitcoind_cookie },
        l1: L1Settings { batches: arguments.l1_batches },
        queue: QueueSettings {
            redis: arguments.redis,
            deployment: arguments.deployment,
            ..QueueSettings::default()
        },
        store: StoreSettings { url: arguments.store, ..StoreSettings::default() },
        coordinator: CoordinatorSettings {
            dir: arguments.dir,
            listen: arguments.listen,
            tenants: arguments.tenants,
            cluster_secret: arguments.cluster_secret,
            vk_hash: arguments.vk_hash,
            worker: arguments.worker,
            private_callbacks: None,
        },
        ..Settings::default()
    }
}
