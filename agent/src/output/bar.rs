//! The bar below a join's lines on a terminal: painted anew five times a second,
//! and taken away while anything else is written there. It needs nothing of a
//! terminal but that a carriage return leads to the line's beginning.
//!
//! Written here, as the known crates estimate a rate, for which the process would load
//! the mathematics library: a third of a megabyte in each attending agent.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use berth_domain::diagnosis::printable;
use terminal_size::{Width, terminal_size_of};

use super::{BOLD, FAINT, tell};
use crate::cli::locale_is_utf8;

/// Between two paintings.
const TICK: Duration = Duration::from_millis(200);

/// Columns of a terminal that does not tell them.
const USUAL_COLUMNS: usize = 80;

/// Columns of the bar itself.
const LENGTH: usize = 15;

const BAR: Style = AnsiColor::Green.on_default();
const MESSAGE: Style = AnsiColor::Yellow.on_default();

/// A bar that stands until it is closed.
#[derive(Debug)]
pub(super) struct Bar {
    shared: Arc<Shared>,
    /// None where no thread could be had: then only changes are painted.
    painter: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    shown: Mutex<Shown>,
    closing: Condvar,
}

/// What the bar shows.
#[derive(Debug)]
struct Shown {
    passed: usize,
    of: usize,
    label: &'static str,
    message: String,
    since: Instant,
    /// Columns of the terminal's line that are painted.
    painted: usize,
    closed: bool,
}

impl Bar {
    /// A bar over `of` steps, none of them passed.
    pub(super) fn over(of: usize) -> Self {
        let shown = Shown {
            passed: 0,
            of,
            label: "",
            message: String::new(),
            since: Instant::now(),
            painted: 0,
            closed: false,
        };
        let shared = Arc::new(Shared { shown: Mutex::new(shown), closing: Condvar::new() });
        let painted = Arc::clone(&shared);
        let painter = thread::Builder::new().name("berth-bar".to_owned()).spawn(move || painted.paint());
        Self { shared, painter: painter.ok() }
    }

    /// The step that is gone through now, and how many came before it.
    pub(super) fn step(&self, passed: usize, label: &'static str) {
        let mut shown = self.shared.shown();
        (shown.passed, shown.label) = (passed, label);
        shown.message.clear();
        shown.paint();
    }

    /// What is waited for.
    pub(super) fn say(&self, message: &str) {
        let mut shown = self.shared.shown();
        shown.message = printable(message);
        shown.paint();
    }

    /// Writes something else to the terminal.
    pub(super) fn suspend(&self, write: impl FnOnce()) {
        let mut shown = self.shared.shown();
        shown.erase();
        write();
        shown.paint();
    }

    /// Takes the bar away.
    pub(super) fn close(self) {
        {
            let mut shown = self.shared.shown();
            shown.closed = true;
            shown.erase();
        }
        self.shared.closing.notify_all();
        if let Some(painter) = self.painter {
            // It only paints: there is nothing to hear of it.
            let _ = painter.join();
        }
    }
}

impl Shared {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Paints until the bar is closed.
    fn paint(&self) {
        let mut shown = self.shown();
        while !shown.closed {
            shown.paint();
            let waited = self.closing.wait_timeout(shown, TICK);
            shown = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(shown, _)| shown);
        }
    }
}

impl Shown {
    fn paint(&mut self) {
        let columns =
            terminal_size_of(io::stderr()).map_or(USUAL_COLUMNS, |(Width(columns), _)| usize::from(columns));
        let line = self.line(columns, self.since.elapsed(), locale_is_utf8());
        let painted = width(&anstream::adapter::strip_str(&line).to_string());
        let rest = " ".repeat(self.painted.saturating_sub(painted));
        tell(&format!("\r{line}{rest}"));
        self.painted = painted;
    }

    fn erase(&mut self) {
        if self.painted > 0 {
            tell(&format!("\r{}\r", " ".repeat(self.painted)));
        }
        self.painted = 0;
    }

    /// What is painted on a terminal of so many columns. The last of them stays
    /// free, as some terminals go to the next line once it is written.
    fn line(&self, columns: usize, elapsed: Duration, utf8: bool) -> String {
        let (full, head, empty) = if utf8 { ("━", "╸", "─") } else { ("=", ">", "-") };
        let filled = (self.passed * LENGTH).checked_div(self.of).unwrap_or(LENGTH).min(LENGTH);
        let heads = usize::from(filled > 0 && filled < LENGTH);
        let bar = [full.repeat(filled), head.repeat(heads), empty.repeat(LENGTH - filled - heads)].concat();
        let count = format!("{}/{}", self.passed, self.of);
        let elapsed = humantime::format_duration(Duration::from_secs(elapsed.as_secs())).to_string();
        let mut left = columns.saturating_sub(1);
        let mut line = String::new();
        for (style, part) in [
            (BAR, bar.as_str()),
            (Style::new(), &count),
            (BOLD, self.label),
            (FAINT, &elapsed),
            (MESSAGE, &self.message),
        ] {
            let gap = if line.is_empty() || part.is_empty() { "" } else { " " };
            let part = within(part, left.saturating_sub(gap.len()));
            if !part.is_empty() {
                line.push_str(&format!("{gap}{style}{part}{style:#}"));
                left = left.saturating_sub(gap.len() + width(part));
            }
        }
        line
    }
}

/// As much of a text as so many columns hold.
fn within(text: &str, columns: usize) -> &str {
    let mut left = columns;
    let end = text.char_indices().find_map(|(at, char)| {
        let rest = left.checked_sub(columns_of(char));
        left = rest.unwrap_or(left);
        rest.is_none().then_some(at)
    });
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// At most so many: what is neither ASCII nor of the bar may be two columns wide, and a
/// line that is too short is no harm where one that is too long cannot be erased.
const fn columns_of(char: char) -> usize {
    if char.is_ascii() || matches!(char, '━' | '╸' | '─') { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str) -> Shown {
        Shown {
            passed: 2,
            of: 5,
            label: "authorization",
            message: message.to_owned(),
            since: Instant::now(),
            painted: 0,
            closed: false,
        }
    }

    fn plain(shown: &Shown, columns: usize, utf8: bool) -> String {
        let line = shown.line(columns, Duration::from_millis(61_900), utf8);
        anstream::adapter::strip_str(&line).to_string()
    }

    #[test]
    fn it_shows_how_far_the_join_is_and_what_it_waits_for() {
        let waiting = shown("a person has to approve");
        let expected = "━━━━━━╸──────── 2/5 authorization 1m 1s a person has to approve";
        assert_eq!(plain(&waiting, 80, true), expected);
        assert_eq!(plain(&shown(""), 80, false), "======>-------- 2/5 authorization 1m 1s");
        assert!(plain(&Shown { passed: 0, ..shown("") }, 80, true).starts_with("─────────────── 0/5 "));
        assert!(plain(&Shown { passed: 5, ..shown("") }, 80, true).starts_with("━━━━━━━━━━━━━━━ 5/5 "));
    }

    #[test]
    fn it_stays_on_its_line_however_narrow_the_terminal() {
        for message in ["a person has to approve", "機械が待っている", ""] {
            for columns in 0..70 {
                let line = plain(&shown(message), columns, true);
                assert!(width(&line) < columns.max(1), "{columns}: {line}");
            }
        }
        assert_eq!(plain(&shown("a person"), 44, true), "━━━━━━╸──────── 2/5 authorization 1m 1s a p");
    }

    #[test]
    fn it_ends_at_once_when_it_is_closed() {
        let bar = Bar::over(5);
        bar.step(1, "authentication");
        bar.say("it\u{1b}[2J waits\n");
        assert!(!bar.shared.shown().message.contains(char::is_control));
        let shared = Arc::clone(&bar.shared);
        bar.close();
        let shown = shared.shown();
        assert!(shown.closed && shown.painted == 0, "{shown:?}");
    }
}
