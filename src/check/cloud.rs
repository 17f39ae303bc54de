//! What the controller needs of a cloud: a login, Cinder, Nova, and room; `shares` has what it needs of Manila.

use super::report::{Cause, Finding, Report};
use crate::call::Call;
use crate::cli::{Attach, Check};
use crate::config::BlockStorageOptions;
use crate::error::Result;
use crate::openstack::cinder::{self, AbsoluteLimits, Cinder};
use crate::openstack::client::{Client, Microversion, ServiceKind};
use crate::openstack::cloud::{ApplicationCredentialId, Auth, Cloud, Scope};
use crate::openstack::session::Session;
use crate::openstack::{manila, nova, offer};
use std::sync::Arc;
use std::time::Duration;

/// How long one question may take, repeats included.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// What a microversion is for, and so what is not there in an older service.
struct Ability {
    service: ServiceKind,
    version: Microversion,
    what: &'static str,
}

const ABILITIES: [Ability; 9] = [
    Ability { service: ServiceKind::BlockStorage, version: cinder::EXTEND_IN_USE, what: "volumes grow while in use" },
    Ability {
        service: ServiceKind::BlockStorage,
        version: cinder::VOLUME_FROM_BACKUP,
        what: "volumes are made of backups",
    },
    Ability {
        service: ServiceKind::BlockStorage,
        version: cinder::BACKUP_ZONE,
        what: "backups are put into a zone and marked with their cluster",
    },
    Ability { service: ServiceKind::BlockStorage, version: cinder::TIME_FILTER, what: "many waits share one request" },
    Ability {
        service: ServiceKind::Compute,
        version: nova::MULTIATTACH,
        what: "volumes are attached to several servers",
    },
    Ability {
        service: ServiceKind::SharedFileSystem,
        version: manila::SCHEDULER_HINTS,
        what: "shares are put beside others or away from them",
    },
    Ability {
        service: ServiceKind::SharedFileSystem,
        version: manila::SNAPSHOT_METADATA,
        what: "snapshots are marked with their cluster",
    },
    Ability { service: ServiceKind::SharedFileSystem, version: manila::BACKUPS, what: "shares are backed up" },
    Ability {
        service: ServiceKind::SharedFileSystem,
        version: manila::RESTORE_ELSEWHERE,
        what: "shares are made of backups",
    },
];

/// Looks at one cloud.
pub(super) async fn look(cloud: &Cloud, options: &Check, storage: &BlockStorageOptions, report: &mut Report) {
    let name = |what: &str| if cloud.name.is_empty() { what.to_owned() } else { format!("{}: {what}", cloud.name) };
    let session = Session::new(Arc::new(cloud.clone()), Vec::new(), Arc::new(()));
    if let Err(error) = session.log_in(&call()).await {
        report.add(&Finding::failed(name("login"), &error));
        return;
    }
    report.add(&Finding::ok(name("login"), format!("{} accepts {}", cloud.auth_url, credential(cloud))));
    if cloud.tls.insecure {
        report.add(
            &Finding::warning(name("TLS"), "certificates are not verified, so the credential can be stolen on the way")
                .remedy("give the authority's certificate as ca-file and leave tls-insecure out"),
        );
    }
    if matches!(cloud.auth, Auth::Token(_)) {
        report.add(
            &Finding::warning(
                name("credential"),
                "a token cannot be renewed: the driver stops working when it expires",
            )
            .remedy("use an application credential"),
        );
    }
    let client = |service| Client::new(session.clone(), service, options.cloud.max_requests.get());
    if options.driver.provider.as_str() == "manila" {
        return super::shares::look(&name, client(ServiceKind::SharedFileSystem), report).await;
    }
    if options.driver.provider.as_str() != "cinder" {
        let detail =
            format!("not looked at: what the provider {:?} needs is not known here", options.driver.provider.as_str());
        report.add(&Finding::warning(name("services"), detail));
        return;
    }
    let (cinder, nova) = (client(ServiceKind::BlockStorage), client(ServiceKind::Compute));
    let has_cinder = service(&name, &cinder, ServiceKind::BlockStorage, report).await;
    let needs_nova = options.driver.attach != Some(Attach::Host);
    let has_nova = needs_nova && service(&name, &nova, ServiceKind::Compute, report).await;
    if has_cinder {
        report.add(&room(&name("quota"), Cinder::new(cinder.clone()).limits(&call()).await));
        report.add(&types(&name("volume types"), offer::volume_types(&cinder, &call()).await));
    }
    if has_cinder && has_nova {
        let (ours, theirs) = (offer::zones(&cinder, &call()).await, offer::zones(&nova, &call()).await);
        report.add(&zones(&name("zones"), ours, theirs, storage.ignore_volume_az));
    }
}

pub(super) fn call() -> Call {
    Call::lasting(ANSWER_TIME)
}

/// Who we are, without what proves it.
fn credential(cloud: &Cloud) -> String {
    let who = match &cloud.auth {
        Auth::Password { .. } => "the user and password".to_owned(),
        Auth::ApplicationCredential { id: ApplicationCredentialId::Id(id), .. } => {
            format!("application credential {id}")
        }
        Auth::ApplicationCredential { id: ApplicationCredentialId::Name { name, .. }, .. } => {
            format!("application credential {name:?}")
        }
        Auth::Token(_) => "the token".to_owned(),
    };
    match &cloud.scope {
        Scope::Implied => who,
        Scope::ProjectId(id) => format!("{who} for project {id}"),
        Scope::ProjectName { name, .. } => format!("{who} for project {name:?}"),
        Scope::Trust(id) => format!("{who} for trust {id}"),
    }
}

/// Whether a service is there; and what it is too old for.
pub(super) async fn service(
    name: &impl Fn(&str) -> String,
    client: &Client,
    kind: ServiceKind,
    report: &mut Report,
) -> bool {
    let endpoint = match client.session().endpoint(&call(), kind).await {
        Ok(endpoint) => endpoint,
        Err(error) => {
            report.add(&Finding::failed(name(kind.name()), &error));
            return false;
        }
    };
    let highest = match client.highest(&call()).await {
        Ok(highest) => highest,
        Err(error) => {
            report.add(&Finding::failed(name(kind.name()), &error.during(&endpoint)));
            return false;
        }
    };
    report.add(&Finding::ok(name(kind.name()), format!("{endpoint}, microversions up to {highest}")));
    for lack in lacks(kind, highest) {
        report.add(&lack);
    }
    true
}

/// What a service of this age cannot do.
fn lacks(kind: ServiceKind, highest: Microversion) -> Vec<Finding> {
    let lacking = ABILITIES.iter().filter(|ability| ability.service == kind && ability.version > highest);
    lacking
        .map(|ability| {
            let detail = format!("not before microversion {}: {}", ability.version, ability.what);
            Finding::warning(kind.name(), detail).remedy(format!("do without, or have {} upgraded", kind.name()))
        })
        .collect()
}

fn room(what: &str, limits: Result<AbsoluteLimits>) -> Finding {
    let limits = match limits {
        Ok(limits) => limits,
        Err(error) => return Finding::failed(what, &error),
    };
    let of = |used: i64, most: i64| {
        if most < 0 { format!("{used} (no limit)") } else { format!("{used} of {most}") }
    };
    let detail = format!(
        "{} volumes, {} GiB in use",
        of(limits.total_volumes_used, limits.max_total_volumes),
        of(limits.total_gigabytes_used, limits.max_total_volume_gigabytes)
    );
    let used_up = |used: i64, most: i64| most >= 0 && used >= most;
    if used_up(limits.total_volumes_used, limits.max_total_volumes)
        || used_up(limits.total_gigabytes_used, limits.max_total_volume_gigabytes)
    {
        Finding::warning(what, detail).remedy("no new volume can be made: delete some, or ask for a larger quota")
    } else {
        Finding::ok(what, detail)
    }
}

fn types(what: &str, types: Result<Vec<offer::VolumeType>>) -> Finding {
    match types {
        Ok(types) if types.is_empty() => Finding::error(Cause::Other, what, "the project may use none")
            .remedy("have a volume type made, or made public"),
        Ok(types) => {
            let names: Vec<_> = types.into_iter().map(|kind| kind.name).collect();
            Finding::ok(what, format!("{} (for the parameter `type` of a StorageClass)", names.join(", ")))
        }
        Err(error) => Finding::failed(what, &error),
    }
}

/// A volume is made in the zone of the server that it is for: where Cinder does not know Nova's zones, that fails.
fn zones(what: &str, storage: Result<Vec<String>>, compute: Result<Vec<String>>, ignored: bool) -> Finding {
    let (storage, compute) = match (storage, compute) {
        (Ok(storage), Ok(compute)) => (storage, compute),
        (Err(error), _) | (_, Err(error)) => return Finding::failed(what, &error),
    };
    let unknown: Vec<_> = compute.iter().filter(|zone| !storage.contains(zone)).cloned().collect();
    let detail = format!("nova has {}; cinder has {}", list(&compute), list(&storage));
    if unknown.is_empty() {
        Finding::ok(what, detail)
    } else if ignored {
        Finding::ok(what, format!("{detail}; ignore-volume-az is set"))
    } else {
        Finding::warning(what, detail).remedy(format!(
            "servers in {} get no volumes of their own zone: set ignore-volume-az under [BlockStorage], or name Cinder's \
             zone with `availability` in the StorageClass",
            list(&unknown)
        ))
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{lacks, room, types, zones};
    use crate::error::{Error, Kind};
    use crate::openstack::cinder::AbsoluteLimits;
    use crate::openstack::client::{Microversion, ServiceKind};

    #[test]
    fn an_old_service_is_told_what_it_lacks() {
        assert!(lacks(ServiceKind::BlockStorage, Microversion(3, 71)).is_empty());
        assert_eq!(lacks(ServiceKind::BlockStorage, Microversion(3, 50)).len(), 2);
        assert!(lacks(ServiceKind::Compute, Microversion(2, 53))[0].to_string().contains("2.60"));
    }

    #[test]
    fn a_quota_that_is_used_up_is_a_warning_and_none_at_all_is_fine() {
        let limits = |most, used| {
            Ok(AbsoluteLimits {
                max_total_volume_gigabytes: most,
                total_gigabytes_used: used,
                max_total_volumes: 10,
                total_volumes_used: 1,
            })
        };
        assert!(room("quota", limits(100, 99)).to_string().starts_with("ok"));
        assert!(room("quota", limits(100, 100)).to_string().contains("larger quota"));
        assert!(room("quota", limits(-1, 5)).to_string().contains("5 (no limit) GiB"));
    }

    #[test]
    fn zones_that_cinder_does_not_know_are_named() {
        let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert!(zones("zones", names(&["nova"]), names(&["nova"]), false).to_string().starts_with("ok"));
        let warning = zones("zones", names(&["nova"]), names(&["nova", "az2"]), false).to_string();
        assert!(warning.starts_with("warning") && warning.contains("servers in az2"), "{warning}");
        assert!(zones("zones", names(&["nova"]), names(&["az2"]), true).to_string().starts_with("ok"));
        let failed = zones("zones", names(&[]), Err(Error::new(Kind::Unavailable, "away")), false);
        assert!(failed.to_string().starts_with("error"));
    }

    #[test]
    fn a_project_without_volume_types_cannot_make_volumes() {
        assert!(types("types", Ok(Vec::new())).to_string().starts_with("error"));
    }
}
