//! Authentication: the agent proves that it knows its token, a use of it is
//! reserved for the agent's key, and the server proves that it knows it too.

use aws_lc_rs::rand;
use berth_domain::conversation::{
    Challenge, EnrollFromAgent, EnrollFromServer, Hello, Mechanism, Nonce, ServerProof,
};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::phase::Phase;
use berth_domain::proof::{NONCE_BYTES, Promise, Verifier};
use berth_domain::token::{Claim, TokenId, TokenRecord, Use};
use berth_telemetry::effect::{Effect, performed};
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

use super::initialization::Admitted;
use super::{Ending, EnrollLine, World, origin_of};
use crate::ports::{Clock, Tokens};

/// Evidence that the agent knows a live token, one use of which is now its key's.
/// Only this file can make one:
///
/// ```compile_fail
/// use berth_server::join::authentication::Authenticated;
/// fn skip_the_proof(hello: berth_domain::conversation::Hello) -> Authenticated {
///     Authenticated { hello }
/// }
/// ```
pub struct Authenticated {
    hello: Hello,
    token: TokenRecord,
    reserved: Use,
    transcript: Digest,
    place: OwnedSemaphorePermit,
}

impl Authenticated {
    /// What the agent said first.
    pub(super) const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The token it proved.
    pub(super) const fn token(&self) -> &TokenRecord {
        &self.token
    }

    /// The use that is reserved for its key.
    pub(super) const fn reserved(&self) -> &Use {
        &self.reserved
    }

    /// The conversation up to the agent's proof.
    pub(super) const fn transcript(&self) -> &Digest {
        &self.transcript
    }

    /// Leaves the place among the joins under way to another.
    pub(super) fn into_place(self) -> OwnedSemaphorePermit {
        self.place
    }
}

/// What stands in for tokens that do not exist, so that a stranger learns
/// nothing from asking (SECURITY R29).
pub struct Decoys(Zeroizing<[u8; 32]>);

impl Decoys {
    /// Decoys from a secret of the server.
    #[must_use]
    pub const fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    fn verifier(&self, id: &TokenId) -> Verifier {
        Verifier::decoy(id, &self.0)
    }
}

/// Proves both sides to each other.
pub(super) async fn run(
    line: &mut dyn EnrollLine,
    admitted: Admitted,
    tokens: &(impl Tokens + ?Sized),
    world: &World<'_>,
    clock: &dyn Clock,
) -> Result<Authenticated, Ending> {
    line.say(EnrollFromServer::Challenge(challenge(clock)?)).await?;
    let said = line.transcript();
    let proof = match line.hear().await? {
        EnrollFromAgent::ClientProof(proof) => proof,
        EnrollFromAgent::GivingUp(why) => return Err(Ending::GaveUp(Box::new(why))),
        other @ (EnrollFromAgent::Hello(_) | EnrollFromAgent::CertificateRequest(_)) => {
            return Err(Ending::out_of_order(other.instead_of("ClientProof"), Phase::Authentication));
        }
    };
    let transcript = line.transcript();
    let (hello, place) = admitted.into_parts();

    let known =
        tokens.find(&hello.token).await.map_err(|e| Ending::from_port(e, Phase::Authentication, clock))?;
    let verifier =
        known.as_ref().map_or_else(|| world.decoys.verifier(&hello.token), |token| token.verifier.clone());
    let proved = verifier.check_client(line.channel(), &said, &proof);
    let token = match (known, proved) {
        // Its uses are the store's matter.
        (Some(token), Ok(())) => token.without_uses(),
        (Some(_), Err(_)) => return Err(rejected(&hello.token, "its secret was wrong").into()),
        (None, Ok(()) | Err(_)) => return Err(rejected(&hello.token, "there is no such token").into()),
    };
    line.proved();

    let caller = line.caller();
    let claim = Claim { token: hello.token.clone(), key: hello.key, source: caller.address };
    let origin = origin_of(&hello, &caller);
    let redeem = async {
        let redeemed = tokens.redeem(&claim, &origin, clock.now()).await;
        redeemed.map_err(|e| Ending::from_port(e, Phase::Authentication, clock))
    };
    let reserved = performed(Effect::Redeem, redeem).await?;

    let ca_bundle = world.trust.line();
    let promise = Promise { ca_bundle: ca_bundle.as_bytes(), cluster_id: world.cluster_id };
    let proof = token.verifier.prove_server(line.channel(), &transcript, &promise);
    line.say(EnrollFromServer::ServerProof(ServerProof {
        proof,
        ca_bundle: ca_bundle.to_string(),
        cluster_id: world.cluster_id.to_owned(),
    }))
    .await?;
    Ok(Authenticated { hello, token, reserved, transcript, place })
}

fn challenge(clock: &dyn Clock) -> Result<Challenge, Diagnosis> {
    let mut nonce: Nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce).map_err(|_| no_randomness(Phase::Authentication))?;
    Ok(Challenge {
        mechanism: Mechanism::Njp1Ed25519,
        nonce,
        server_time: clock.now(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The operating system gave no randomness: nothing safe can be done.
pub(super) fn no_randomness(phase: Phase) -> Diagnosis {
    Diagnosis::new(Code::Unexplained, phase).with("evidence", "the operating system gave no randomness")
}

fn rejected(token: &TokenId, reason: &'static str) -> Diagnosis {
    Diagnosis::new(Code::TokenRejected, Phase::Authentication)
        .with("token", token)
        .with_private("reason", reason)
}
