//! What issues certificates. A signer takes
//! [`crate::join::authorization::Authorized`] and nothing else.

pub mod files;
pub mod kube;
pub mod local;

mod directory;
