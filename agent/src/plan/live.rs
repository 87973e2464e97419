//! What a plan changes on the running system beside its files. Below another root
//! none of it is done.

use berth_domain::identity::Digest;

/// One thing that shall be so while the system runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Live {
    /// A kernel module is loaded.
    Module {
        /// Its name.
        name: &'static str,
    },
    /// A kernel setting has a value.
    Setting {
        /// Its dotted name.
        name: &'static str,
        /// As it is read back.
        value: &'static str,
    },
    /// A unit of the service manager runs, started since its files last changed.
    Unit {
        /// Its name.
        name: &'static str,
        /// Of all that it reads when it starts.
        reads: Digest,
    },
}

impl Live {
    /// What it is about: a module's, setting's or unit's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Module { name } | Self::Setting { name, .. } | Self::Unit { name, .. } => name,
        }
    }

    /// `module`, `setting` or `unit`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Module { .. } => "module",
            Self::Setting { .. } => "setting",
            Self::Unit { .. } => "unit",
        }
    }
}
