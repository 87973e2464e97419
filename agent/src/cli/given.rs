//! Which settings the command line and the environment give, and by which flag
//! or variable each was given.

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};

use super::{Cli, Command, Config, Invocation, JoinOptions, MachineOptions};
use crate::config::{Given, Origin};

/// What was given, for [`crate::config::Settings::resolve`].
#[must_use]
pub fn given(invocation: &Invocation) -> Given {
    let sources = Sources { matches: &invocation.matches };
    let mut given = Given::default();
    let global = &invocation.cli.global;
    given.log_format = sources.with("log_format", global.log_format);
    given.log_level = sources.with("log_level", global.log_level.clone());
    // An empty variable counts as none (OpenTelemetry, environment variables).
    let endpoint = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
    given.otlp_endpoint = sources.with("otlp_endpoint", endpoint(&global.otlp_endpoint)).or_else(|| {
        sources.with("otel_exporter_otlp_endpoint", endpoint(&global.otel_exporter_otlp_endpoint))
    });
    match &invocation.cli.command {
        Command::Join(join) => {
            given.server = sources.with("server", join.server.clone());
            join_options(&mut given, &sources, &join.options);
        }
        Command::Run(run) => {
            given.server = sources.with("server", run.server.clone());
            join_options(&mut given, &sources, &run.options);
        }
        Command::Config(Config::Check(check)) => {
            given.server = sources.with("server", check.server.clone());
            join_options(&mut given, &sources, &check.options);
        }
        Command::Leave(leave) => given.server = sources.with("server", leave.server.clone()),
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
    given.server_name = sources.with("server_name", options.server_name.clone());
    given.token_file = sources.with("token_file", options.token_file.clone());
    given.ca_pins = sources.with("ca_pins", Some(options.ca_pins.clone()).filter(|pins| !pins.is_empty()));
    given.timeout = sources.with("timeout", options.timeout);
    given.no_wait = sources.with("no_wait", Some(options.no_wait));
    machine_options(given, sources, &options.machine);
}

fn machine_options(given: &mut Given, sources: &Sources<'_>, options: &MachineOptions) {
    given.node_name = sources.with("node_name", options.node_name.clone());
    given.pool = sources.with("pool", options.pool.clone());
    given.ignore = sources
        .with("ignore_preflight_errors", options.ignore_preflight_errors.clone().map(|checks| checks.0));
}

/// Where clap found each argument.
struct Sources<'a> {
    matches: &'a ArgMatches,
}

impl Sources<'_> {
    /// The value with its origin, unless nobody gave one.
    fn with<T>(&self, id: &str, value: Option<T>) -> Option<(T, Origin)> {
        let value = value?;
        let source = self.source(id)?;
        if source == ValueSource::CommandLine {
            Some((value, Origin::Flag(self.flag(id))))
        } else if source == ValueSource::EnvVariable {
            Some((value, Origin::Environment(self.variable(id))))
        } else {
            None
        }
    }

    fn source(&self, id: &str) -> Option<ValueSource> {
        let mut matches = Some(self.matches);
        while let Some(level) = matches {
            if level.ids().any(|present| present.as_str() == id)
                && let Some(source) = level.value_source(id)
            {
                return Some(source);
            }
            matches = level.subcommand().map(|(_, deeper)| deeper);
        }
        None
    }

    /// The flag as it is written; of a bare value, its name in the help.
    fn flag(&self, id: &str) -> String {
        let argument = self.argument(id);
        match argument.as_ref().and_then(clap::Arg::get_long) {
            Some(long) => format!("--{long}"),
            None => argument
                .and_then(|argument| argument.get_value_names()?.first().map(ToString::to_string))
                .unwrap_or_else(|| id.to_owned()),
        }
    }

    fn variable(&self, id: &str) -> String {
        let argument = self.argument(id);
        let name =
            argument.and_then(|argument| argument.get_env().map(|name| name.to_string_lossy().into_owned()));
        name.unwrap_or_else(|| id.to_owned())
    }

    /// The argument as the command that was given has it.
    fn argument(&self, id: &str) -> Option<clap::Arg> {
        let (mut command, mut matches) = (Cli::command(), self.matches);
        loop {
            if let Some(found) = command.get_arguments().find(|argument| argument.get_id().as_str() == id) {
                return Some(found.clone());
            }
            let (name, deeper) = matches.subcommand()?;
            command = command.find_subcommand(name)?.clone();
            matches = deeper;
        }
    }
}
