use super::{Cli, Command, LogFormat, Role};
use clap::{CommandFactory, Parser};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ').map(|word| if word == "''" { "" } else { word })).map(|cli| cli.command)
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_controller_needs_an_endpoint_only() {
    let Command::Controller(controller) = parse("fuxi-csi controller --endpoint unix:///csi/csi.sock").unwrap() else {
        panic!("not a controller");
    };
    assert_eq!(controller.service.endpoint.path(), Path::new("/csi/csi.sock"));
    assert_eq!(controller.driver.name().as_str(), "cinder.fuxi.openstack.org");
    assert_eq!(controller.service.shutdown_grace, Duration::from_secs(30));
    assert_eq!(controller.cloud.cluster, "kubernetes");
    assert_eq!(controller.cloud.max_requests.get(), 32);
    assert_eq!(controller.log.log_format, LogFormat::Text);
    assert_eq!(controller.log.log_level, "info");
    assert!(controller.service.http_endpoint.is_none());
    assert!(controller.cloud.cloud_name.is_empty() && controller.files.cloud_config.is_empty());
}

#[test]
fn clouds_and_files_keep_their_order_and_may_be_empty_names() {
    let line = "fuxi-csi controller --endpoint /s --cloud-config b --cloud-config a --cloud-name '' --cloud-name east";
    let Command::Controller(controller) = parse(line).unwrap() else { panic!("not a controller") };
    assert_eq!(controller.files.cloud_config, [PathBuf::from("b"), PathBuf::from("a")]);
    assert_eq!(controller.cloud.cloud_name, ["", "east"]);
}

#[test]
fn a_node_takes_no_cloud_and_finds_its_plugin_directory() {
    let line = "fuxi-csi node --endpoint /s --driver-name cinder.csi.openstack.org --additional-topology a/b=c \
                --metadata-search-order metadataService,config-drive";
    let Command::Node(node) = parse(line).unwrap() else { panic!("not a node") };
    assert_eq!(
        node.node.plugin_dir(&node.driver.name()),
        Path::new("/var/lib/kubelet/plugins/cinder.csi.openstack.org")
    );
    assert_eq!(node.node.topology.len(), 1);
    assert_eq!(node.node.metadata_search_order.len(), 2);
    assert_eq!(node.node.default_fstype, "ext4");
    assert!(parse("fuxi-csi node --endpoint /s --cloud-name east").is_err());
    assert!(parse("fuxi-csi node --endpoint /s --max-requests 3").is_err());
}

#[test]
fn a_limit_of_zero_is_refused() {
    assert!(parse("fuxi-csi node --endpoint /s --attach-limit 0").is_err());
    assert!(parse("fuxi-csi controller --endpoint /s --max-requests 0").is_err());
    assert!(parse("fuxi-csi try --endpoint /s --volumes 0").is_err());
}

#[test]
fn wrong_values_are_refused_with_what_was_expected() {
    for (line, expected) in [
        ("fuxi-csi controller --endpoint tcp://x", "Unix sockets only"),
        ("fuxi-csi controller --endpoint /s --driver-name a_b", "domain name"),
        ("fuxi-csi controller --endpoint /s --shutdown-grace soon", "seconds"),
        ("fuxi-csi controller --endpoint /s --log-level fuxi_csi=loud", "level"),
        ("fuxi-csi controller --endpoint /s --http-endpoint 8080", ":8080"),
        ("fuxi-csi controller --endpoint /s --cluster ''", "1 to 255"),
        ("fuxi-csi node --endpoint /s --metadata-search-order ec2", "config-drive"),
        ("fuxi-csi node --endpoint /s --metadata-url ftp://x", "http"),
        ("fuxi-csi node --endpoint /s --default-fstype ntfs", "ext4"),
        ("fuxi-csi try --endpoint /s --size 1GB", "1Gi"),
        ("fuxi-csi try --endpoint /s --parameter type", "KEY=VALUE"),
    ] {
        let message = parse(line).unwrap_err().to_string();
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn check_takes_the_options_of_both_roles() {
    let line = "fuxi-csi check --role all --cloud-config c --cloud-name x --node-id n --plugin-dir /p";
    let Command::Check(check) = parse(line).unwrap() else { panic!("not a check") };
    assert!(check.role.has_controller() && check.role.has_node());
    assert!(!Role::Node.has_controller() && !Role::Controller.has_node());
    assert_eq!(check.node.plugin_dir(&check.driver.name()), Path::new("/p"));
}

#[test]
fn trying_uses_one_socket_for_both_services_unless_told_otherwise() {
    let Command::Try(alone) = parse("fuxi-csi try --endpoint /s").unwrap() else { panic!("not a try") };
    assert_eq!(alone.node_endpoints(), std::slice::from_ref(&alone.endpoint));
    assert_eq!(alone.backup(), None);
    assert_eq!(alone.size.to_string(), "1 GiB");
    let line = "fuxi-csi try --endpoint /s --node-endpoint /a --node-endpoint /b --no-backup --parameter type=a=b";
    let Command::Try(apart) = parse(line).unwrap() else { panic!("not a try") };
    assert_eq!(apart.node_endpoints().len(), 2);
    assert_eq!(apart.backup(), Some(false));
    assert_eq!(apart.parameters[0].value, "a=b");
    let Command::Try(last) = parse("fuxi-csi try --endpoint /s --no-backup --backup").unwrap() else {
        panic!("not a try")
    };
    assert_eq!(last.backup(), Some(true));
}

#[test]
fn the_short_help_is_terse_and_the_long_help_has_examples() {
    let mut command = Cli::command();
    let long = command.render_long_help().to_string();
    assert!(long.contains("Examples:") && long.contains("controller"));
    for subcommand in command.get_subcommands_mut() {
        for argument in subcommand.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty() && help.len() <= 115, "{}: {help:?}", argument.get_id());
            assert!(!help.ends_with('.'), "{}: {help:?}", argument.get_id());
        }
    }
}
