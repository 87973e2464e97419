//! One leg of `cargo xtask bench kubernetes`: so many machines, each once, and what
//! they waited for. What it costs the cluster is measured outside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_domain::token::JoinToken;
use clap::Args;
use tokio::task::JoinSet;

use crate::machine::Fleet;
use crate::meter::Spread;
use crate::plain::Client;
use crate::writes::{Besides, write};

/// Which machines, and how many of them at a time.
#[derive(Args)]
struct Crowd {
    /// The first one's number; no two of a cluster have the same.
    #[arg(long)]
    first: usize,
    #[arg(long)]
    count: usize,
    /// Under way at one time.
    #[arg(long)]
    in_flight: usize,
    /// Seconds that plain ones stay on their lines once the last has come, and that a
    /// server has for what it writes behind.
    #[arg(long)]
    stay: u64,
}

#[derive(Args)]
pub(crate) struct Berth {
    /// The server's join endpoint.
    #[arg(long)]
    server: SocketAddr,
    #[arg(long)]
    token: JoinToken,
    #[command(flatten)]
    crowd: Crowd,
}

#[derive(Args)]
pub(crate) struct Plain {
    /// The API server.
    #[arg(long)]
    api: SocketAddr,
    /// Its CA, PEM.
    #[arg(long)]
    ca: PathBuf,
    /// A bootstrap token; for writes, an account's.
    #[arg(long)]
    token: String,
    #[command(flatten)]
    crowd: Crowd,
}

impl Berth {
    pub(crate) async fn run(self) -> Result<()> {
        let fleet = Arc::new(Fleet::new(self.server)?);
        let token = self.token;
        self.crowd
            .come(move |number| {
                let (fleet, token) = (Arc::clone(&fleet), token.clone());
                async move {
                    let began = Instant::now();
                    let issued = fleet.enroll(&token, number).await.context("connection 1")?;
                    Ok((began.elapsed(), issued))
                }
            })
            .await
    }
}

impl Plain {
    pub(crate) async fn run(self) -> Result<()> {
        let ca = std::fs::read(&self.ca).context("reading the API server's CA")?;
        let client = Arc::new(Client::new(self.api, &ca, self.token)?);
        self.crowd
            .come(move |number| {
                let client = Arc::clone(&client);
                async move {
                    let began = Instant::now();
                    let line = client.certificate(number).await?;
                    Ok((began.elapsed(), line))
                }
            })
            .await
    }
}

impl Plain {
    /// An object is made for each machine, and nobody stands behind it.
    pub(crate) async fn only_write(self, besides: Besides) -> Result<()> {
        let ca = std::fs::read(&self.ca).context("reading the API server's CA")?;
        let client = Arc::new(Client::new(self.api, &ca, self.token)?);
        let line = client.line().await?;
        self.crowd
            .come(move |number| {
                let (client, line) = (Arc::clone(&client), line.clone());
                async move {
                    let began = Instant::now();
                    write(&client, line, number, besides).await?;
                    Ok((began.elapsed(), ()))
                }
            })
            .await
    }
}

impl Crowd {
    /// Lets all of them come, and says how it went: seconds until the last had its
    /// certificate, until all was done, and how long each waited.
    async fn come<T, F>(&self, join: impl Fn(usize) -> F) -> Result<()>
    where
        T: Send + 'static,
        F: Future<Output = Result<(Duration, T)>> + Send + 'static,
    {
        ensure!(self.count > 0 && self.in_flight > 0, "nobody is to come");
        let began = Instant::now();
        let mut under_way = JoinSet::new();
        let (mut came, mut waits, mut last) = (Vec::new(), Vec::new(), Duration::ZERO);
        let mut take = |done: Result<(Duration, Duration, T)>| -> Result<()> {
            let (wait, at, line) = done?;
            waits.push(wait.as_secs_f64());
            last = last.max(at);
            came.push(line);
            Ok(())
        };
        for number in self.first..self.first + self.count {
            if under_way.len() >= self.in_flight {
                take(
                    under_way
                        .join_next()
                        .await
                        .context("a join is under way")?
                        .context("a join was cut short")?,
                )?;
            }
            let started = began.elapsed();
            let join = join(number);
            under_way.spawn(async move {
                let done = join.await.with_context(|| format!("machine {number}"));
                done.map(|(wait, line)| (wait, started + wait, line))
            });
        }
        while let Some(done) = under_way.join_next().await {
            take(done.context("a join was cut short")?)?;
        }
        let waits = Spread::of(&waits);
        let (all, last) = (began.elapsed().as_secs_f64(), last.as_secs_f64());
        println!("certificates={last:.3} all={all:.3} median={:.3}", waits.median());
        tokio::time::sleep(Duration::from_secs(self.stay)).await;
        drop(came);
        Ok(())
    }
}
