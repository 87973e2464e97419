//! `berth-server run`: the process around the server, from its telemetry to its
//! last span.

use std::io::IsTerminal as _;
use std::time::Duration;

use berth_telemetry::Telemetry;
use berth_telemetry::recent::Recent;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::VERSION;
use super::output::{Failure, Output};
use crate::app::App;
use crate::config::{Config, LogFormat, TelemetryConfig};

/// How long the last spans have to leave.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// Serves until the process is told to stop.
pub(super) fn serve(config: Config, output: &mut Output) -> Result<(), Failure> {
    // Only a console asks for them; without one and without a collector no span is made.
    let recent = config.settings.console.as_ref().map(|_| Recent::default());
    let with_spans = berth_telemetry::Settings { recent: recent.clone(), ..settings(&config.telemetry) };
    let telemetry = Telemetry::install(&with_spans).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::other)?;
    let served = runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut end = EndSignals::listen().map_err(Failure::other)?;
        // In a cluster it may wait for an API server that is away.
        let app = tokio::select! {
            app = Box::pin(App::bind(config.settings, telemetry.spans(), recent)) => app.map_err(Failure::chain)?,
            () = end.come() => return Ok(()),
        };
        output.text(&greeting(&app).await?)?;
        let serving = app.run(stop.clone());
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => served,
            () = end.come() => {
                stop.cancel();
                serving.await
            }
        }
        .map_err(Failure::chain)
    });
    let delivery = telemetry.shutdown(LAST_SPANS);
    tracing::debug!(lost = delivery.lost, "the last spans are sent");
    served
}

/// Whether the filter of log lines is understood.
pub(super) fn check_filter(telemetry: &TelemetryConfig) -> Result<(), Failure> {
    let without_exporter = berth_telemetry::Settings { otlp_endpoint: None, ..settings(telemetry) };
    Telemetry::prepare(&without_exporter, std::io::sink).map(drop).map_err(Failure::usage)
}

fn settings(telemetry: &TelemetryConfig) -> berth_telemetry::Settings {
    berth_telemetry::Settings {
        service_name: berth_telemetry::names::service::SERVER,
        service_version: VERSION,
        instance_id: uuid::Uuid::now_v7().to_string(),
        resource: Vec::new(),
        otlp_endpoint: telemetry.otlp_endpoint.clone(),
        good_traces: telemetry.good_joins,
        keeps_spans: false,
        recent: None,
        log_format: match telemetry.log_format {
            LogFormat::Text => berth_telemetry::LogFormat::Text,
            LogFormat::Json => berth_telemetry::LogFormat::Json,
        },
        log_filter: telemetry.log_level.clone(),
        colour: std::io::stderr().is_terminal(),
    }
}

/// What a server says that starts: how a machine joins it.
async fn greeting(app: &App) -> Result<zeroize::Zeroizing<String>, Failure> {
    // What goes into a journal stays there: no secret does.
    let kept = std::env::var_os("JOURNAL_STREAM").is_some();
    let line = if kept { None } else { app.first_join_command().await.map_err(Failure::chain)? };
    let endpoint = app.endpoint();
    let console = app.console().map(|(url, tokens)| {
        format!("The console is at {url}; its operators' tokens are in {}.\n", tokens.display())
    });
    let console = console.unwrap_or_default();
    Ok(zeroize::Zeroizing::new(match line {
        Some(line) => {
            format!("To join a machine, run on it within 15 minutes:\n\n    {}\n\n{console}", *line)
        }
        None => {
            format!(
                "Joins are served at {endpoint}. A token: berth-server token create --print-join-command\n{console}"
            )
        }
    }))
}

/// The signals that end a service.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
