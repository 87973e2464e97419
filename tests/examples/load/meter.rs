//! CPU time and memory of another process, and how measurements spread.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The CPU time of a process.
pub(crate) struct Cpu(u32);

impl Cpu {
    pub(crate) const fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// What its threads have run since they began, by the scheduler's count
    /// (`schedstat`, ns). Threads must not end while one measures.
    pub(crate) fn spent(&self) -> Result<Duration> {
        let mut nanoseconds = 0_u64;
        for thread in
            fs::read_dir(format!("/proc/{}/task", self.0)).context("listing the server's threads")?
        {
            let path = thread.context("listing the server's threads")?.path().join("schedstat");
            // A thread may end between the listing and this.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let ran: u64 =
                text.split(' ').next().context("schedstat is empty")?.parse().context("reading schedstat")?;
            nanoseconds = nanoseconds.saturating_add(ran);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// What they have run since they had run `before`.
    pub(crate) fn since(&self, before: Duration) -> Result<Duration> {
        self.spent()?.checked_sub(before).context("CPU time goes forward")
    }
}

/// Microseconds of one of so many.
pub(crate) fn per(spent: Duration, count: usize) -> Result<f64> {
    ensure!(count > 0 && !spent.is_zero(), "nothing was measured");
    Ok(spent.as_secs_f64() * 1e6 / count as f64)
}

/// Waits until the process has nothing left to do.
pub(crate) async fn sleep_until_quiet(process: &Cpu) -> Result<()> {
    let mut before = process.spent()?;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = process.spent()?;
        if now.saturating_sub(before) < Duration::from_millis(4) {
            return Ok(());
        }
        before = now;
    }
    bail!("the server did not come to rest within 20 s")
}

/// Bytes of a process in memory.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("reading the server's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("reading VmRSS")?;
    Ok(kibibytes * 1024)
}

/// As many descriptors as the hard limit lets this process have.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raising the descriptor limit")
}

/// Median, least and greatest.
pub(crate) struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), least: at(0), greatest: at(sorted.len().saturating_sub(1)) }
    }

    pub(crate) const fn median(&self) -> f64 {
        self.median
    }

    /// (max − min) ÷ median.
    pub(crate) fn width(&self) -> f64 {
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
