//! The one call of the signer, and what the agent hears while a signer outside is
//! kept from its work. What comes back is held against what was authorized.

use std::time::Duration;

use berth_domain::conversation::EnrollFromServer;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::join::Event;
use berth_domain::phase::Phase;
use berth_telemetry::effect::{Effect, performed};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::super::{Ending, EnrollLine, World};
use super::Authorized;
use super::issued::{check_issued, chosen};
use crate::ports::{Hold, Observation, SignedCertificate, Takes};

/// Between two words to an agent that waits.
const REMINDER: Duration = Duration::from_secs(15);

/// Signs for an agent whose line stands: what keeps the signer is said to it and
/// recorded, and the join goes on by itself.
pub(super) async fn until_signed(
    line: &mut dyn EnrollLine,
    world: &World<'_>,
    authorized: &Authorized,
    place: &mut Option<OwnedSemaphorePermit>,
) -> Result<SignedCertificate, Ending> {
    let (hold, mut held) = watch::channel(None);
    let mut signing = Box::pin(signed(world, authorized, &hold));
    let mut waiting = None;
    loop {
        tokio::select! {
            biased;
            signed = &mut signing => return signed,
            Ok(()) = held.changed() => {}
            () = tokio::time::sleep(REMINDER), if waiting.is_some() => {}
        }
        let Some(why) = held.borrow_and_update().clone() else { continue };
        if waiting.is_none() {
            // A join that waits for somebody else is not the server's work.
            *place = None;
            let event = Event::Waiting { why: why.clone() };
            world
                .cluster
                .record(authorized.join, Some(&authorized.node.name), event, world.clock.now())
                .await
                .map_err(|error| Ending::from_port(error, Phase::Authorization, world.clock))?;
            waiting = Some(world.metrics.waiting(why.code()));
        }
        line.say(EnrollFromServer::Waiting(why)).await?;
    }
}

/// Signs for an agent that would rather come back than wait.
pub(super) async fn at_once(world: &World<'_>, authorized: &Authorized) -> Result<SignedCertificate, Ending> {
    let (hold, mut held) = watch::channel(None);
    let kept = async {
        loop {
            if let Some(why) = held.borrow_and_update().clone() {
                return why;
            }
            // The sender lives as long as the signing does.
            if held.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        biased;
        signed = signed(world, authorized, &hold) => signed,
        why = kept => Err(why.into()),
    }
}

async fn signed(
    world: &World<'_>,
    authorized: &Authorized,
    hold: &Hold,
) -> Result<SignedCertificate, Ending> {
    let port = |error| Ending::from_port(error, Phase::Authorization, world.clock);
    let signed =
        performed(Effect::Sign, async { world.signer.sign(authorized, hold).await.map_err(port) }).await?;
    check_issued(authorized, &signed.chain, &world.signer.ca_bundle()).map_err(|problem| {
        Diagnosis::new(Code::CertificateRejected, Phase::Authorization).with("problem", problem)
    })?;
    if world.signer.takes() == Takes::Request
        && let Some((serial, not_before, not_after)) = chosen(&signed.chain)
    {
        let issued = Observation::Issued { serial, not_before, not_after };
        world.cluster.observe(&authorized.node.name, issued, world.clock.now()).await.map_err(port)?;
    }
    Ok(signed)
}
