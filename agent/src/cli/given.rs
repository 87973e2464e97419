//! Which settings the command line and the environment give, and by which flag
//! or variable each was given.

use berth_program::Sources;
use clap::CommandFactory;

use super::{Cli, Command, Config, Invocation, JoinOptions, MachineOptions};
use crate::config::Given;

/// What was given, for [`crate::config::Settings::resolve`].
#[must_use]
pub fn given(invocation: &Invocation) -> Given {
    let sources = Sources::new(Cli::command(), &invocation.matches);
    let mut given = Given::default();
    let global = &invocation.cli.global;
    given.log_format = sources.with("log_format", &global.log_format);
    given.log_level = sources.with("log_level", &global.log_level);
    // An empty variable counts as none (OpenTelemetry, environment variables).
    let endpoint = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
    given.otlp_endpoint = sources.with("otlp_endpoint", &endpoint(&global.otlp_endpoint)).or_else(|| {
        sources.with("otel_exporter_otlp_endpoint", &endpoint(&global.otel_exporter_otlp_endpoint))
    });
    match &invocation.cli.command {
        Command::Join(join) => {
            given.server = sources.with("server", &join.server);
            join_options(&mut given, &sources, &join.options);
        }
        Command::Run(run) => {
            given.server = sources.with("server", &run.server);
            join_options(&mut given, &sources, &run.options);
        }
        Command::Config(Config::Check(check)) => {
            given.server = sources.with("server", &check.server);
            join_options(&mut given, &sources, &check.options);
        }
        Command::Leave(leave) => given.server = sources.with("server", &leave.server),
        Command::Check(check) => machine_options(&mut given, &sources, &check.machine),
        Command::Plan(plan) => machine_options(&mut given, &sources, &plan.machine),
        Command::Reset(_)
        | Command::Status(_)
        | Command::Config(Config::PrintDefaults)
        | Command::Completion(_)
        | Command::Man
        | Command::Version(_) => {}
    }
    given
}

fn join_options(given: &mut Given, sources: &Sources<'_>, options: &JoinOptions) {
    given.server_name = sources.with("server_name", &options.server_name);
    given.token_file = sources.with("token_file", &options.token_file);
    given.ca_pins = sources.with("ca_pins", &Some(options.ca_pins.clone()).filter(|pins| !pins.is_empty()));
    given.timeout = sources.with("timeout", &options.timeout);
    given.no_wait = sources.with("no_wait", &Some(options.no_wait));
    machine_options(given, sources, &options.machine);
}

fn machine_options(given: &mut Given, sources: &Sources<'_>, options: &MachineOptions) {
    given.node_name = sources.with("node_name", &options.node_name);
    given.pool = sources.with("pool", &options.pool);
    given.ignore = sources
        .with("ignore_preflight_errors", &options.ignore_preflight_errors.clone().map(|checks| checks.0));
}
