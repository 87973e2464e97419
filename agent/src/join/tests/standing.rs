//! The standing conversation, scripted.

use async_trait::async_trait;
use berth_domain::conversation::{AttendFromAgent, AttendFromServer};

use super::server::Double;
use crate::ports::server::{Attending, LineError};

/// Says what the script tells, then nothing.
pub(super) struct Standing(pub(super) Double);

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
