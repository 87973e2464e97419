//! The cryptography that a server cannot avoid, timed in this process: what a
//! join or a renewal would cost if all else were free.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey as Share, X25519, agree_ephemeral};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::kem::{DecapsulationKey, EncapsulationKey, ML_KEM_768};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};

use crate::meter::Spread;

pub(crate) struct Floor {
    random: SystemRandom,
    key: EcdsaKeyPair,
    signature: Vec<u8>,
    peer: Vec<u8>,
    encapsulation: EncapsulationKey,
    mac: hmac::Key,
}

impl Floor {
    pub(crate) fn new() -> Result<Self> {
        Self::made().ok().context("making the floor's keys")
    }

    fn made() -> Result<Self, Unspecified> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let signature = key.sign(&random, MESSAGE)?.as_ref().to_vec();
        let peer = EphemeralPrivateKey::generate(&X25519, &random)?.compute_public_key()?.as_ref().to_vec();
        let encapsulation = DecapsulationKey::generate(&ML_KEM_768)?.encapsulation_key()?;
        let mac = hmac::Key::new(hmac::HMAC_SHA256, MESSAGE);
        Ok(Self { random, key, signature, peer, encapsulation, mac })
    }

    /// Microseconds of one join: the server's share of one hybrid handshake, the
    /// request's signature, the certificate's, and one MAC.
    pub(crate) fn join(&self) -> Result<f64> {
        median_of_many(|| {
            self.handshake()?;
            self.verify()?;
            self.sign()?;
            black_box(hmac::sign(&self.mac, MESSAGE));
            Ok(())
        })
    }

    /// Microseconds of one renewal: the request's signature and the certificate's.
    pub(crate) fn renewal(&self) -> Result<f64> {
        median_of_many(|| {
            self.verify()?;
            self.sign()
        })
    }

    /// X25519MLKEM768 and CertificateVerify, as a server does them.
    fn handshake(&self) -> Result<(), Unspecified> {
        let own = EphemeralPrivateKey::generate(&X25519, &self.random)?;
        own.compute_public_key()?;
        agree_ephemeral(own, Share::new(&X25519, &self.peer), Unspecified, |_| Ok(()))?;
        self.encapsulation.encapsulate()?;
        self.sign()
    }

    fn sign(&self) -> Result<(), Unspecified> {
        self.key.sign(&self.random, MESSAGE).map(|_| ())
    }

    fn verify(&self) -> Result<(), Unspecified> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.key.public_key())
            .verify(MESSAGE, &self.signature)
    }
}

/// Microseconds; the median leaves out the times when somebody else had the core.
fn median_of_many(mut work: impl FnMut() -> Result<(), Unspecified>) -> Result<f64> {
    let mut took = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let began = Instant::now();
        work().ok().context("the floor's cryptography")?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(&took).median())
}

const TIMES: usize = 2000;
const MESSAGE: &[u8] = &[7; 300];
