//! Bundles of node software: made by operators from files (`create`), read as they
//! stand (`archive`), and handed to nodes within hand-set bounds (`shelf`). Nothing is
//! fetched from anywhere.

pub mod archive;
pub mod create;
mod image;
pub mod limits;
mod pace;
mod places;
pub mod shelf;
mod sources;

pub use limits::BundleLimits;
