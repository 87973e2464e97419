//! The board as a person sees it, on 80 by 24 and more. A state is a word and a mark,
//! so that nothing is lost without colours.

use berth_domain::timestamp::Timestamp;
use berth_proto::QUEUED;
use berth_proto::admin::v1;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, TableState, Wrap};

use super::board::{Board, STATES};
use crate::cli::output::{age, or_dash};
use crate::forms::{moment, phase};

/// Lines of the pane with the chosen join; none on screens that are too low for it.
const PANE: u16 = 9;
const LOW: u16 = 16;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, board: &mut Board, now: Timestamp, colours: bool) {
    let pane = if frame.area().height < LOW { 0 } else { PANE };
    let [head, middle, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(pane),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    board.room = usize::from(middle.height.saturating_sub(1));
    frame.render_widget(heading(board, colours), head);
    let shown = board.shown();
    let place = board.place(&shown);
    rows(frame, middle, &shown, place, now, colours);
    if pane > 0 {
        frame.render_widget(chosen(shown.get(place).copied(), now, colours), below);
    }
    frame.render_widget(keys(board), foot);
}

fn heading(board: &Board, colours: bool) -> Line<'static> {
    let mut line = vec![Span::styled(format!("{} joins ", board.count(None)), BOLD)];
    // A queue is rare, and the line has room for five.
    let is_empty =
        |state: &str| state == QUEUED && board.only != Some(QUEUED) && board.count(Some(QUEUED)) == 0;
    for state in STATES.into_iter().filter(|state| !is_empty(state)) {
        let style = if board.only == Some(state) { REVERSED } else { Style::new() };
        line.push(Span::raw("  "));
        let text = format!("{} {state} {}", mark(state), board.count(Some(state)));
        line.push(Span::styled(text, style.patch(colour(state, colours))));
    }
    Line::from(line)
}

fn rows(frame: &mut Frame<'_>, area: Rect, shown: &[&v1::Join], place: usize, now: Timestamp, colours: bool) {
    let row = |join: &&v1::Join| {
        let since = join.waiting_since_unix_ms.unwrap_or(join.started_unix_ms);
        Row::new([
            Line::styled(format!("{} {}", mark(&join.state), join.state), colour(&join.state, colours)),
            Line::from(if join.node_name.is_empty() { join.id.clone() } else { join.node_name.clone() }),
            Line::from(phase(join.phase)),
            Line::from(or_dash(join.diagnosis.as_ref().map_or("", |why| &why.code))),
            Line::from(age(now.since(moment(since)))),
        ])
    };
    let widths = [
        Constraint::Length(9),
        Constraint::Fill(2),
        Constraint::Length(14),
        Constraint::Fill(2),
        Constraint::Length(5),
    ];
    let table = Table::new(shown.iter().map(row), widths)
        .header(Row::new(["STATE", "NODE", "PHASE", "REASON", "AGE"]).style(BOLD))
        .row_highlight_style(REVERSED)
        .column_spacing(2);
    let mut state = TableState::new().with_selected((!shown.is_empty()).then_some(place));
    frame.render_stateful_widget(table, area, &mut state);
}

/// The chosen join: why it stands as it does, and what mends it.
fn chosen(join: Option<&v1::Join>, now: Timestamp, colours: bool) -> Paragraph<'static> {
    let block = Block::new().borders(Borders::TOP);
    let Some(join) = join else {
        return Paragraph::new("No join is like that.").block(block);
    };
    let label = |name: &'static str| Span::styled(name, BOLD);
    let title = Line::from(vec![
        Span::styled(format!("{} ", or_dash(&join.node_name)), BOLD),
        Span::raw(format!("{}  ", join.id)),
        Span::styled(join.state.clone(), colour(&join.state, colours)),
        Span::raw(format!(" in {}  from {}", phase(join.phase), or_dash(&join.source))),
    ]);
    let mut lines = vec![title];
    match &join.diagnosis {
        Some(why) => {
            lines.push(Line::from(vec![label("Reason: "), Span::raw(why.code.clone())]));
            lines.push(Line::from(vec![label("Cause:  "), Span::raw(why.cause.clone())]));
            lines.push(Line::from(vec![label("Mend:   "), Span::raw(why.mend.clone())]));
        }
        None => {
            let updated = moment(join.updated_unix_ms);
            lines.push(Line::from(format!("changed {} ago, at {updated}", age(now.since(updated)))));
        }
    }
    if !join.trace_id.is_empty() {
        lines.push(Line::from(vec![label("Trace:  "), Span::raw(join.trace_id.clone())]));
    }
    Paragraph::new(lines).wrap(Wrap { trim: true }).block(block)
}

fn keys(board: &Board) -> Line<'static> {
    if board.is_typing {
        return Line::from(format!("/{}_   Enter keeps, Esc clears", board.words));
    }
    let sought = if board.words.is_empty() { String::new() } else { format!(" /{}", board.words) };
    let text =
        format!("j/k move  s order: {}  f state  / search{sought}  Esc all  q quit", board.order.as_str());
    Line::styled(text, DIM)
}

const fn mark(state: &str) -> &'static str {
    match state.as_bytes() {
        b"Ready" => "●",
        b"Running" => "○",
        b"Queued" => "◌",
        b"Waiting" => "◆",
        b"Refused" => "✗",
        _ => "–",
    }
}

fn colour(state: &str, colours: bool) -> Style {
    let colour = match state {
        "Ready" => Color::Green,
        "Running" | QUEUED => Color::Cyan,
        "Waiting" => Color::Yellow,
        "Refused" => Color::Red,
        _ => return Style::new(),
    };
    if colours { Style::new().fg(colour) } else { Style::new() }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);
