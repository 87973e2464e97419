//! Why a command did not do what it was asked, and the exit status that says so.

use std::io::Write as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use berth_domain::diagnosis::{Exit, printable};
use berth_proto::admin::InvalidRequest;
use tonic::{Code, Status};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    lines: Vec<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, lines: vec![text.into()] }
    }

    /// The command line or the configuration is wrong.
    pub(crate) fn usage(error: impl std::error::Error) -> Self {
        Self { exit: Exit::Usage, lines: with_sources(&error) }
    }

    /// Several things are wrong at once.
    pub(crate) const fn several(exit: Exit, lines: Vec<String>) -> Self {
        Self { exit, lines }
    }

    pub(crate) fn other(error: impl std::error::Error) -> Self {
        Self { exit: Exit::Other, lines: with_sources(&error) }
    }

    pub(crate) fn chain(error: anyhow::Error) -> Self {
        let mut lines = vec![error.to_string()];
        for cause in error.chain().skip(1) {
            lines.push(caused(cause));
        }
        Self { exit: Exit::Other, lines }
    }

    /// What a server answered.
    pub(crate) fn status(status: Status) -> Self {
        let exit = match status.code() {
            Code::InvalidArgument => Exit::Usage,
            Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
            // A call that took too long is cancelled on this side.
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
                Exit::Unreachable
            }
            Code::Ok
            | Code::Unknown
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Exit::Other,
        };
        let invalid = InvalidRequest::from_status(&status);
        let mut lines: Vec<String> =
            invalid.violations().iter().map(|wrong| format!("{}: {}", wrong.field, wrong.problem)).collect();
        if lines.is_empty() {
            lines.push(printable(status.message()));
        }
        Self { exit, lines }
    }

    /// Tells it on standard error.
    pub(crate) fn report(self) -> ExitCode {
        // Nobody may be left to read it.
        let _unread = write!(anstream::stderr(), "{}", self.text());
        ExitCode::from(self.exit as u8)
    }

    fn text(&self) -> String {
        let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
        let mut text = String::new();
        for (place, line) in self.lines.iter().enumerate() {
            if place == 0 {
                text.push_str(&format!("{red}error:{red:#} "));
            } else {
                text.push_str("  ");
            }
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// Prints what clap says; its errors end with the status of wrong usage.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nobody may be left to read it.
    let _unread = error.print();
    if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS }
}

fn with_sources(error: &dyn std::error::Error) -> Vec<String> {
    let mut lines = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        lines.push(caused(cause));
        source = cause.source();
    }
    lines
}

fn caused(cause: &dyn std::error::Error) -> String {
    format!("caused by: {}", printable(&cause.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_answer_has_its_exit_status() {
        for (code, exit) in [
            (Code::InvalidArgument, Exit::Usage),
            (Code::PermissionDenied, Exit::Denied),
            (Code::Unavailable, Exit::Unreachable),
            (Code::Cancelled, Exit::Unreachable),
            (Code::NotFound, Exit::Other),
        ] {
            assert_eq!(Failure::status(Status::new(code, "x")).exit, exit, "{code:?}");
        }
    }

    #[test]
    fn an_answer_cannot_draw_on_the_terminal() {
        let failure = Failure::status(Status::not_found("a\u{1b}[2Jb"));
        assert!(!failure.lines.concat().contains('\u{1b}'));
    }
}
