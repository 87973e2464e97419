//! `joins watch` on a terminal: a table of the whole screen that keeps itself up to
//! date, with the chosen join's reason and mend below. Here is the loop; the board
//! decides what keys do, `draw` what is seen.

mod board;
mod draw;

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use berth_proto::admin::v1;
use ratatui::crossterm::event::{self, Event};
use ratatui::{DefaultTerminal, try_init};
use tokio::sync::mpsc;
use tonic::Streaming;

use self::board::Board;
use crate::cli::client::now;
use crate::cli::output::Failure;

/// How often the screen is drawn at most for changes, and at least for ages.
const FRAME: Duration = Duration::from_millis(100);
const SECOND: u32 = 10;

/// How long the keyboard's thread waits before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Shows joins until a key or the server ends it. Gives the terminal back as it was.
pub(super) async fn show(changes: Streaming<v1::WatchJoinsResponse>) -> Result<(), Failure> {
    let colours = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    let mut terminal = try_init().map_err(Failure::other)?;
    let (keys, typed) = mpsc::channel(16);
    let keyboard = listen(keys);
    let ended = run(&mut terminal, changes, typed, colours).await;
    let restored = ratatui::try_restore().map_err(Failure::other);
    // Its channel is closed now, so it ends at its next look.
    let _ended = keyboard.join();
    ended.and(restored)
}

async fn run(
    terminal: &mut DefaultTerminal,
    mut changes: Streaming<v1::WatchJoinsResponse>,
    mut typed: mpsc::Receiver<Event>,
    colours: bool,
) -> Result<(), Failure> {
    let mut board = Board::default();
    let mut frame = tokio::time::interval(FRAME);
    let (mut is_stale, mut frames) = (true, 0_u32);
    loop {
        tokio::select! {
            change = changes.message() => match change.map_err(Failure::status)? {
                Some(change) => {
                    match change.join {
                        Some(join) => board.take(join),
                        None => board.lose(&change.gone),
                    }
                    is_stale = true;
                }
                None => return Ok(()),
            },
            event = typed.recv() => match event {
                Some(Event::Key(key)) => {
                    if board.press(key) {
                        return Ok(());
                    }
                    is_stale = true;
                }
                Some(_) => is_stale = true,
                None => return Ok(()),
            },
            _ = frame.tick() => {
                frames = frames.wrapping_add(1);
                if is_stale || frames % SECOND == 0 {
                    terminal.draw(|area| draw::draw(area, &mut board, now(), colours)).map_err(Failure::other)?;
                    is_stale = false;
                }
            }
        }
    }
}

/// Reads the keyboard, until nobody wants to know any more.
fn listen(keys: mpsc::Sender<Event>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !keys.is_closed() {
            let event = match event::poll(LOOK) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let Ok(event) = event else { return };
            if keys.blocking_send(event).is_err() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests;
