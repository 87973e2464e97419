//! That something has changed since somebody last looked.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// A tick for each change; those between a look and the next wait are not lost.
#[derive(Clone)]
pub(super) struct Ticks {
    sender: watch::Sender<()>,
    seen: Arc<Mutex<watch::Receiver<()>>>,
}

impl Default for Ticks {
    fn default() -> Self {
        let (sender, seen) = watch::channel(());
        Self { sender, seen: Arc::new(Mutex::new(seen)) }
    }
}

impl Ticks {
    /// Who tells of changes.
    pub(super) fn sender(&self) -> watch::Sender<()> {
        self.sender.clone()
    }

    /// Something has changed.
    #[cfg(any(test, feature = "doubles"))]
    pub(super) fn tick(&self) {
        self.sender.send_replace(());
    }

    /// Somebody looks now.
    pub(super) fn look(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).borrow_and_update();
    }

    /// Ends at the first change since the last look.
    pub(super) async fn changed(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The sender is this value's own: it does not go away.
        let _ = seen.changed().await;
    }
}
