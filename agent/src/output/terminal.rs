//! What the two streams can show.

use std::io::{self, IsTerminal as _};

use crate::cli::locale_is_utf8;
use crate::host::checks::Style;

/// How the checklist is drawn on standard output: in ASCII only on a terminal
/// that cannot show more.
#[must_use]
pub fn style() -> Style {
    Style { ascii: io::stdout().is_terminal() && !locale_is_utf8(), short: false }
}

/// Whether standard error is a terminal that shows colours (NO_COLOR,
/// CLICOLOR_FORCE and TERM=dumb are honoured).
#[must_use]
pub fn colour_on_stderr() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Whether standard error is a terminal.
#[must_use]
pub fn is_interactive() -> bool {
    io::stderr().is_terminal()
}
