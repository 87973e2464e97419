//! berth-server's command line: `run`, and what operators ask of a server that
//! runs. Data goes to standard output, everything else to standard error.

mod bundle;
mod client;
#[cfg(test)]
mod golden;
mod health;
mod joins;
mod nodes;
mod options;
mod output;
mod serving;
pub mod token;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use berth_domain::diagnosis::Exit;
use berth_program::shell;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::options::{Options, given};
use self::output::{Failure, Format, Output};
use crate::app::check_inventory;
use crate::config::{Config, PRINT_DEFAULTS, read};

/// The version, with the commit where the build names one.
pub(crate) const VERSION: &str = match option_env!("BERTH_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Stands in front of a Kubernetes cluster and brings bare machines to their berths.
#[derive(Debug, Parser)]
#[command(
    name = "berth-server",
    version = VERSION,
    after_help = EXIT_STATUS,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The configuration file [default: /etc/berth/server.yaml, if it is there]
    #[arg(long, global = true, env = "BERTH_SERVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where CA, store and sockets are
    #[arg(long, global = true, env = "BERTH_SERVER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where operators' commands arrive [default: admin.sock in the data directory]
    #[arg(long, global = true, env = "BERTH_SERVER_ADMIN_SOCKET", value_name = "PATH")]
    admin_socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Run(Box<Options>),
    /// Make, list and revoke bootstrap tokens
    #[command(subcommand)]
    Token(token::Command),
    /// See joins, and decide on those that wait for a person
    #[command(subcommand)]
    Joins(joins::Command),
    /// See nodes, ban machines, free names
    #[command(subcommand)]
    Nodes(nodes::Command),
    /// Ask the server of this configuration how it is
    Health {
        /// What to ask
        #[arg(long, value_enum, default_value_t)]
        probe: health::Probe,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Make bundles of node software, and look at them
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the completions of a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Print the version
    Version {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check it, and print what is in force and where it came from
    Check {
        #[command(flatten)]
        options: Box<Options>,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Print a configuration file with every field
    PrintDefaults,
}

/// Runs the command line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match Cli::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return output::usage(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let mut output = Output::stdout();
    match run(&cli, &matches, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli, matches: &ArgMatches, output: &mut Output) -> Result<(), Failure> {
    match &cli.command {
        Command::Run(options) => serving::serve(resolve(cli, matches, options)?, output),
        Command::Token(command) => client::block_on(token::run(command, &socket(cli, matches)?, output)),
        Command::Joins(command) => client::block_on(joins::run(command, &socket(cli, matches)?, output)),
        Command::Nodes(command) => client::block_on(nodes::run(command, &socket(cli, matches)?, output)),
        Command::Health { probe, options } => {
            health::ask(resolve(cli, matches, options)?.settings.health_listen, *probe, output)
        }
        Command::Bundle(command) => {
            let settings = resolve(cli, matches, &Options::default())?.settings;
            client::block_on(bundle::run(command, &settings, output))
        }
        Command::Config(ConfigCommand::Check { options, output: format }) => {
            let config = resolve(cli, matches, options)?;
            serving::check_filter(&config.telemetry)?;
            check_inventory(&config.settings).map_err(Failure::usage)?;
            output.settings(&config.rows, *format)
        }
        Command::Config(ConfigCommand::PrintDefaults) => output.text(PRINT_DEFAULTS),
        Command::Completion { shell } => output.bytes(&shell::completion(*shell, Cli::command())),
        Command::Man => output.bytes(&shell::man(Cli::command()).map_err(Failure::other)?),
        Command::Version { output: format } => output.version(*format),
    }
}

fn resolve(cli: &Cli, matches: &ArgMatches, options: &Options) -> Result<Config, Failure> {
    let file = read(cli.global.config.as_deref()).map_err(Failure::usage)?;
    Config::resolve(given(&cli.global, options, matches), file)
        .map_err(|invalid| Failure::several(Exit::Usage, invalid.iter().map(ToString::to_string).collect()))
}

/// The socket of the server that is asked: of the same configuration as `run`'s.
fn socket(cli: &Cli, matches: &ArgMatches) -> Result<PathBuf, Failure> {
    Ok(resolve(cli, matches, &Options::default())?.settings.admin_socket)
}

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  something else went wrong, or there is no such thing
  3  the command line, a request's field or the configuration is wrong
  5  the socket may not be opened by this user
  6  no server answers, or it cannot at the moment";

#[cfg(test)]
mod tests;
