//! The console's flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use berth_program::Sources;
use clap::Args;

use crate::config::GivenConsole;

/// What `run` and `config check` take for the console.
#[derive(Debug, Default, Args)]
pub(super) struct ConsoleOptions {
    /// Where operators' browsers find the console [default: there is none]
    #[arg(long, env = "BERTH_SERVER_CONSOLE_LISTEN", value_name = "ADDRESS")]
    console_listen: Option<SocketAddr>,
    /// A further host by which browsers ask for it; may be repeated
    #[arg(
        long = "console-name",
        env = "BERTH_SERVER_CONSOLE_NAMES",
        value_name = "HOST",
        value_delimiter = ','
    )]
    console_names: Option<Vec<String>>,
    /// Names and tokens of its operators [default: console.tokens in the data directory]
    #[arg(long, env = "BERTH_SERVER_CONSOLE_TOKEN_FILE", value_name = "FILE")]
    console_token_file: Option<PathBuf>,
    /// Its certificate; needed beyond loopback
    #[arg(long, env = "BERTH_SERVER_CONSOLE_CERTIFICATE", value_name = "FILE")]
    console_certificate: Option<PathBuf>,
    /// Its certificate's key
    #[arg(long, env = "BERTH_SERVER_CONSOLE_KEY", value_name = "FILE")]
    console_key: Option<PathBuf>,
    /// The CA of operators' certificates
    #[arg(long, env = "BERTH_SERVER_CONSOLE_CLIENT_CA", value_name = "FILE")]
    console_client_ca: Option<PathBuf>,
    /// Where it links traces to, such as http://jaeger:16686/trace/{trace}
    #[arg(long, env = "BERTH_SERVER_CONSOLE_TRACE_URL", value_name = "URL")]
    console_trace_url: Option<String>,
    /// The health listener of another server that it shows; may be repeated
    #[arg(
        long = "console-server",
        env = "BERTH_SERVER_CONSOLE_SERVERS",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    console_servers: Option<Vec<String>>,
}

/// What was given of it.
pub(super) fn given(options: &ConsoleOptions, sources: &Sources<'_>) -> GivenConsole {
    GivenConsole {
        listen: sources.with("console_listen", &options.console_listen),
        names: sources.with("console_names", &options.console_names),
        token_file: sources.with("console_token_file", &options.console_token_file),
        certificate: sources.with("console_certificate", &options.console_certificate),
        key: sources.with("console_key", &options.console_key),
        client_ca: sources.with("console_client_ca", &options.console_client_ca),
        trace_url: sources.with("console_trace_url", &options.console_trace_url),
        servers: sources.with("console_servers", &options.console_servers),
    }
}
