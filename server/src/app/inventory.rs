//! The operator's inventory of nodes where it meets the settings: what it may never give
//! away, and the watch over its file.

use std::sync::Arc;

use super::backend::Chore;
use super::settings::{Backend, Kubernetes, Settings};
use crate::registry::kube::Reserved;
use crate::registry::kube::inventory::{InventoryError, InventoryFile, load};
use crate::watched::look_until;

/// What no node may serve as: the API servers, `api` among them if it is known, and where
/// machines join.
pub(super) fn reserved(settings: &Settings, api: Option<&str>) -> Reserved {
    let urls = settings.api_endpoints.iter().map(|url| url.trim_start_matches("https://"));
    let hosts = urls.chain(settings.advertise.as_deref()).map(|endpoint| {
        let (host, _port) = endpoint.trim_end_matches('/').rsplit_once(':').unwrap_or((endpoint, ""));
        host.trim_matches(['[', ']']).to_owned()
    });
    Reserved { hosts: hosts.chain(api.map(str::to_owned)).collect() }
}

/// The inventory of the settings, if there is one, and its look at the file.
pub(super) fn opened(
    kubernetes: &Kubernetes,
    reserved: &Reserved,
    chores: &mut Vec<Chore>,
) -> Option<Arc<InventoryFile>> {
    let file = Arc::new(InventoryFile::open(kubernetes.inventory.clone()?, reserved.clone()));
    let looking = Arc::clone(&file);
    chores.push(Box::new(move |end| Box::pin(look_until(end, move || looking.look()))));
    Some(file)
}

/// Whether the inventory of these settings can be used, as `config check` asks. That of
/// the API servers' addresses which the kubeconfig alone knows is seen by a server that
/// runs.
///
/// # Errors
/// There is a file, and it cannot be used.
pub fn check_inventory(settings: &Settings) -> Result<(), InventoryError> {
    let Backend::Kubernetes(Kubernetes { inventory: Some(path), .. }) = &settings.backend else {
        return Ok(());
    };
    load(path, &reserved(settings, None)).map(drop)
}
