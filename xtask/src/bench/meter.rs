//! CPU time of processes, and how measurements spread.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::pause;

/// The CPU time of a process, ended threads included (proc(5), `stat`, fields 14
/// and 15).
pub(super) fn spent(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("reading a process's times")?;
    let (_, fields) = stat.rsplit_once(')').context("reading a process's times")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * MILLISECONDS_A_TICK))
}

/// Waits until these processes do little more than live.
pub(super) fn until_quiet(processes: &[u32]) -> Result<()> {
    let began = Instant::now();
    let all = || processes.iter().map(|process| spent(*process)).sum::<Result<Duration>>();
    while began.elapsed() < QUIET_WITHIN {
        let before = all()?;
        wait(WINDOW)?;
        if all()?.saturating_sub(before) < WINDOW.mul_f64(QUIET) {
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
const WINDOW: Duration = Duration::from_millis(600);
/// The part of a core that an idle control plane may take.
const QUIET: f64 = 0.2;
const QUIET_WITHIN: Duration = Duration::from_secs(60);
