//! What the screen shows and what keys change: which joins, in which order, which
//! one is chosen.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use berth_proto::QUEUED;
use berth_proto::admin::v1;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// The states in the order in which somebody should look.
pub(super) const STATES: [&str; 6] = ["Waiting", "Refused", QUEUED, "Running", "Ready", "Ended"];

/// What joins are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// The newest first.
    #[default]
    Newest,
    /// What changed last first.
    Changed,
    /// Those that need somebody first.
    State,
    /// By node name.
    Name,
}

impl Order {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Changed => "changed",
            Self::State => "state",
            Self::Name => "name",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Newest => Self::Changed,
            Self::Changed => Self::State,
            Self::State => Self::Name,
            Self::Name => Self::Newest,
        }
    }

    fn compare(self, a: &v1::Join, b: &v1::Join) -> Ordering {
        let place = |join: &v1::Join| STATES.iter().position(|state| *state == join.state);
        let first = match self {
            Self::Newest => Ordering::Equal,
            Self::Changed => b.updated_unix_ms.cmp(&a.updated_unix_ms),
            Self::State => place(a).cmp(&place(b)),
            // Those without a name last.
            Self::Name => (a.node_name.is_empty(), &a.node_name).cmp(&(b.node_name.is_empty(), &b.node_name)),
        };
        first.then(b.started_unix_ms.cmp(&a.started_unix_ms)).then(a.id.cmp(&b.id))
    }
}

/// The screen's state.
#[derive(Debug, Default)]
pub(super) struct Board {
    joins: BTreeMap<String, v1::Join>,
    pub(super) order: Order,
    /// Only joins of this state.
    pub(super) only: Option<&'static str>,
    /// Only joins with these words.
    pub(super) words: String,
    /// Keys go into the words.
    pub(super) is_typing: bool,
    chosen: Option<String>,
    /// Rows that the table has room for, as it was drawn last.
    pub(super) room: usize,
}

impl Board {
    /// Takes a join as it now stands.
    pub(super) fn take(&mut self, join: v1::Join) {
        self.joins.insert(join.id.clone(), join);
    }

    /// Takes a join away that was Queued and left no trace.
    pub(super) fn lose(&mut self, id: &str) {
        self.joins.remove(id);
    }

    /// The joins to show, in order.
    pub(super) fn shown(&self) -> Vec<&v1::Join> {
        let words = self.words.to_lowercase();
        let mut shown: Vec<&v1::Join> = self
            .joins
            .values()
            .filter(|join| self.only.is_none_or(|only| join.state == only))
            .filter(|join| words.is_empty() || has(join, &words))
            .collect();
        shown.sort_by(|a, b| self.order.compare(a, b));
        shown
    }

    /// How many there are, and how many of a state.
    pub(super) fn count(&self, state: Option<&str>) -> usize {
        self.joins.values().filter(|join| state.is_none_or(|state| join.state == state)).count()
    }

    /// Where the chosen join stands among those shown; the first, if it is not there.
    pub(super) fn place(&self, shown: &[&v1::Join]) -> usize {
        let chosen = self.chosen.as_deref();
        shown.iter().position(|join| Some(join.id.as_str()) == chosen).unwrap_or(0)
    }

    /// Does what a key means; true if that is to end.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a keyboard has more keys than meanings")]
    pub(super) fn press(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c' | 'd'));
        }
        if self.is_typing {
            self.type_in(key.code);
            return false;
        }
        let page = isize::try_from(self.room).unwrap_or(1).max(1);
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Esc if self.words.is_empty() && self.only.is_none() => return true,
            KeyCode::Esc => {
                self.words.clear();
                self.only = None;
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(page),
            KeyCode::PageUp => self.step(-page),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('f') | KeyCode::Tab => self.only = next_state(self.only),
            KeyCode::Char('/') => self.is_typing = true,
            _ => {}
        }
        false
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a keyboard has more keys than meanings")]
    fn type_in(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.words.clear();
                self.is_typing = false;
            }
            KeyCode::Backspace => drop(self.words.pop()),
            KeyCode::Char(c) if self.words.len() < LONGEST_WORDS => self.words.push(c),
            _ => {}
        }
    }

    fn step(&mut self, by: isize) {
        let shown = self.shown();
        let last = shown.len().saturating_sub(1);
        let next = self.place(&shown).saturating_add_signed(by).min(last);
        self.chosen = shown.get(next).map(|join| join.id.clone());
    }
}

fn next_state(only: Option<&'static str>) -> Option<&'static str> {
    match only {
        None => STATES.first().copied(),
        Some(state) => STATES.iter().copied().skip_while(|other| *other != state).nth(1),
    }
}

fn has(join: &v1::Join, words: &str) -> bool {
    let reason = join.diagnosis.as_ref().map_or("", |why| &why.code);
    let texts: [&str; 5] = [&join.id, &join.node_name, &join.source, &join.token_id, reason];
    texts.iter().any(|text| text.to_lowercase().contains(words))
}

/// Words to look for, in bytes.
const LONGEST_WORDS: usize = 64;
