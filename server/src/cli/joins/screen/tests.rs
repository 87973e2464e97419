use berth_proto::join::v1 as join_v1;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::*;
use crate::cli::golden::{golden, now as then};

fn join(id: &str, node: &str, state: &str, seconds_ago: i64) -> v1::Join {
    let at = then().millis() - seconds_ago * 1_000;
    let why = join_v1::Diagnosis {
        code: "APPROVAL_PENDING".to_owned(),
        cause: format!("the join {id} waits for approval since 2026-11-23T18:59:00Z"),
        mend: format!("berth-server joins approve {id}"),
        ..join_v1::Diagnosis::default()
    };
    v1::Join {
        id: id.to_owned(),
        state: state.to_owned(),
        phase: join_v1::Phase::Authorization.into(),
        node_name: node.to_owned(),
        source: "192.0.2.7".to_owned(),
        started_unix_ms: at,
        updated_unix_ms: at,
        diagnosis: (state == "Waiting").then_some(why),
        waiting_since_unix_ms: (state == "Waiting").then_some(at),
        ..v1::Join::default()
    }
}

fn board() -> Board {
    let mut board = Board::default();
    board.take(join("j-aaaaaaaaaaaaaaaa", "rack1-n1", "Ready", 90));
    board.take(join("j-bbbbbbbbbbbbbbbb", "rack1-n2", "Waiting", 60));
    board.take(join("j-cccccccccccccccc", "", "Refused", 30));
    board.take(join("j-dddddddddddddddd", "rack2-n1", "Running", 5));
    board
}

fn press(board: &mut Board, keys: &str) -> bool {
    keys.chars().any(|key| board.press(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE)))
}

fn drawn(board: &mut Board, width: u16, height: u16, colours: bool) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal of memory");
    terminal.draw(|frame| draw::draw(frame, board, then(), colours)).expect("memory");
    terminal.backend().clone()
}

fn names(board: &Board) -> Vec<&str> {
    board.shown().iter().map(|join| join.id.get(2..3).unwrap_or_default()).collect()
}

#[test]
fn the_screen_shows_all_of_it_on_the_smallest_terminal() {
    let mut board = board();
    press(&mut board, "jj");
    golden("joins-screen-80x24", &drawn(&mut board, 80, 24, true).to_string());
    golden("joins-screen-low", &drawn(&mut board, 80, 12, true).to_string());
}

#[test]
fn keys_order_filter_and_search() {
    let mut board = board();
    assert_eq!(names(&board), ["d", "c", "b", "a"], "the newest first");
    press(&mut board, "ss");
    assert_eq!(names(&board), ["b", "c", "d", "a"], "those that need somebody first");
    press(&mut board, "s");
    assert_eq!(names(&board), ["a", "b", "d", "c"], "by name, those without one last");
    press(&mut board, "f");
    assert_eq!(names(&board), ["b"]);
    board.press(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
    press(&mut board, "/RACK1q");
    assert_eq!(names(&board), Vec::<&str>::new(), "q is a letter there");
    board.press(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    board.press(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
    assert_eq!(names(&board), ["a", "b"]);
    assert!(press(&mut board, "q"));
}

#[test]
fn the_chosen_join_stays_chosen_while_others_come() {
    let mut board = board();
    press(&mut board, "j");
    board.take(join("j-eeeeeeeeeeeeeeee", "rack3-n1", "Running", 0));
    let shown = board.shown();
    assert_eq!(shown[board.place(&shown)].id, "j-cccccccccccccccc");
}

#[test]
fn without_colours_there_are_none() {
    let is_coloured = |colours| {
        let backend = drawn(&mut board(), 80, 24, colours);
        backend.buffer().content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(is_coloured(true));
    assert!(!is_coloured(false));
}
