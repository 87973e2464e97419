//! The agent's process: hardened first, then wired from what it was told. The
//! one place where adapters meet ports.

mod agent;
mod check;
mod failure;
mod hardening;
mod interrupt;
mod join;
mod leave;
mod lock;
mod plan;
mod preflight;
mod remembered;
mod reset;
mod service;
mod standing;
mod status;
mod token;
mod watch;

use failure::Failure;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use berth_program::shell;
use berth_telemetry::names::{attribute, service as names};
use berth_telemetry::relay::Kept;
use berth_telemetry::{LogFormat, Share, Telemetry};

use clap::CommandFactory as _;
use tokio::runtime::{Builder, LocalOptions};

use crate::cli::{self, Cli, Command, Config, Form, Invocation};
use crate::config::{self, Defaults, Settings};
use crate::output;

/// How long the process waits at its end for the collector to take its spans.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// Runs the command line and says how the process ends.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Err(error) = hardening::harden() {
        output::tell(&output::warning(&error.to_string()));
    }
    let invocation = match cli::parse(arguments) {
        Ok(invocation) => invocation,
        Err(unusable) => {
            // A reader that has gone away needs no help.
            let _ = unusable.said.print();
            let asked_for = unusable.was_asked_for();
            return if asked_for {
                ExitCode::SUCCESS
            } else {
                failure::code(berth_domain::diagnosis::Exit::Usage)
            };
        }
    };
    obey(&invocation).unwrap_or_else(|failure| {
        output::tell(&failure.text());
        failure::code(failure.exit())
    })
}

fn obey(invocation: &Invocation) -> Result<ExitCode, Failure> {
    let said = match &invocation.cli.command {
        Command::Config(Config::PrintDefaults) => output::say(config::PRINT_DEFAULTS),
        Command::Completion(asked) => output::say_raw(&shell::completion(asked.shell, Cli::command())),
        Command::Man => shell::man(Cli::command()).and_then(|page| output::say_raw(&page)),
        Command::Version(asked) => output::version(asked.output),
        Command::Config(Config::Check(asked)) => {
            let rows = config::rows(&settings(invocation, &Defaults::COMMAND)?);
            match asked.output {
                Form::Text => output::say(&output::settings(&rows)),
                Form::Json => output::say_pretty(&serde_json::json!({ "settings": rows })),
            }
        }
        Command::Join(_)
        | Command::Run(_)
        | Command::Check(_)
        | Command::Plan(_)
        | Command::Reset(_)
        | Command::Leave(_)
        | Command::Status(_) => return on_runtime(invocation),
    };
    said.map(|()| ExitCode::SUCCESS).map_err(Failure::Output)
}

async fn work(with: &Context<'_>, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Join(asked) => Box::pin(join::join(with, asked)).await,
        Command::Run(asked) => Box::pin(join::run(with, asked)).await,
        Command::Check(asked) => Box::pin(check::run(with, asked)).await,
        Command::Plan(asked) => Box::pin(plan::run(with, asked)).await,
        Command::Leave(asked) => Box::pin(leave::run(with, asked)).await,
        Command::Reset(asked) => Box::pin(reset::run(with, asked)).await,
        Command::Status(asked) => status::run(with, asked),
        // Done before there was a runtime.
        Command::Config(_) | Command::Completion(_) | Command::Man | Command::Version(_) => {
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn settings(invocation: &Invocation, defaults: &Defaults) -> Result<Settings, Failure> {
    let file = config::read(invocation.cli.global.config.as_deref())?;
    Ok(Settings::resolve(cli::given(invocation), file, defaults))
}

/// What a command works with.
pub(crate) struct Context<'a> {
    /// What is in force.
    pub(crate) settings: Settings,
    /// Where files are applied.
    pub(crate) root: &'a Path,
    /// Whether progress is not wanted.
    pub(crate) quiet: bool,
    /// Spans that wait for a line.
    pub(crate) spans: Option<Kept>,
}

impl Context<'_> {
    /// Whether the running system is what is changed.
    pub(crate) fn live(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// Runs a command on a runtime of one thread, with telemetry around it. The runtime is
/// of the kind that can be no other: with the general kind tokio's scheduler for many threads
/// comes into the program, and with its statistics the mathematics library into memory.
fn on_runtime(invocation: &Invocation) -> Result<ExitCode, Failure> {
    let is_service = matches!(invocation.cli.command, Command::Run(_));
    let defaults = if is_service { Defaults::SERVICE } else { Defaults::COMMAND };
    let global = &invocation.cli.global;
    let settings = settings(invocation, &defaults)?;
    if !global.root.is_dir() {
        return Err(Failure::Root { root: global.root.clone() });
    }
    install_crypto();
    let telemetry = Telemetry::install(&telemetry(&settings))?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Failure::Runtime)?;
    let context = Context { settings, root: &global.root, quiet: global.quiet, spans: telemetry.kept() };
    let done = runtime.block_on(work(&context, &invocation.cli.command));
    // A blocking read, such as of standard input, may never end.
    runtime.shutdown_background();
    telemetry.shutdown(LAST_SPANS);
    done
}

/// One provider for all of TLS in the process (SECURITY: aws-lc-rs).
fn install_crypto() {
    // Fails only where one is installed already, and that can only be the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn telemetry(settings: &Settings) -> berth_telemetry::Settings {
    let roots = crate::host::survey::Roots::machine(Path::new("/"));
    let machine_id = std::fs::read_to_string(roots.live.join("etc/machine-id")).ok();
    let mut resource = vec![(attribute::HOST_ARCH, std::env::consts::ARCH.to_owned())];
    if let Some(id) = machine_id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()) {
        resource.push((attribute::HOST_ID, id));
    }
    berth_telemetry::Settings {
        service_name: names::AGENT,
        service_version: cli::VERSION,
        instance_id: uuid::Uuid::now_v7().to_string(),
        resource,
        otlp_endpoint: settings.otlp_endpoint.value.clone(),
        good_traces: Share::ALL,
        // Without a collector of its own, its spans go over its line.
        keeps_spans: true,
        recent: None,
        log_format: match settings.log_format.value {
            config::LogFormat::Text => LogFormat::Text,
            config::LogFormat::Json => LogFormat::Json,
        },
        log_filter: settings.log_level.value.clone(),
        colour: output::colour_on_stderr(),
    }
}
