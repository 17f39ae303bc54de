//! The command line of a program that serves a provider of its own.

use clap::builder::Resettable;
use clap::{Command, CommandFactory, Parser};

/// What is different in the command line of such a program: which provider it is about.
///
/// The options of `P` are [`Cli`](super::Cli), or a struct that flattens it and has global options of its own.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// The `--provider`, where none is named.
    pub provider: &'static str,
    /// The `--driver-name`, where none is given: a domain name that is yours.
    pub driver_name: &'static str,
}

impl Defaults {
    /// Parses the command line of this process; ends the process where there is nothing more to do, or it is wrong.
    #[must_use]
    pub fn parse<P: Parser>(&self) -> P {
        let matches = self.command::<P>().get_matches();
        P::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut self.command::<P>()).exit())
    }

    /// The command line, with these defaults.
    #[must_use]
    pub fn command<P: CommandFactory>(&self) -> Command {
        // The examples in the help texts are those of fuxi-csi.
        P::command().after_long_help(Resettable::Reset).mut_subcommands(|command| {
            let command = command.after_long_help(Resettable::Reset);
            let has = |name: &str| command.get_arguments().any(|argument| argument.get_id() == name);
            if !has("provider") || !has("given_name") {
                return command;
            }
            command.mut_arg("provider", |argument| argument.default_value(self.provider)).mut_arg(
                "given_name",
                |argument| {
                    argument
                        .help("The name under which the orchestrator knows the driver")
                        .long_help(Resettable::Reset)
                        .default_value(self.driver_name)
                },
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Defaults;
    use crate::cli::{Cli, Command};
    use clap::{CommandFactory, FromArgMatches, Parser};
    use std::path::PathBuf;

    const MINE: Defaults = Defaults { provider: "mine", driver_name: "mine.example.org" };

    /// Volumes of mine
    #[derive(Debug, Parser)]
    #[command(name = "mine", version = "7.0")]
    struct Options {
        /// Where they are
        #[arg(long, global = true, default_value = "/srv")]
        directory: PathBuf,
        #[command(flatten)]
        driver: Cli,
    }

    fn parse(words: &str) -> Result<Options, clap::Error> {
        let matches = MINE.command::<Options>().try_get_matches_from(words.split_whitespace())?;
        Options::from_arg_matches(&matches)
    }

    #[test]
    fn another_program_has_its_own_name_provider_and_options() {
        let command = MINE.command::<Options>();
        command.clone().debug_assert();
        assert_eq!((command.get_name(), command.get_version()), ("mine", Some("7.0")));
        let help = command.clone().render_long_help().to_string();
        assert!(!help.contains("fuxi"), "{help}");
        assert_eq!(command.get_about().map(ToString::to_string).as_deref(), Some("Volumes of mine"));

        let options = parse("mine node --endpoint /run/mine.sock --directory /data").unwrap();
        assert_eq!(options.directory, PathBuf::from("/data"));
        let Command::Node(node) = options.driver.command else { panic!("{:?}", options.driver) };
        assert_eq!((node.driver.provider.as_str(), node.driver.name().as_str()), ("mine", "mine.example.org"));
    }

    #[test]
    fn what_is_given_counts_more_than_the_defaults() {
        let options = parse("mine node --endpoint /s --provider memory --driver-name other.example.org").unwrap();
        let Command::Node(node) = options.driver.command else { panic!("{:?}", options.driver) };
        assert_eq!((node.driver.provider.as_str(), node.driver.name().as_str()), ("memory", "other.example.org"));
    }

    #[test]
    fn the_programs_own_defaults_stay_as_they_are() {
        let words = ["fuxi-csi", "node", "--endpoint", "/s"];
        let cli = Cli::from_arg_matches(&Cli::command().get_matches_from(words)).unwrap();
        let Command::Node(node) = cli.command else { panic!("{cli:?}") };
        assert_eq!(node.driver.name().as_str(), "cinder.fuxi.openstack.org");
    }
}
