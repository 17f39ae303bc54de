//! Keystone, and the version documents of all services.

use super::answer::Answer;
use super::cloud::{Cloud, new_id};
use super::request::{Asked, Service};
use serde_json::{Value, json};

/// Answers for Keystone.
pub(super) fn answer(cloud: &mut Cloud, asked: &Asked) -> Answer {
    match (asked.method.as_str(), asked.parts().as_slice()) {
        ("GET", []) => versions(cloud, asked),
        ("POST", ["auth", "tokens"]) => new_token(cloud, &asked.body),
        _ => Answer::json(
            404,
            json!({ "error": { "code": 404, "title": "Not Found", "message": "The resource could not be found." } }),
        ),
    }
}

fn versions(cloud: &Cloud, asked: &Asked) -> Answer {
    let version = json!({
        "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("{}/identity/v3/", cloud.url) }],
        "media-types": [{ "base": "application/json", "type": "application/vnd.openstack.identity-v3+json" }],
    });
    if asked.version_root {
        Answer::json(200, json!({ "version": version }))
    } else {
        Answer::json(300, json!({ "versions": { "values": [version] } }))
    }
}

fn new_token(cloud: &mut Cloud, body: &Value) -> Answer {
    let identity = &body["auth"]["identity"];
    let method = identity["methods"][0].as_str().unwrap_or_default().to_owned();
    let known = match method.as_str() {
        "password" => {
            let user = &identity["password"]["user"];
            let is_user = user["name"] == cloud.account.user.as_str() || user["id"] == cloud.account.user.as_str();
            is_user && user["password"] == cloud.account.password.as_str()
        }
        "application_credential" => {
            let credential = &identity["application_credential"];
            let (id, secret) = &cloud.account.application_credential;
            credential["id"] == id.as_str() && credential["secret"] == secret.as_str()
        }
        "token" => identity["token"]["id"].as_str().is_some_and(|token| cloud.tokens.contains(token)),
        _ => false,
    };
    let project = &body["auth"]["scope"]["project"];
    let in_project = project.is_null() || project["name"] == "demo" || project["id"] == cloud.project.as_str();
    if !known || !in_project {
        let message = "The request you have made requires authentication.";
        return Answer::json(401, json!({ "error": { "code": 401, "message": message, "title": "Unauthorized" } }))
            .header("www-authenticate", format!("Keystone uri=\"{}/identity/v3\"", cloud.url));
    }
    let token = format!("gAAAAAB-{}", new_id());
    cloud.tokens.insert(token.clone());
    let now = cloud.stamp();
    let lifetime = jiff::SignedDuration::try_from(cloud.token_lifetime).expect("a lifetime of human size");
    let whole_seconds = |stamp: jiff::Timestamp| stamp.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
    let domain = json!({ "id": "default", "name": "Default" });
    let body = json!({ "token": {
        "methods": [method],
        "user": { "domain": domain, "id": "bced53b0f7694b81a31bd3fa7a4e5659", "name": cloud.account.user, "password_expires_at": null },
        "audit_ids": ["cy7EHz_0QfiqZn1li22q3w"],
        "expires_at": whole_seconds(now + lifetime),
        "issued_at": whole_seconds(now),
        "project": { "domain": domain, "id": cloud.project, "name": "demo" },
        "is_domain": false,
        "roles": [{ "id": "93e3eead8eeb4801b6643d53565dd623", "name": "member" }],
        "catalog": catalog(cloud),
    }});
    Answer::json(201, body).header("x-subject-token", token).header("vary", "X-Auth-Token")
}

fn catalog(cloud: &Cloud) -> Vec<Value> {
    let url = &cloud.url;
    let volume =
        if cloud.project_in_url { format!("{url}/volume/v3/{}", cloud.project) } else { format!("{url}/volume/v3") };
    [
        ("identity", "keystone", format!("{url}/identity/v3")),
        ("volumev3", "cinderv3", volume.clone()),
        ("block-storage", "cinder", volume),
        ("compute", "nova", format!("{url}/compute/v2.1")),
        ("sharev2", "manilav2", format!("{url}/share/v2")),
    ]
    .into_iter()
    .filter(|(kind, _, _)| !cloud.hidden_services.contains(*kind))
    .map(|(kind, name, url)| {
        let endpoint = |interface: &str| {
            json!({ "id": new_id().replace('-', ""), "interface": interface, "region_id": cloud.region,
                    "url": url, "region": cloud.region })
        };
        json!({ "id": new_id().replace('-', ""), "type": kind, "name": name,
                "endpoints": [endpoint("public"), endpoint("internal")] })
    })
    .collect()
}

/// The version documents of Cinder and Nova; none if it is not one of them that is asked for.
pub(super) fn version_document(cloud: &Cloud, asked: &Asked) -> Option<Answer> {
    if asked.method != "GET" || !asked.path.is_empty() {
        return None;
    }
    let url = &cloud.url;
    if asked.service == Service::Cinder {
        let (major, minor) = cloud.cinder_highest;
        let document = json!({ "versions": [{
            "id": "v3.0", "status": "CURRENT", "version": format!("{major}.{minor}"), "min_version": "3.0",
            "updated": "2023-08-31T00:00:00Z",
            "links": [
                { "rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/" },
                { "rel": "self", "href": format!("{url}/volume/v3/") },
            ],
            "media-types": [{ "base": "application/json", "type": "application/vnd.openstack.volume+json;version=3" }],
        }] });
        if !asked.version_root {
            return Some(Answer::json(300, document));
        }
        if asked.whole.contains(&cloud.project) {
            return Some(Answer::text(404, "404 Not Found\n\nThe resource could not be found.\n\n   "));
        }
        // Cinder wants a token for this one, Nova does not.
        let known = asked.token.as_ref().is_some_and(|token| cloud.tokens.contains(token));
        return known.then(|| Answer::json(200, document));
    }
    if asked.service == Service::Manila {
        let (major, minor) = cloud.manila_highest;
        return Some(Answer::json(
            if asked.version_root { 200 } else { 300 },
            json!({ "versions": [{ "id": "v2.0", "status": "CURRENT", "version": format!("{major}.{minor}"),
                "min_version": "2.0", "updated": "2015-08-27T11:33:21Z", "media-types": [],
                "links": [{ "rel": "self", "href": format!("{url}/share/v2/") }] }] }),
        ));
    }
    let (major, minor) = cloud.nova_highest;
    let mut current = json!({
        "id": "v2.1", "status": "CURRENT", "version": format!("{major}.{minor}"), "min_version": "2.1",
        "updated": "2013-07-23T11:33:21Z", "links": [{ "rel": "self", "href": format!("{url}/compute/v2.1/") }],
    });
    if asked.version_root {
        current["links"] = json!([
            { "rel": "self", "href": format!("{url}/compute/v2.1/") },
            { "rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/" },
        ]);
        current["media-types"] =
            json!([{ "base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1" }]);
        return Some(Answer::json(200, json!({ "version": current })));
    }
    let old = json!({ "id": "v2.0", "status": "DEPRECATED", "version": "", "min_version": "",
        "updated": "2025-07-04T12:00:00Z", "links": [{ "rel": "self", "href": format!("{url}/compute/v2/") }] });
    Some(Answer::json(200, json!({ "versions": [old, current] })))
}
