//! The one thread that writes, and its group commit: what waits is run in one
//! transaction, and answered when that is durable.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_telemetry::metrics::{QueueMeter, Queued};
use tokio::sync::{oneshot, watch};

use super::book::Book;
use super::heard::Heard;
use super::{Settings, is_busy, jittered, read};
use crate::cluster::ledger::{Ledger, Problem, StoreError, Stored};
use crate::outage::Outage;
use crate::ports::Answer;

/// The way to the writer's thread.
pub(super) struct Writer {
    queue: Mutex<Option<SyncSender<Waiting>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    limit: usize,
    meter: QueueMeter,
    outage: Outage,
}

/// A task in the queue, which counts as waiting until it is taken.
struct Waiting {
    task: Box<dyn Task>,
    _queued: Queued,
}

impl Writer {
    pub(super) fn start(
        book: Book,
        heard: Arc<Heard>,
        changes: watch::Sender<i64>,
        settings: &Settings,
    ) -> io::Result<Self> {
        let (queue, tasks) = sync_channel(settings.queue);
        let position = read::position(book.store()).unwrap_or_default();
        let thread = Thread {
            book,
            heard,
            changes,
            tasks,
            settings: settings.clone(),
            foreign: None,
            position,
            last_group: 1,
            heard_written: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(|| thread.run())?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            limit: settings.queue,
            meter: settings.writes.clone(),
            outage: Outage::default(),
        })
    }

    /// Runs a verb in a transaction and answers when that is durable. A verb
    /// that was taken is run even if nobody waits for the answer any more.
    pub(super) async fn run<T, F>(&self, operation: &'static str, verb: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(&mut dyn Ledger) -> Result<T, Problem> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work = Work { operation, verb, outcome: None, reply };
        let answer = match self.submit(Box::new(work)) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(StoreError::Closed.during(operation))),
            Err(cause) => Err(cause.during(operation)),
        };
        self.outage.heed(answer)
    }

    /// Takes no more work, and waits until what was taken is done.
    pub(super) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Its panic was told on standard error already.
            let _ = thread.join();
        }
    }

    fn submit(&self, task: Box<dyn Task>) -> Stored<()> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(StoreError::Closed)?;
        queue.try_send(Waiting { task, _queued: self.meter.enter() }).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::QueueFull { limit: self.limit },
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }
}

/// One verb with the place where its answer goes.
trait Task: Send {
    /// Runs it, for the first time or once more; says whether it did what it was asked.
    fn run(&mut self, book: &mut Book) -> bool;

    /// Answers, once its transaction is durable or has failed.
    fn answer(self: Box<Self>, transaction: Result<(), StoreError>);
}

struct Work<T, F> {
    operation: &'static str,
    verb: F,
    outcome: Option<Result<T, Problem>>,
    reply: oneshot::Sender<Answer<T>>,
}

impl<T, F> Task for Work<T, F>
where
    T: Send,
    F: Fn(&mut dyn Ledger) -> Result<T, Problem> + Send,
{
    fn run(&mut self, book: &mut Book) -> bool {
        let outcome = self.outcome.insert((self.verb)(book));
        outcome.is_ok()
    }

    fn answer(self: Box<Self>, transaction: Result<(), StoreError>) {
        let outcome = self.outcome.unwrap_or(Err(Problem::Store(StoreError::Closed)));
        let outcome = match transaction {
            Ok(()) => outcome,
            Err(cause) => Err(Problem::Store(cause)),
        };
        // Whoever asked may have gone: what was done stands.
        let _ = self.reply.send(outcome.map_err(|problem| problem.during(self.operation)));
    }
}

struct Thread {
    book: Book,
    heard: Arc<Heard>,
    changes: watch::Sender<i64>,
    tasks: Receiver<Waiting>,
    settings: Settings,
    foreign: Option<i64>,
    position: (i64, i64),
    last_group: usize,
    heard_written: Instant,
}

impl Thread {
    fn run(mut self) {
        loop {
            match self.tasks.recv_timeout(self.settings.poll) {
                Ok(first) => {
                    let group = self.gather(first.task);
                    self.serve(group);
                }
                Err(RecvTimeoutError::Timeout) => self.idle(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if !self.heard.is_empty() {
            let _ = self.transact(&mut [], true);
        }
    }

    /// Takes what waits. Only when the group before had company is it worth to
    /// wait for more, and then in one piece: to be woken for each that comes would
    /// cost more than it brings.
    fn gather(&mut self, first: Box<dyn Task>) -> Vec<Box<dyn Task>> {
        let mut group = vec![first];
        self.take_waiting(&mut group);
        if group.len() < self.last_group {
            std::thread::sleep(self.settings.window);
            self.take_waiting(&mut group);
        }
        self.last_group = group.len();
        group
    }

    fn take_waiting(&self, group: &mut Vec<Box<dyn Task>>) {
        let free = self.settings.group.saturating_sub(group.len());
        group.extend(self.tasks.try_iter().take(free).map(|waiting| waiting.task));
    }

    /// A verb that fails after it wrote takes its transaction with it: it is
    /// taken out, and the others run again. That is rare, and cheaper than a
    /// savepoint around each, which copies every page that a verb touches.
    fn serve(&mut self, mut group: Vec<Box<dyn Task>>) {
        let with_heard = self.heard_is_due();
        let mut runs = 0;
        let done = loop {
            runs += 1;
            match self.transact(&mut group, with_heard) {
                Ok(()) => break Ok(()),
                Err(Broken::Transaction(cause)) => break Err(cause),
                Err(Broken::Verb(place)) => group.remove(place).answer(Ok(())),
            }
            if runs == MOST_RUNS {
                break Err(StoreError::GroupFailed);
            }
        };
        for task in group {
            task.answer(done.clone());
        }
    }

    fn idle(&mut self) {
        self.notice_others();
        if self.heard_is_due() {
            // What could not be written is kept, and taken with the next.
            let _ = self.transact(&mut [], true);
        }
    }

    fn heard_is_due(&self) -> bool {
        self.heard_written.elapsed() >= self.settings.heard_every && !self.heard.is_empty()
    }

    fn transact(&mut self, group: &mut [Box<dyn Task>], with_heard: bool) -> Result<(), Broken> {
        self.begin()?;
        let done = self.in_transaction(group, with_heard);
        match done {
            Ok(position) => {
                self.book.committed();
                if with_heard {
                    self.heard.written();
                    self.heard_written = Instant::now();
                }
                if let Some(position) = position {
                    self.tell(position);
                }
                Ok(())
            }
            Err(cause) => {
                self.book.forget();
                // SQLite may have rolled back by itself: then this says so, and all is well.
                let _ = self.book.store().execute_batch("ROLLBACK");
                Err(cause)
            }
        }
    }

    /// The position it leads to, if it wrote anything that others want to hear of;
    /// read before the commit, while no lock need be taken for it.
    fn in_transaction(
        &mut self,
        group: &mut [Box<dyn Task>],
        with_heard: bool,
    ) -> Result<Option<(i64, i64)>, Broken> {
        self.notice_others();
        self.book.start();
        for (place, task) in group.iter_mut().enumerate() {
            let before = self.book.writes();
            if !task.run(&mut self.book) && self.book.writes() != before {
                return Err(Broken::Verb(place));
            }
        }
        let wrote = self.book.finish()?;
        if with_heard {
            self.book.keep_heard(&self.heard.take())?;
        }
        let position = if wrote { Some(read::position(self.book.store())?) } else { None };
        self.book.store().prepare_cached("COMMIT")?.execute([])?;
        Ok(position)
    }

    /// Another process may write: it is waited for, but not for ever.
    fn begin(&mut self) -> Stored<()> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let begun =
                self.book.store().prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
            match begun {
                Ok(_) => return Ok(()),
                Err(busy) if !is_busy(&busy) => return Err(busy.into()),
                Err(_) if started.elapsed() >= self.settings.patience => {
                    return Err(StoreError::Locked { waited: self.settings.patience });
                }
                Err(_) => {
                    std::thread::sleep(jittered(pause));
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    self.notice_others();
                }
            }
        }
    }

    /// Looks whether another process has committed since the last look.
    fn notice_others(&mut self) {
        let Ok(commits) = self.book.foreign_commits() else {
            return;
        };
        if self.foreign.replace(commits) == Some(commits) {
            return;
        }
        self.book.forget();
        // Another process that writes down whom it heard changes nothing here.
        if let Ok(position) = read::position(self.book.store())
            && position != self.position
        {
            self.tell(position);
        }
    }

    fn tell(&mut self, position: (i64, i64)) {
        self.position = position;
        self.changes.send_replace(position.0);
    }
}

/// Why a transaction was rolled back.
enum Broken {
    /// The verb at this place of the group wrote something, and then failed.
    Verb(usize),
    /// The transaction itself failed.
    Transaction(StoreError),
}

impl<E: Into<StoreError>> From<E> for Broken {
    fn from(cause: E) -> Self {
        Self::Transaction(cause.into())
    }
}

const MOST_RUNS: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(8);
