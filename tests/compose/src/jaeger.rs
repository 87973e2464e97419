//! Jaeger as a process of a test's own, with its page, and its memory as its store.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::command;
use crate::programs::Programs;

/// Jaeger; it is killed with this value.
pub struct Jaeger {
    child: Child,
    otlp: SocketAddr,
    page: SocketAddr,
    folder: TempDir,
}

impl Jaeger {
    /// Starts one on free ports of loopback.
    ///
    /// # Errors
    /// It does not answer in time; with all that it said.
    pub fn start(programs: &Programs) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("berth-jaeger-").tempdir();
        let folder = folder.context("making a folder for Jaeger")?;
        let [otlp, page, grpc] = free_addresses()?;
        let configuration = folder.path().join("jaeger.yaml");
        let ui = programs.jaeger_page();
        let text = format!(
            "service:\n  extensions: [jaeger_storage, jaeger_query]\n  pipelines:\n    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}\n  telemetry: {{logs: {{level: warn}}, metrics: {{level: none}}}}\n\
             extensions:\n  jaeger_query:\n    storage: {{traces: memory}}\n    ui: {{assets_path: {}}}\n    http: {{endpoint: \"{page}\"}}\n    grpc: {{endpoint: \"{grpc}\"}}\n  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 10000}}}}}}}}\n\
             receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"{otlp}\"}}}}}}}}\n\
             exporters: {{jaeger_storage_exporter: {{trace_storage: memory}}}}\n",
            ui.display()
        );
        fs::write(&configuration, text).context("writing Jaeger's configuration")?;
        let log = File::create(folder.path().join("log")).context("making Jaeger's log")?;
        let same = log.try_clone().context("sharing a log file")?;
        let mut jaeger = command("setpriv");
        jaeger.args(["--pdeathsig", "TERM", "--"]).arg(programs.jaeger()).arg("--config").arg(&configuration);
        let child =
            jaeger.stdin(Stdio::null()).stdout(log).stderr(same).spawn().context("starting Jaeger")?;
        let mut jaeger = Self { child, otlp, page, folder };
        jaeger.wait()?;
        Ok(jaeger)
    }

    /// Where spans go by OTLP/gRPC.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.otlp)
    }

    /// Where its page and its API are.
    #[must_use]
    pub fn page(&self) -> SocketAddr {
        self.page
    }

    fn wait(&mut self) -> Result<()> {
        let began = Instant::now();
        while [self.otlp, self.page].iter().any(|address| TcpStream::connect(address).is_err()) {
            let ended = self.child.try_wait().context("asking after Jaeger")?;
            if ended.is_some() || began.elapsed() > READY_WITHIN {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("Jaeger does not answer after {:?} ({ended:?}); it said:\n{log}", began.elapsed());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to end.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Ports of loopback that nobody listens on now.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(listeners) {
        *address = listener.and_then(|listener| listener.local_addr()).context("finding a free port")?;
    }
    Ok(addresses)
}

const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
