//! Where clap found a value: the flag or the variable by which it was given.

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::config::Origin;

/// What was given on a command line, and where each value came from.
pub struct Sources<'a> {
    command: clap::Command,
    matches: &'a ArgMatches,
}

impl<'a> Sources<'a> {
    /// The sources of what this command line matched.
    #[must_use]
    pub const fn new(command: clap::Command, matches: &'a ArgMatches) -> Self {
        Self { command, matches }
    }

    /// The value with its origin, unless nobody gave one.
    pub fn with<T: Clone>(&self, id: &str, value: &Option<T>) -> Option<(T, Origin)> {
        let value = value.clone()?;
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
        match argument.and_then(clap::Arg::get_long) {
            Some(long) => format!("--{long}"),
            None => argument
                .and_then(|argument| argument.get_value_names()?.first().map(ToString::to_string))
                .unwrap_or_else(|| id.to_owned()),
        }
    }

    fn variable(&self, id: &str) -> String {
        let name = self.argument(id).and_then(clap::Arg::get_env);
        name.map_or_else(|| id.to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// The argument as the command that was given has it.
    fn argument(&self, id: &str) -> Option<&clap::Arg> {
        let (mut command, mut matches) = (&self.command, self.matches);
        loop {
            if let Some(found) = command.get_arguments().find(|argument| argument.get_id().as_str() == id) {
                return Some(found);
            }
            let (name, deeper) = matches.subcommand()?;
            command = command.find_subcommand(name)?;
            matches = deeper;
        }
    }
}
