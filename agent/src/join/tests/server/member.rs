//! The double's half of connection 2.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::conversation::{AttendFromAgent, AttendFromServer, JoinFromAgent, JoinFromServer, Renewed};
use berth_domain::profile::Profile;

use super::{Double, profile};
use crate::ports::Supplier;
use crate::ports::server::{Attending, Joining, LineError, Member};

pub(super) struct Mutual(pub(super) Double);

#[async_trait]
impl Member for Mutual {
    async fn join(&self) -> Result<Box<dyn Joining>, LineError> {
        Ok(Box::new(Registering { server: self.0.clone(), registered: false, answers: VecDeque::new() }))
    }

    async fn attend(&self) -> Result<Box<dyn Attending>, LineError> {
        self.0.heard("attend");
        Ok(Box::new(Standing(self.0.clone())))
    }

    async fn renew(&self, request: &[u8]) -> Result<Renewed, LineError> {
        self.0.heard("renew");
        Ok(Renewed { chain: vec![self.0.sign(request)], ca_bundle: self.0.ca.pem.clone() })
    }

    async fn leave(&self, _drain: bool) -> Result<(), LineError> {
        Ok(())
    }

    fn supplier(&self) -> &dyn Supplier {
        &self.0.supplier
    }
}

struct Registering {
    server: Double,
    registered: bool,
    answers: VecDeque<JoinFromServer>,
}

#[async_trait]
impl Joining for Registering {
    async fn say(&mut self, said: JoinFromAgent) -> Result<(), LineError> {
        self.server.heard(said.name());
        let answer = match said {
            JoinFromAgent::ProfileRequest { .. } => {
                let bundle = self.server.script().bundle;
                let profile = Profile { bundle, ..profile(&self.server.ca.pem) };
                Some(JoinFromServer::Profile(Box::new(profile)))
            }
            JoinFromAgent::Configured { .. } => Some(JoinFromServer::ConfigurationRecorded),
            JoinFromAgent::Registration(_) => {
                self.registered = true;
                Some(JoinFromServer::Registered)
            }
            JoinFromAgent::Health(_) if self.registered && self.server.script().pods.is_some() => {
                self.server.script().pods.take().map(JoinFromServer::PodRoutes)
            }
            JoinFromAgent::Health(failing) => match failing.into_iter().next() {
                Some(why) if self.registered => Some(JoinFromServer::Waiting(why)),
                None if self.registered => Some(JoinFromServer::Ready { since: self.server.now() }),
                Some(_) | None => None,
            },
            JoinFromAgent::GivingUp(why) => {
                self.server.heard(why.code().as_str());
                None
            }
        };
        self.answers.extend(answer);
        Ok(())
    }

    async fn hear(&mut self, patience: Duration) -> Result<JoinFromServer, LineError> {
        match self.answers.pop_front() {
            Some(answer) => Ok(answer),
            None => {
                tokio::time::sleep(patience).await;
                Err(LineError::Silent(patience))
            }
        }
    }
}

struct Standing(Double);

#[async_trait]
impl Attending for Standing {
    async fn say(&mut self, said: AttendFromAgent) -> Result<(), LineError> {
        self.0.heard(match said {
            AttendFromAgent::Heartbeat => "Heartbeat",
            AttendFromAgent::Health(_) => "Health",
        });
        Ok(())
    }

    async fn hear(&mut self) -> Result<AttendFromServer, LineError> {
        let told = self.0.script().tells.pop_front();
        match told {
            Some(told) => told.map_err(|why| LineError::Refused(Box::new(why))),
            None => std::future::pending().await,
        }
    }
}
