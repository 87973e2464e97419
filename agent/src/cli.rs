//! The command line: commands, flags, the environment they may come from, and
//! what a wrong one ends with. The one place that reads the environment.

mod given;
mod locale;

pub use given::given;
pub use locale::locale_is_utf8;

use std::ffi::OsString;
use std::path::PathBuf;

use berth_domain::name::PoolName;
use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{Endpoint, LogFormat, Period, Pin};
use crate::host::checks::{CheckId, NotACheck, ignored};

/// The version, with the commit where the build names one.
pub const VERSION: &str = match option_env!("BERTH_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "berth-agent",
    version = VERSION,
    about = "Brings this machine to its berth in a Kubernetes cluster.",
    after_help = EXIT_STATUS,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Apply files below this directory in place of the running system; state is kept there too.
    #[arg(long, value_name = "DIR", global = true, help_heading = EVERYWHERE, default_value = "/", env = "BERTH_AGENT_ROOT")]
    pub root: PathBuf,
    /// The configuration file [default: /etc/berth/agent.yaml, if it is there].
    #[arg(long, value_name = "FILE", global = true, help_heading = EVERYWHERE, env = "BERTH_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// How log lines are written [default: text].
    #[arg(long, value_name = "FORMAT", global = true, help_heading = EVERYWHERE, value_enum, env = "BERTH_AGENT_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Which events are logged: a level, or directives such as warn,berth_agent=debug [default: warn; run: info].
    #[arg(long, value_name = "LEVEL", global = true, help_heading = EVERYWHERE, env = "BERTH_AGENT_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// Export spans by OTLP/gRPC to this collector, such as http://collector:4317.
    #[arg(long, value_name = "URL", global = true, help_heading = EVERYWHERE, env = "BERTH_AGENT_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// The same, as OpenTelemetry names it.
    #[arg(long, value_name = "URL", global = true, help_heading = EVERYWHERE, hide = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// Say only the result, and what went wrong.
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join the cluster: five phases, until the node is Ready or there is a reason why not.
    Join(Join),
    /// Join if need be, then attend and renew: what the system service runs.
    Run(Run),
    /// Look whether this machine can join, and say what to mend.
    Check(Check),
    /// Show what a join would change here, and change nothing.
    Plan(Plan),
    /// Take back what a join has changed here, and forget the machine's identity.
    Reset(Reset),
    /// Leave the cluster politely; files stay until a reset.
    Leave(Leave),
    /// Say how this machine's join stands; the exit status says it too.
    Status(Status),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(Config),
    /// Print the completions of a shell.
    Completion(Completion),
    /// Print the manual page.
    Man,
    /// Print the version.
    Version(Version),
}

/// How a join is to be done.
#[derive(Debug, Args)]
pub struct JoinOptions {
    /// Expect this name in the server's certificate, in place of the endpoint's host.
    #[arg(long, value_name = "NAME", env = "BERTH_AGENT_SERVER_NAME")]
    pub server_name: Option<String>,
    /// Read the token, Berth's or kubeadm's, from this file; - is standard input [default: the systemd credential join-token].
    #[arg(long, value_name = "PATH", env = "BERTH_AGENT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Read the token from this open file descriptor.
    #[arg(long, value_name = "N")]
    pub token_fd: Option<u32>,
    /// The token itself. Every user of this machine can read it here: better use --token-file.
    #[arg(long, value_name = "VALUE")]
    pub token: Option<String>,
    /// Where systemd puts credentials.
    #[arg(long, value_name = "DIR", env = "CREDENTIALS_DIRECTORY", hide = true)]
    pub credentials_directory: Option<PathBuf>,
    /// Trust a server whose CA has this public key, in place of the one in the token: sha256:HEX, as kubeadm writes it (repeatable).
    #[arg(long = "ca-pin", value_name = "PIN", value_delimiter = ',', env = "BERTH_AGENT_CA_PIN")]
    pub ca_pins: Vec<Pin>,
    /// Do not wait: the first reason to wait ends the join.
    #[arg(long, env = "BERTH_AGENT_NO_WAIT", value_parser = BoolishValueParser::new())]
    pub no_wait: bool,
    /// How long to wait in all: 90s, 10m, 1h [default: 10m; run: without end].
    #[arg(long, value_name = "DURATION", env = "BERTH_AGENT_TIMEOUT")]
    pub timeout: Option<Period>,
    /// For tests: abort the process where the join passes this point.
    #[arg(long, value_name = "POINT", env = "BERTH_AGENT_CRASH_AT", hide = true)]
    pub crash_at: Option<String>,
    /// What is asked of the machine.
    #[command(flatten)]
    pub machine: MachineOptions,
}

/// What is asked of the machine, and for it.
#[derive(Debug, Args)]
pub struct MachineOptions {
    /// Ask for this node name in place of the host's name.
    #[arg(long, value_name = "NAME", env = "BERTH_AGENT_NODE_NAME")]
    pub node_name: Option<String>,
    /// Ask for this pool.
    #[arg(long, value_name = "POOL", env = "BERTH_AGENT_POOL")]
    pub pool: Option<PoolName>,
    /// Go on though these checks fail: ids with commas between, or all.
    #[arg(long, value_name = "IDS", value_parser = check_ids, env = "BERTH_AGENT_IGNORE_PREFLIGHT_ERRORS")]
    pub ignore_preflight_errors: Option<CheckIds>,
}

/// `join`.
#[derive(Debug, Args)]
pub struct Join {
    /// The server, or the balancer before it: HOST:PORT.
    #[arg(value_name = "ENDPOINT", env = "BERTH_AGENT_SERVER")]
    pub server: Option<Endpoint>,
    /// Stay after the join: attend and renew, as run does.
    #[arg(long)]
    pub attend: bool,
    /// Leave the service alone: by itself a join ends with berth-agent.service enabled and started, which renews the certificate.
    #[arg(long, conflicts_with = "attend")]
    pub no_service: bool,
    /// How the result is written.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Form,
    /// How to join.
    #[command(flatten)]
    pub options: JoinOptions,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The server, or the balancer before it: HOST:PORT.
    #[arg(long, value_name = "ENDPOINT", env = "BERTH_AGENT_SERVER")]
    pub server: Option<Endpoint>,
    /// How to join.
    #[command(flatten)]
    pub options: JoinOptions,
}

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// How the checklist is written.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: CheckForm,
    /// What is asked of the machine.
    #[command(flatten)]
    pub machine: MachineOptions,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// How the plan is written.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: PlanForm,
    /// What is asked of the machine.
    #[command(flatten)]
    pub machine: MachineOptions,
}

/// `reset`.
#[derive(Debug, Args)]
pub struct Reset {
    /// Say what would be taken back, and take nothing back.
    #[arg(long)]
    pub dry_run: bool,
    /// Forget who this machine is too: to the server it will be another one.
    #[arg(long)]
    pub forget_machine: bool,
    /// How the result is written.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Form,
}

/// `leave`.
#[derive(Debug, Args)]
pub struct Leave {
    /// The server [default: the one that was joined].
    #[arg(long, value_name = "ENDPOINT", env = "BERTH_AGENT_SERVER")]
    pub server: Option<Endpoint>,
    /// How long to try in all: pods may take their time to go.
    #[arg(long, value_name = "DURATION", default_value = "3m")]
    pub timeout: Period,
    /// Leave at once: pods are not evicted, and end with the machine.
    #[arg(long)]
    pub no_drain: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// How the status is written.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Form,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say what is in force, and which flag, variable or file it comes from.
    Check(Box<ConfigCheck>),
    /// Print a configuration file with every field.
    PrintDefaults,
}

/// `config check`.
#[derive(Debug, Args)]
pub struct ConfigCheck {
    /// How the settings are written.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Form,
    /// The server, or the balancer before it: HOST:PORT.
    #[arg(long, value_name = "ENDPOINT", env = "BERTH_AGENT_SERVER")]
    pub server: Option<Endpoint>,
    /// How to join.
    #[command(flatten)]
    pub options: JoinOptions,
}

/// `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// How the version is written.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Form,
}

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs; the fields stay.
    Json,
}

/// Forms of the checklist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CheckForm {
    /// For people.
    #[default]
    Text,
    /// For programs; the fields stay.
    Json,
    /// For people: only what is not as it should be.
    Short,
}

/// Forms of the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlanForm {
    /// A diff of files and settings.
    #[default]
    Diff,
    /// For programs; the fields stay.
    Json,
}

/// Ids of checks, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckIds(pub std::collections::BTreeSet<CheckId>);

fn check_ids(text: &str) -> Result<CheckIds, NotACheck> {
    ignored(text).map(CheckIds)
}

/// A command line that was understood, with the record of where its values
/// come from.
#[derive(Debug)]
pub struct Invocation {
    /// What was asked for.
    pub cli: Cli,
    matches: ArgMatches,
}

/// A command line that asks for nothing that can be done.
#[derive(Debug)]
pub struct Unusable {
    /// What clap says of it: help is said the same way.
    pub said: Box<clap::Error>,
}

impl Unusable {
    /// Whether help or the version was asked for, and nothing is wrong.
    #[must_use]
    pub fn was_asked_for(&self) -> bool {
        matches!(self.said.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
    }
}

/// Parses the command line and the environment.
///
/// # Errors
/// It asks for help, or it is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Unusable> {
    let unusable = |error: clap::Error| Unusable { said: Box::new(error) };
    let matches = Cli::command().try_get_matches_from(arguments).map_err(unusable)?;
    let cli = Cli::from_arg_matches(&matches).map_err(unusable)?;
    Ok(Invocation { cli, matches })
}

/// The heading of what every command takes.
const EVERYWHERE: &str = "For every command";

const EXIT_STATUS: &str = "\
Exit status:
  0  done, or nothing was left to do
  1  something else went wrong
  2  the machine is not fit to join
  3  the command line or the configuration is wrong
  4  the token or the machine's identity was refused
  5  policy does not allow it
  6  the server is out of reach or busy
  7  the node is registered and did not become Ready in time
  8  interrupted; starting again goes on";

#[cfg(test)]
mod tests;
