//! What people and programs read of the agent: results on standard output,
//! progress and complaints on standard error. Rendering is pure; the two
//! writers at the end are the only ones that touch the streams.

mod bar;
mod clock;
mod diagnosis;
mod joined;
mod progress;
mod reset;
mod status;
mod table;
mod terminal;
mod version;

pub use clock::clock;
pub use diagnosis::{DiagnosisView, refusal, wait};
pub use joined::{Joined, ResultView, joined};
pub use progress::{Progress, Step, line, short};
pub use reset::{LeftView, ResetView, reset};
pub use status::{State, Status, StatusView, status};
pub use table::settings;
pub use terminal::{colour_on_stderr, is_interactive, style};
pub use version::version;

use std::error::Error;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Writes a result to standard output. Colours are taken out where they are
/// not wanted; a reader that has gone away is no error.
///
/// # Errors
/// The stream cannot be written for another reason.
pub fn say(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout();
    quiet_pipe(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes bytes that are no text for a terminal, such as a manual page.
///
/// # Errors
/// As [`say`].
pub fn say_raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    quiet_pipe(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Writes one JSON object, on a line of its own, to standard output.
///
/// # Errors
/// As [`say`].
pub fn say_json(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    say_raw(&line)
}

/// Writes one JSON object over several lines to standard output.
///
/// # Errors
/// As [`say`].
pub fn say_pretty(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    say_raw(&text)
}

/// Writes to standard error. If nobody reads that, there is nobody to tell.
pub fn tell(text: &str) {
    let mut out = anstream::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// An error with everything that caused it, each on a line.
#[must_use]
pub fn failure(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("{ERROR}error:{ERROR:#} {error}\n");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!("  caused by: {}\n", berth_domain::diagnosis::printable(&cause.to_string())));
        source = cause.source();
    }
    text
}

/// A warning, on a line.
#[must_use]
pub fn warning(text: &str) -> String {
    format!("{WARNING}warning:{WARNING:#} {text}\n")
}

/// Something worth knowing, on a line.
#[must_use]
pub fn note(text: &str) -> String {
    format!("{FAINT}note: {text}{FAINT:#}\n")
}

fn quiet_pipe(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What is said where no CA is pinned.
pub const UNPINNED: &str = "no CA is pinned: whoever else knows this bootstrap token could play the server; \
                            pin the CA with --ca-pin sha256:HEX, which may be given several times";

pub(crate) const OK: Style = AnsiColor::Green.on_default();
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
pub(crate) const FAINT: Style = Style::new().dimmed();
pub(crate) const BOLD: Style = Style::new().bold();

#[cfg(test)]
mod tests;
