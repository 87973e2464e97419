//! CPU time of processes, and how measurements spread.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::pause;

/// Counts the CPU of some processes, less what each spends in that time by living.
pub(super) struct Meter {
    processes: Vec<u32>,
    /// Parts of a core.
    at_rest: Vec<f64>,
}

/// One that counts.
pub(super) struct Counting {
    meter: Meter,
    before: Vec<Duration>,
    began: Instant,
}

impl Meter {
    /// Waits until all are at rest, and looks at what they spend then.
    pub(super) fn at_rest(processes: Vec<u32>) -> Result<Self> {
        until_quiet(&processes)?;
        let before = all(&processes)?;
        wait(IDLE)?;
        let parts = all(&processes)?.into_iter().zip(before);
        let part = |(after, before): (Duration, Duration)| {
            after.saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64()
        };
        Ok(Self { at_rest: parts.map(part).collect(), processes })
    }

    pub(super) fn start(self) -> Result<Counting> {
        Ok(Counting { before: all(&self.processes)?, began: Instant::now(), meter: self })
    }
}

impl Counting {
    /// What each has spent so far.
    pub(super) fn spent(&self) -> Result<Vec<Duration>> {
        let (after, took) = (all(&self.meter.processes)?, self.began.elapsed());
        let each = after.into_iter().zip(&self.before).zip(&self.meter.at_rest);
        let each = each
            .map(|((after, before), rest)| after.saturating_sub(*before).saturating_sub(took.mul_f64(*rest)));
        Ok(each.collect())
    }
}

fn all(processes: &[u32]) -> Result<Vec<Duration>> {
    processes.iter().map(|process| spent(*process)).collect()
}

/// The CPU time of a process, ended threads included (proc(5), `stat`, fields 14
/// and 15).
fn spent(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("reading a process's times")?;
    let (_, fields) = stat.rsplit_once(')').context("reading a process's times")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * MILLISECONDS_A_TICK))
}

/// Waits until these processes do little more than live.
pub(super) fn until_quiet(processes: &[u32]) -> Result<()> {
    let began = Instant::now();
    let sum = || processes.iter().map(|process| spent(*process)).sum::<Result<Duration>>();
    while began.elapsed() < QUIET_WITHIN {
        let before = sum()?;
        wait(WINDOW)?;
        if sum()?.saturating_sub(before) < WINDOW.mul_f64(QUIET) {
            return Ok(());
        }
    }
    bail!("the control plane did not come to rest within {} s", QUIET_WITHIN.as_secs())
}

/// Sleeps, unless somebody wants this to end.
pub(super) fn wait(time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        pause()?;
    }
    Ok(())
}

/// Median, least and greatest.
pub(super) struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), least: at(0), greatest: at(sorted.len().saturating_sub(1)) }
    }

    /// (max - min) / median.
    pub(super) fn width(&self) -> f64 {
        (self.greatest - self.least) / self.median
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let Self { median, least, greatest } = self;
        write!(f, "{median:.digits$} [{least:.digits$}-{greatest:.digits$}]")
    }
}

const MILLISECONDS_A_TICK: u64 = 10;
/// What a control plane at rest is looked at for.
const IDLE: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_millis(600);
/// The part of a core that an idle control plane may take.
const QUIET: f64 = 0.2;
const QUIET_WITHIN: Duration = Duration::from_secs(60);
