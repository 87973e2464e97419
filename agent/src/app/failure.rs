//! How a command ends that could not do what it was asked.

use std::io;
use std::process::ExitCode;

use berth_domain::diagnosis::{Diagnosis, Exit};
use berth_telemetry::InstallError;

use super::lock::LockError;
use crate::config::FileError;
use crate::output;

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The configuration file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Logs or spans.
    #[error(transparent)]
    Telemetry(#[from] InstallError),
    /// Another agent, or no way to keep it out.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Nobody said which server.
    #[error(
        "no server was given: write it behind the command (berth-agent join HOST:PORT), or as server in the configuration"
    )]
    NoServer,
    /// The directory of `--root`.
    #[error("--root {} is no directory; make it first, or leave --root out for the running system", root.display())]
    Root {
        /// As it was given.
        root: std::path::PathBuf,
    },
    /// Several places for one token.
    #[error("the token was given twice: keep one of --token-file, --token-fd and --token")]
    TokenTwice,
    /// The name of no crash point.
    #[error("{given:?} is no crash point")]
    CrashPoint {
        /// As it was given.
        given: String,
    },
    /// The agent's own state.
    #[error("opening the agent's state")]
    State(#[source] io::Error),
    /// The runtime did not start.
    #[error("starting the runtime")]
    Runtime(#[source] io::Error),
    /// The result could not be written.
    #[error("writing the result")]
    Output(#[source] io::Error),
    /// A cause with a code.
    #[error("{why}")]
    Diagnosed {
        /// The cause.
        why: Box<Diagnosis>,
        /// The trace that shows it.
        trace_id: Option<String>,
    },
}

impl Failure {
    /// A cause without a trace.
    pub(super) fn diagnosed(why: Diagnosis) -> Self {
        Self::Diagnosed { why: Box::new(why), trace_id: None }
    }

    /// The exit status.
    #[must_use]
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::File(_)
            | Self::Telemetry(InstallError::LogFilter { .. } | InstallError::Endpoint { .. })
            | Self::NoServer
            | Self::Root { .. }
            | Self::TokenTwice
            | Self::CrashPoint { .. } => Exit::Usage,
            Self::Telemetry(
                InstallError::Thread(_) | InstallError::ThreadDied | InstallError::Installed(_),
            )
            | Self::Lock(_)
            | Self::State(_)
            | Self::Runtime(_)
            | Self::Output(_) => Exit::Other,
            Self::Diagnosed { why, .. } => why.code().exit(),
        }
    }

    /// What people read of it.
    #[must_use]
    pub(super) fn text(&self) -> String {
        match self {
            Self::Diagnosed { why, trace_id } => output::refusal(why, trace_id.as_deref()),
            Self::File(_)
            | Self::Telemetry(_)
            | Self::Lock(_)
            | Self::NoServer
            | Self::Root { .. }
            | Self::TokenTwice
            | Self::CrashPoint { .. }
            | Self::State(_)
            | Self::Runtime(_)
            | Self::Output(_) => output::failure(self),
        }
    }
}

/// The process's exit status.
#[must_use]
pub(super) fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}
