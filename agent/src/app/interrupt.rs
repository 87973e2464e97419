//! Being told to stop: SIGTERM from a service manager, SIGINT from a keyboard.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, from when this is made.
#[derive(Debug)]
pub(super) struct Interrupt {
    terminate: Signal,
    interrupt: Signal,
}

impl Interrupt {
    /// Takes the signals over from the system, which would end the process.
    ///
    /// # Errors
    /// The system does not let it.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Ends when the process is told to stop. May be dropped and asked again.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
