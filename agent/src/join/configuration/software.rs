//! The node's software: what the profile's bundle has and the machine has not is
//! fetched, verified and put in its place, before anything is written that names it.
//! Without a bundle the machine brings its own.

use berth_domain::bundle::{Bundle, Wanted};
use berth_domain::conversation::JoinFromAgent;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::phase::Phase;
use berth_domain::profile::Profile;
use tokio::time::Instant;

use super::super::authorization::Authorized;
use super::super::progress::Teller;
use super::{Machine, REMINDER, apply, lost};
use crate::certificate;
use crate::plan::{self, Body, Found, Plan, Seen, Step};
use crate::ports::server::Joining;
use crate::ports::{DepotError, Stage};

/// Room that is left on the disk beside what is fetched: journals and logs need some.
const RESERVE: u64 = 64 << 20;

/// Makes the node's software stand.
pub(super) async fn stand(
    line: &mut dyn Joining,
    authorized: &Authorized,
    profile: &Profile,
    machine: &Machine<'_>,
    teller: &Teller<'_>,
) -> Result<(), Diagnosis> {
    let Some(wanted) = profile.bundle else { return Ok(()) };
    let bundle = described(wanted, authorized, machine).await?;
    let plan = plan::software(&bundle, authorized.prepared().facts());
    let missing = missing(&plan, &machine.host.see(&plan));
    room(&missing, machine)?;
    let mut patience = Patience { line, said: Instant::now() };
    for blob in &missing {
        fetch(&bundle, *blob, machine, &mut patience).await?;
    }
    apply(patience.line, &plan, machine, teller).await?;
    // From here on each file stands under a name of its own.
    machine.depot.clear().map_err(in_depot)
}

/// The bundle, verified: from the depot where it is the one, else from the server.
async fn described(
    wanted: Digest,
    authorized: &Authorized,
    machine: &Machine<'_>,
) -> Result<Bundle, Diagnosis> {
    let authorities = certificate::authority_keys(authorized.credential().ca_bundle());
    if let Some(kept) = machine.depot.kept().map_err(in_depot)?
        && let Ok(bundle) = Bundle::asked_for(wanted, &kept, &authorities)
    {
        return Ok(bundle);
    }
    let signed = machine.supplier.describe(wanted).await.map_err(lost("it asked what is in its bundle"))?;
    let bundle = Bundle::asked_for(wanted, &signed, &authorities).map_err(|problem| {
        Diagnosis::new(Code::BundleDamaged, Phase::Configuration).with("problem", problem)
    })?;
    machine.depot.keep(&signed).map_err(in_depot)?;
    Ok(bundle)
}

/// A blob that the machine lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blob {
    digest: Digest,
    size: u64,
}

/// What of the plan does not stand yet, each blob once.
fn missing(plan: &Plan, seen: &Seen) -> Vec<Blob> {
    let mut missing: Vec<Blob> = Vec::new();
    for step in &plan.steps {
        let Step::Install { path, digest, size, .. } = step else { continue };
        let stands = match seen.at(path) {
            Found::File { body: Body::Large { digest, .. }, .. } => Some(*digest),
            Found::File { .. }
            | Found::Absent
            | Found::Directory { .. }
            | Found::Symlink { .. }
            | Found::Other { .. }
            | Found::Unreadable { .. } => None,
        };
        let blob = Blob { digest: *digest, size: *size };
        if stands != Some(*digest) && !missing.contains(&blob) {
            missing.push(blob);
        }
    }
    missing
}

/// Whether what is missing fits on the disk.
fn room(missing: &[Blob], machine: &Machine<'_>) -> Result<(), Diagnosis> {
    if missing.is_empty() {
        return Ok(());
    }
    let wanted = missing.iter().fold(RESERVE, |sum, blob| sum.saturating_add(blob.size));
    let found = machine.depot.free().map_err(in_depot)?;
    if found >= wanted {
        return Ok(());
    }
    Err(Diagnosis::new(Code::DiskSpaceTooLow, Phase::Configuration)
        .with("path", plan::CACHE)
        .with("found", mebibytes(found))
        .with("wanted", format!("{} for its software", mebibytes(wanted))))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Fetches one blob, from where an earlier attempt was cut off.
async fn fetch(
    bundle: &Bundle,
    blob: Blob,
    machine: &Machine<'_>,
    patience: &mut Patience<'_>,
) -> Result<(), Diagnosis> {
    let mut is_first = true;
    loop {
        let mut draft = match machine.depot.draft(blob.digest, blob.size).map_err(in_depot)? {
            Stage::Whole => return Ok(()),
            Stage::Part(draft) => draft,
        };
        let offset = draft.offset();
        if offset < blob.size {
            let wanted = Wanted { bundle: bundle.digest(), blob: blob.digest, offset };
            let delivery = machine.supplier.fetch(&wanted).await;
            let mut delivery = delivery.map_err(lost("it asked for its software"))?;
            while let Some(chunk) = delivery.next().await.map_err(lost("it fetched its software"))? {
                draft.add(&chunk).map_err(in_depot)?;
                patience.ask().await?;
            }
            if draft.offset() < blob.size {
                return Err(lost("it fetched its software")(crate::ports::server::LineError::Lost));
            }
        }
        match draft.finish() {
            Ok(()) => return Ok(()),
            // Whose damage it is shows once it was fetched from its first byte on.
            Err(DepotError::Damaged { .. }) if offset > 0 && is_first => is_first = false,
            Err(error) => return Err(in_depot(error)),
        }
    }
}

/// The server's patience with this step: it wants to hear something now and then.
struct Patience<'a> {
    line: &'a mut dyn Joining,
    said: Instant,
}

impl Patience<'_> {
    async fn ask(&mut self) -> Result<(), Diagnosis> {
        if self.said.elapsed() >= REMINDER {
            self.said = Instant::now();
            let nothing_fails = JoinFromAgent::Health(Vec::new());
            self.line.say(nothing_fails).await.map_err(lost("it fetched its software"))?;
        }
        Ok(())
    }
}

fn in_depot(error: DepotError) -> Diagnosis {
    error.into_diagnosis(Phase::Configuration)
}
