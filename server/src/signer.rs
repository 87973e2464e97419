//! What issues certificates. A signer takes
//! [`crate::join::authorization::Authorized`] and nothing else. `bundle` signs what is no
//! certificate: the manifests of bundles.

pub mod bundle;
pub mod files;
pub mod kube;
pub mod local;
pub mod metered;

mod directory;
