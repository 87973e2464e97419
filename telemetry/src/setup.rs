//! What a process sets up before its first span: logs on standard error, and
//! spans by OTLP to any collector, if one is configured.
//!
//! It needs no runtime of the program's: exporting has a thread of its own
//! (see `export`), so installing works before, inside and without `tokio::main`,
//! with one thread or with many.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanProcessor};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Metadata};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use crate::export::{Counts, Queue};
use crate::logs;
use crate::names::attribute;
use crate::recent::Recent;
use crate::relay::Kept;
use crate::sample::{Sampled, Share};
use crate::uncollected::Uncollected;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for each event.
    Text,
    /// One JSON object for each event, on one line.
    Json,
}

/// What a process says of itself, and to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One of [`crate::names::service`].
    pub service_name: &'static str,
    /// The program's version.
    pub service_version: &'static str,
    /// Unique among all processes that run.
    pub instance_id: String,
    /// What else describes the process, by names of [`attribute`].
    pub resource: Vec<(&'static str, String)>,
    /// The collector's OTLP/gRPC endpoint, such as `http://localhost:4317`;
    /// without one nothing is exported, and trace ids are made all the same.
    pub otlp_endpoint: Option<String>,
    /// Of traces in which all went well, how many go there.
    pub good_traces: Share,
    /// Without an endpoint: whether spans are kept, for a while, for somebody who brings
    /// them elsewhere ([`Telemetry::kept`]).
    pub keeps_spans: bool,
    /// Where the spans of joins are kept for somebody who asks this process for them. With
    /// neither this nor an endpoint no span is made.
    pub recent: Option<Recent>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which events are logged, as `info` or `warn,berth_server=debug`. It does
    /// not change which spans are exported.
    pub log_filter: String,
    /// Whether text lines are coloured.
    pub colour: bool,
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The filter's text is not understood.
    #[error(
        "log filter {filter:?} is not understood; write a level (info) or directives (warn,berth_server=debug)"
    )]
    LogFilter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The endpoint's text is not understood.
    #[error(
        "OTLP endpoint {endpoint:?} cannot be used; write it as http://HOST:PORT (gRPC, usually port 4317)"
    )]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: ExporterBuildError,
    },
    /// The exporter's thread or its runtime could not be started.
    #[error("starting the thread that exports spans")]
    Thread(#[source] io::Error),
    /// The exporter's thread ended before it was ready.
    #[error("the thread that exports spans ended at once")]
    ThreadDied,
    /// Something else in the process took the place first.
    #[error("telemetry was installed before in this process")]
    Installed(#[source] tracing::dispatcher::SetGlobalDefaultError),
}

/// What became of the spans of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Spans that the collector has acknowledged.
    pub delivered: u64,
    /// Spans that ended and were not acknowledged when the time was over.
    pub lost: u64,
}

/// What became of spans on their way to a collector, up to now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Spans(pub(crate) Arc<Counts>);

impl Spans {
    /// The collector has acknowledged so many.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.0.delivered.load(Ordering::Relaxed)
    }

    /// For so many there was no room in the queue.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// So many the collector did not take in time.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// So many wait, or are on their way.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let gone = [self.delivered(), self.dropped(), self.failed()].into_iter().fold(0, u64::saturating_add);
        self.0.ended.load(Ordering::Relaxed).saturating_sub(gone)
    }
}

/// Telemetry that is set up. Keep it until the process ends, then call
/// [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    /// Where spans are made for somebody who collects them.
    provider: Option<SdkTracerProvider>,
    counts: Arc<Counts>,
    kept: Option<Kept>,
}

impl Telemetry {
    /// Sets up the whole process, with logs on standard error.
    ///
    /// # Errors
    ///
    /// The filter or the endpoint is not understood, the exporter's thread does
    /// not start, or telemetry is installed already.
    pub fn install(settings: &Settings) -> Result<Self, InstallError> {
        let (telemetry, dispatch) = Self::prepare(settings, io::stderr)?;
        tracing::dispatcher::set_global_default(dispatch).map_err(InstallError::Installed)?;
        Ok(telemetry)
    }

    /// The same with logs to `logs`, in force only where the dispatch is made
    /// the default.
    ///
    /// # Errors
    ///
    /// As [`Telemetry::install`], without the last.
    pub fn prepare<W>(settings: &Settings, logs: W) -> Result<(Self, Dispatch), InstallError>
    where
        W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
    {
        let filter: Targets = settings
            .log_filter
            .parse()
            .map_err(|source| InstallError::LogFilter { filter: settings.log_filter.clone(), source })?;
        let telemetry = Self::connect(settings)?;
        let spans: Box<dyn Layer<_> + Send + Sync> = match &telemetry.provider {
            None => Box::new(Uncollected),
            Some(provider) => Box::new(
                tracing_opentelemetry::layer()
                    .with_tracer(provider.tracer("berth"))
                    .with_location(false)
                    .with_threads(false)
                    .with_target(false)
                    .with_level(false)
                    .with_tracked_inactivity(false)
                    // Parents are found by tracing's own current span; activating a
                    // context at every poll of a future would be paid for nothing.
                    .with_context_activation(false),
            ),
        };
        let subscriber = Registry::default()
            .with(logs::layer(settings.log_format, settings.colour, logs).with_filter(filter))
            .with(spans.with_filter(filter_fn(ours).with_max_level_hint(LevelFilter::INFO)));
        Ok((telemetry, Dispatch::new(subscriber)))
    }

    /// The spans that wait for somebody to bring them elsewhere.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        self.kept.clone()
    }

    /// What became of the spans of this process.
    #[must_use]
    pub fn spans(&self) -> Spans {
        Spans(Arc::clone(&self.counts))
    }

    /// Hands the spans that still wait to the collector, for at most
    /// `patience`; blocks the calling thread that long at most. Spans that end
    /// afterwards are lost.
    pub fn shutdown(self, patience: Duration) -> Delivery {
        let Some(provider) = self.provider else { return Delivery::default() };
        let in_time = provider.shutdown_with_timeout(patience).is_ok();
        let delivered = self.counts.delivered.load(Ordering::Relaxed);
        let lost = self.counts.ended.load(Ordering::Relaxed).saturating_sub(delivered);
        if lost > 0 {
            tracing::debug!(lost, delivered, in_time, "spans were dropped");
        }
        Delivery { delivered, lost }
    }

    fn connect(settings: &Settings) -> Result<Self, InstallError> {
        let Some(endpoint) = &settings.otlp_endpoint else {
            let kept = settings.keeps_spans.then(Kept::default);
            let recent = settings.recent.clone();
            let is_wanted = kept.is_some() || recent.is_some();
            let provider = is_wanted.then(|| provider(resource(settings), kept.clone(), recent));
            return Ok(Self { provider, counts: Arc::default(), kept });
        };
        let resource = resource(settings);
        let queue = Queue::start(endpoint, resource.clone())?;
        let counts = queue.counts();
        let judged = Sampled::new(queue, settings.good_traces);
        let provider = provider(resource, Some(judged), settings.recent.clone());
        Ok(Self { provider: Some(provider), counts, kept: None })
    }
}

/// Only our own spans and events make up a trace: those of the HTTP/2 and gRPC
/// crates would double every RPC, and the exporter would tell of itself.
fn ours(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= tracing::Level::INFO
        && metadata
            .target()
            .strip_prefix("berth")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
}

fn provider<P: SpanProcessor + 'static>(
    resource: Resource,
    leaving: Option<P>,
    recent: Option<Recent>,
) -> SdkTracerProvider {
    let mut builder = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
    if let Some(leaving) = leaving {
        builder = builder.with_span_processor(leaving);
    }
    if let Some(recent) = recent {
        builder = builder.with_span_processor(recent);
    }
    builder.build()
}

fn resource(settings: &Settings) -> Resource {
    let more = settings.resource.iter().map(|(name, value)| KeyValue::new(*name, value.clone()));
    Resource::builder()
        .with_attributes(more)
        .with_attributes([
            KeyValue::new(attribute::SERVICE_NAME, settings.service_name),
            KeyValue::new(attribute::SERVICE_VERSION, settings.service_version),
            KeyValue::new(attribute::SERVICE_INSTANCE_ID, settings.instance_id.clone()),
        ])
        .build()
}
