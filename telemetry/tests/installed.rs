//! A process as it runs: installed once, all logs on, many threads.

use std::io;
use std::time::Duration;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::phase::Phase;
use berth_telemetry::collector::Collector;
use berth_telemetry::names::service;
use berth_telemetry::phase::{join_span, observed};
use berth_telemetry::{InstallError, LogFormat, Settings, Share, Telemetry};
use tracing::{Instrument, dispatcher};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_exports_its_own_spans_and_not_the_exporters() {
    let collector = Collector::start().await.expect("collector");
    let settings = Settings {
        service_name: service::SERVER,
        service_version: "1",
        instance_id: "1".to_owned(),
        resource: Vec::new(),
        otlp_endpoint: Some(collector.endpoint()),
        good_traces: Share::ALL,
        keeps_spans: false,
        recent: None,
        log_format: LogFormat::Json,
        log_filter: "trace".to_owned(),
        colour: false,
    };
    let (telemetry, dispatch) = Telemetry::prepare(&settings, io::sink).expect("telemetry");
    dispatcher::set_global_default(dispatch).expect("nothing installed before");
    let again = Telemetry::install(&Settings { otlp_endpoint: None, ..settings });
    assert!(matches!(again, Err(InstallError::Installed(_))), "{again:?}");

    let joins = 20;
    let tasks: Vec<_> = (0..joins)
        .map(|attempt| {
            let join = async {
                for phase in Phase::ALL {
                    let done: Result<(), Diagnosis> = observed(phase, async {
                        tokio::task::yield_now().await;
                        Ok(())
                    })
                    .await;
                    done.expect("done");
                }
            };
            tokio::spawn(async move { join.instrument(join_span(attempt)).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("a join");
    }
    let delivery = telemetry.shutdown(Duration::from_secs(10));
    assert_eq!((delivery.delivered, delivery.lost), (120, 0));

    let spans = collector.spans();
    assert_eq!(spans.len(), 120);
    for root in spans.iter().filter(|span| span.name == "join") {
        let children: Vec<_> = spans
            .iter()
            .filter(|span| span.parent_span_id.as_ref() == Some(&root.span_id))
            .map(|span| (span.name.as_str(), span.trace_id == root.trace_id))
            .collect();
        assert_eq!(children, Phase::ALL.map(|phase| (phase.as_str(), true)));
        assert_eq!(root.parent_span_id, None);
    }
}
