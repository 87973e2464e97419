//! A signer whose time is taken.

use std::sync::Arc;

use async_trait::async_trait;
use berth_telemetry::metrics::SignerMeter;
use berth_telemetry::phase::{Coded as _, Outcome};

use crate::join::authorization::Authorized;
use crate::ports::{Answer, Hold, PortError, SignedCertificate, Signer, Takes};

/// Any signer, timed.
pub struct Metered {
    inner: Arc<dyn Signer>,
    meter: SignerMeter,
}

impl Metered {
    /// The signer, timed by this meter.
    #[must_use]
    pub fn new(inner: Arc<dyn Signer>, meter: SignerMeter) -> Self {
        Self { inner, meter }
    }
}

#[async_trait]
impl Signer for Metered {
    async fn sign(&self, authorized: &Authorized, hold: &Hold) -> Answer<SignedCertificate> {
        let signing = self.meter.begin();
        let signed = self.inner.sign(authorized, hold).await;
        signing.ended(match &signed {
            Ok(_) => Outcome::Ok,
            Err(PortError::Refused(why)) => why.outcome(),
            Err(PortError::Unavailable { .. }) => Outcome::Failed,
        });
        signed
    }

    fn takes(&self) -> Takes {
        self.inner.takes()
    }

    fn ca_bundle(&self) -> Arc<str> {
        self.inner.ca_bundle()
    }
}
