//! Tokens that people apply: whichever replica comes first makes the secret, keeps
//! it in a Secret beside the JoinToken, and then says in the status that it is
//! minted. The Secret's name follows from the token's, and is made once: a replica
//! that finds one goes on with what it holds, so that a crash between heals.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use berth_domain::identity::SpkiHash;
use berth_domain::proof::Verifier;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{JoinToken as Token, MINT_ENTROPY};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Resource, ResourceExt};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::calls::{CallError, Failure};
use super::objects::{JoinToken, Minted};
use super::shared::Shared;
use crate::kubernetes::part;
use crate::ports::chain;

/// What goes into the tokens that are minted for people.
#[derive(Clone)]
pub struct Minting {
    /// The CA that machines may trust, as it is when a token is minted.
    pub pin: watch::Receiver<SpkiHash>,
    /// The whole command by which a machine joins.
    pub command: Command,
}

/// Makes the command of a token.
pub type Command = Arc<dyn Fn(&Token) -> Zeroizing<String> + Send + Sync>;

/// Mints what is applied until the backend stops.
pub(super) async fn mint_applied(shared: Arc<Shared>, minting: Minting) {
    let mut changes = shared.tokens_changed.subscribe();
    loop {
        changes.borrow_and_update();
        let is_done = shared.readiness().is_ok() && shared.mint_all(&minting).await;
        let again = if is_done { LOOK_AGAIN } else { TRY_AGAIN };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again / 2 + part(again / 2)) => {}
        }
    }
}

impl Shared {
    /// Mints every token that was applied and is not minted. Says whether none is left.
    async fn mint_all(&self, minting: &Minting) -> bool {
        let all = self.view().token_objects();
        let mut is_done = true;
        for object in all.iter().filter(|object| object.record().is_none() && !object.is_refused()) {
            if let Err(error) = self.mint_one(object, minting).await {
                is_done = false;
                tracing::warn!(token = object.name_any(), error = %chain(&error), "an applied JoinToken could not be minted; trying again");
            }
        }
        is_done
    }

    async fn mint_one(&self, object: &JoinToken, minting: &Minting) -> Result<(), CallError> {
        let now = self.clock.now();
        let status = match self.secret(object, minting).await? {
            Ok(token) => {
                let created = object.born();
                let minted = Minted {
                    token_id: token.id.clone(),
                    verifier: Verifier::of(&token),
                    created,
                    created_by: "kubectl".to_owned(),
                };
                let mut minted_object = object.clone();
                let status = minted_object.status.get_or_insert_default();
                status.minted = Some(minted);
                status.secret_name = Some(object.secret_name());
                match minted_object.record() {
                    Some(record) => minted_object.status_of(&record, now),
                    None => return Ok(()),
                }
            }
            Err(problem) => object.not_minted("SecretTaken", problem, now),
        };
        let wanted = JoinToken { status: Some(status), ..object.clone() };
        match self.calls.replace_status(&wanted).await {
            Ok(object) => {
                self.view().take_token(object);
                self.tell();
                Ok(())
            }
            // Another replica was first, or the token changed: the watch tells.
            Err(Failure::Conflict | Failure::Missing) => Ok(()),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    /// The token in the Secret, which is made if there is none. The inner error is
    /// what stands in the way for good.
    async fn secret(
        &self,
        object: &JoinToken,
        minting: &Minting,
    ) -> Result<Result<Token, String>, CallError> {
        let name = object.secret_name();
        let (api, how): (Api<Secret>, _) = (self.calls.in_namespace(), PostParams::default());
        let mut entropy = Zeroizing::new([0; MINT_ENTROPY]);
        if rand::fill(&mut *entropy).is_err() {
            return Ok(Err("this server has no randomness".to_owned()));
        }
        let token = Token::mint(&entropy, *minting.pin.borrow());
        let secret = made(object, &name, &token, minting);
        match self.calls.asked(|| api.create(&how, &secret)).await {
            Ok(_) => return Ok(Ok(token)),
            Err(Failure::Conflict) => {}
            Err(Failure::Missing) => return Ok(Err("the namespace is gone".to_owned())),
            Err(Failure::Error(error)) => return Err(error),
        }
        let found = match self.calls.asked(|| api.get(&name)).await {
            Ok(found) => found,
            // It was deleted in this moment: the next try makes it.
            Err(Failure::Missing | Failure::Conflict) => return Err(CallError::NotReady),
            Err(Failure::Error(error)) => return Err(error),
        };
        let is_own = found.owner_references().iter().any(|owner| Some(&owner.uid) == object.uid().as_ref());
        let text =
            found.data.as_ref().and_then(|data| data.get(TOKEN)).map(|bytes| Zeroizing::new(bytes.0.clone()));
        let token = text
            .as_deref()
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .and_then(|text| text.parse().ok());
        match token {
            Some(token) if is_own => Ok(Ok(token)),
            _ => Ok(Err(format!(
                "the Secret {name} is there already and is not this token's; delete it, then this JoinToken, and apply it again"
            ))),
        }
    }
}

/// The Secret of a token: it goes when the JoinToken goes.
fn made(object: &JoinToken, name: &str, token: &Token, minting: &Minting) -> Secret {
    let text = token.to_text();
    let command = (minting.command)(token);
    let data = [
        (TOKEN.to_owned(), ByteString(text.as_bytes().to_vec())),
        ("join-command".to_owned(), ByteString(command.as_bytes().to_vec())),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(object.owner_ref(&()).into_iter().collect()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "berth".to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("berth.dev/join-token".to_owned()),
        immutable: Some(true),
        data: Some(data.into()),
        ..Secret::default()
    }
}

/// When it was made by the cluster's clock: every replica says the same.
impl JoinToken {
    fn born(&self) -> Timestamp {
        super::objects::born(&self.metadata)
    }
}

const TOKEN: &str = "token";
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const TRY_AGAIN: Duration = Duration::from_secs(2);
