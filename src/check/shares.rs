//! What the controller needs of a cloud's Manila: the service, share types, and room.

use super::cloud::{call, service};
use super::report::{Cause, Finding, Report};
use crate::error::Result;
use crate::openstack::client::{Client, ServiceKind};
use crate::openstack::manila::{self, AbsoluteLimits, Manila};
use crate::openstack::offer::{self, ShareType};

/// Looks at the Manila of one cloud; `name` names what is found.
pub(super) async fn look(name: &impl Fn(&str) -> String, client: Client, report: &mut Report) {
    if !service(name, &client, ServiceKind::SharedFileSystem, report).await {
        return;
    }
    let manila = Manila::new(client.clone());
    if let Err(error) = manila.require(&call(), manila::LOWEST, "the driver").await {
        report.add(&Finding::failed(name(ServiceKind::SharedFileSystem.name()), &error));
        return;
    }
    report.add(&room(&name("quota"), manila.limits(&call()).await));
    report.add(&types(&name("share types"), offer::share_types(&client, &call()).await));
}

fn room(what: &str, limits: Result<AbsoluteLimits>) -> Finding {
    let limits = match limits {
        Ok(limits) => limits,
        Err(error) => return Finding::failed(what, &error),
    };
    let of = |used: i64, most: i64| match most {
        ..0 => format!("{used} (no limit)"),
        _ => format!("{used} of {most}"),
    };
    let detail = format!(
        "{} shares, {} GiB in use",
        of(limits.total_shares_used, limits.max_total_shares),
        of(limits.total_share_gigabytes_used, limits.max_total_share_gigabytes)
    );
    let used_up = |used: i64, most: i64| most >= 0 && used >= most;
    if used_up(limits.total_shares_used, limits.max_total_shares)
        || used_up(limits.total_share_gigabytes_used, limits.max_total_share_gigabytes)
    {
        Finding::warning(what, detail).remedy("no new share can be made: delete some, or ask for a larger quota")
    } else {
        Finding::ok(what, detail)
    }
}

fn types(what: &str, types: Result<Vec<ShareType>>) -> Finding {
    let types = match types {
        Ok(types) => types,
        Err(error) => return Finding::failed(what, &error),
    };
    if types.is_empty() {
        return Finding::error(Cause::Other, what, "the project may use none")
            .remedy("have a share type made, or made public");
    }
    let told = types.iter().map(|kind| {
        let needs_network = kind.needs_share_network().then_some("needs shareNetworkID");
        let no_snapshots = (!kind.has_snapshots()).then_some("no snapshots");
        let notes: Vec<&str> = [needs_network, no_snapshots].into_iter().flatten().collect();
        if notes.is_empty() { kind.name.clone() } else { format!("{} ({})", kind.name, notes.join(", ")) }
    });
    let told: Vec<String> = told.collect();
    Finding::ok(what, format!("{} (for the parameter `type` of a StorageClass)", told.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::{room, types};
    use crate::openstack::manila::AbsoluteLimits;
    use serde_json::json;

    #[test]
    fn a_quota_that_is_used_up_is_a_warning() {
        let limits = |most, used| {
            Ok(AbsoluteLimits {
                max_total_share_gigabytes: most,
                total_share_gigabytes_used: used,
                max_total_shares: 10,
                total_shares_used: 1,
            })
        };
        assert!(room("quota", limits(100, 99)).to_string().starts_with("ok"));
        assert!(room("quota", limits(100, 100)).to_string().contains("larger quota"));
        assert!(room("quota", limits(-1, 5)).to_string().contains("5 (no limit) GiB"));
    }

    #[test]
    fn share_types_are_told_with_what_they_lack() {
        assert!(types("types", Ok(Vec::new())).to_string().starts_with("error"));
        let all = serde_json::from_value(json!([
            {"name": "plain", "extra_specs": {"snapshot_support": "True", "driver_handles_share_servers": "False"}},
            {"name": "odd", "extra_specs": {"driver_handles_share_servers": "true", "snapshot_support": false}},
            {"name": "told", "extra_specs": {"snapshot_support": true, "mount_snapshot_support": false}},
        ]));
        let told = types("types", Ok(all.unwrap())).to_string();
        assert!(told.contains("plain, odd (needs shareNetworkID, no snapshots), told"), "{told}");
    }
}
