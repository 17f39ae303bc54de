//! The documentation for users says what the program does: no option, key or variable is missing or invented.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use clap::CommandFactory;
use fuxi_csi::cli::Cli;
use fuxi_csi::config;
use fuxi_csi::observe::metrics::Metrics;
use fuxi_csi::openstack::client::{Meter, Usage};
use fuxi_csi::provider::{cinder, manila};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The part of a document from this heading to the next one of its level or above.
fn chapter<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(heading).unwrap_or_else(|| panic!("there is no chapter {heading:?}"));
    let body = &text[start + heading.len()..];
    let level = heading.chars().take_while(|c| *c == '#').count();
    let end = (1..=level).filter_map(|level| body.find(&format!("\n{} ", "#".repeat(level)))).min();
    &body[..end.unwrap_or(body.len())]
}

/// What stands in backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// What stands in backquotes in the first column of tables.
fn first_column(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|row| row.split(" | ").next())
        .flat_map(quoted)
        .collect()
}

/// Every `--flag` of a text.
fn flags(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("--").map(|(start, _)| &text[start + 2..]);
    let names = starts.map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>());
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

struct Flags {
    long: BTreeSet<String>,
    variables: BTreeSet<String>,
}

fn defined() -> Flags {
    let mut flags = Flags { long: BTreeSet::new(), variables: BTreeSet::new() };
    for command in Cli::command().get_subcommands() {
        for argument in command.get_arguments() {
            flags.long.extend(argument.get_long_and_visible_aliases().into_iter().flatten().map(str::to_owned));
            flags.variables.extend(argument.get_env().map(|name| name.to_str().unwrap().to_owned()));
        }
    }
    flags
}

#[test]
fn every_command_is_documented() {
    let text = document("options.md");
    let documented = first_column(chapter(&text, "# Options"));
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        assert!(documented.contains(command.get_name()), "{}", command.get_name());
    }
}

#[test]
fn every_option_is_documented_and_every_documented_option_exists() {
    let text = document("options.md");
    // That chapter names options of another program, and --help is made by clap.
    let own = text.split("## Coming from cinder-csi").next().unwrap();
    let mut documented = flags(own);
    documented.remove("help");
    assert_eq!(documented, defined().long);
    let others = flags(&document("configuration.md"));
    assert!(others.is_subset(&defined().long), "{others:?}");
}

#[test]
fn every_option_stands_beside_its_variable_and_its_default() {
    let text = document("options.md");
    for command in Cli::command().get_subcommands() {
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            let flag = format!("`--{long}");
            let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ") && line.contains(&flag)).collect();
            assert!(!rows.is_empty(), "{flag} is in no table");
            if let Some(variable) = argument.get_env() {
                let variable = format!("`{}`", variable.to_str().unwrap());
                assert!(rows.iter().any(|row| row.contains(&variable)), "{flag}: {variable}");
            }
            for default in argument.get_default_values().iter().filter(|_| argument.get_action().takes_values()) {
                let default = format!("`{}`", default.to_str().unwrap());
                assert!(rows.iter().any(|row| row.contains(&default)), "{flag}: {default}");
            }
        }
    }
}

#[test]
fn every_documented_variable_of_an_option_exists() {
    let text = document("options.md");
    let named = quoted(&text);
    let variables = defined().variables;
    for name in named.iter().filter(|name| name.starts_with("FUXI_")) {
        assert!(variables.contains(*name), "{name}");
    }
}

#[test]
fn every_key_of_cloud_conf_is_documented_and_every_documented_key_is_read() {
    let text = document("configuration.md");
    for (section, heading) in [
        ("Global", "### `[Global]`, `[Global \"name\"]`"),
        ("BlockStorage", "### `[BlockStorage]`"),
        ("Metadata", "### `[Metadata]`"),
        ("Ceph", "### `[Ceph \"user\"]`, `[Ceph \"user@fsid\"]`"),
    ] {
        let documented = first_column(chapter(&text, heading));
        let known: BTreeSet<&str> = config::cloud_conf::keys_of(section).into_iter().collect();
        assert!(!known.is_empty());
        assert_eq!(documented, known, "{section}");
    }
    assert_eq!(config::cloud_conf::SECTIONS.len(), 4);
}

#[test]
fn every_documented_variable_of_openstack_is_read() {
    let text = document("configuration.md");
    let read: BTreeSet<String> = config::variables().into_iter().collect();
    let documented: BTreeSet<&str> =
        quoted(&text).into_iter().filter(|name| name.starts_with("OS_") && name.len() > 3).collect();
    assert!(documented.len() > 20);
    for name in documented {
        assert!(read.contains(name), "{name}");
    }
}

#[test]
fn the_example_of_cloud_conf_is_understood() {
    let text = document("configuration.md");
    let example = text.split("```ini\n").nth(1).unwrap().split("```").next().unwrap();
    let document = config::gcfg::parse("example", example).unwrap();
    assert!(document.warnings.is_empty());
    for section in document.sections {
        let known = config::cloud_conf::keys_of(&section.name);
        for entry in section.entries {
            assert!(known.contains(&entry.key.as_str()), "{}", entry.key);
        }
    }
}

#[test]
fn every_parameter_is_documented_and_every_documented_parameter_is_known() {
    let text = document("parameters.md");
    for (heading, known) in [
        ("## StorageClass\n", &cinder::parameters::OF_VOLUMES[..]),
        ("## StorageClass of shares\n", &manila::parameters::OF_SHARES[..]),
        ("## VolumeSnapshotClass\n", &cinder::parameters::OF_SNAPSHOTS[..]),
    ] {
        assert_eq!(first_column(chapter(&text, heading)), known.iter().copied().collect(), "{heading}");
    }
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_is_told() {
    let text = document("metrics.md");
    let documented = first_column(chapter(&text, "## Metrics"));
    let documented: BTreeSet<&str> = documented.into_iter().filter(|name| !name.ends_with('*')).collect();
    let metrics = Metrics::new("cinder.fuxi.openstack.org", "controller");
    // A figure with labels is told from its first use on.
    metrics.rpc_begins("CreateVolume");
    metrics.rpc_ends("CreateVolume", "OK", Duration::ZERO);
    metrics.request(&Usage {
        service: "cinder",
        method: "GET",
        template: "/volumes",
        status: 200,
        took: Duration::ZERO,
    });
    metrics.retry("cinder");
    metrics.login(true);
    let text = metrics.text().unwrap();
    let told: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| !name.starts_with("process_"))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    assert_eq!(documented, told.iter().map(String::as_str).collect());
}
