//! Dependencies between the layers point down only (see `src/lib.rs`), and only `app` names concrete types.
//!
//! This reads the sources as text: every `crate::module` in them, in `use` lines and in paths, outside comments.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should say so and stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each layer may use. A module that is not here is a mistake: give it a place in the design first.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("call", &["error"]),
    ("model", &["error"]),
    ("seal", &["error", "model"]),
    ("initiator", &["error", "model", "seal"]),
    ("exec", &["call", "error"]),
    ("openstack", &["call", "error", "model"]),
    ("config", &["error", "model", "openstack::cloud"]),
    ("cli", &["config", "error", "model"]),
    ("provider", &["call", "error", "initiator", "model", "openstack", "seal"]),
    ("node", &["call", "error", "exec", "initiator", "model", "seal"]),
    ("csi", &["call", "error", "exec::scripted", "model", "node", "provider"]),
    ("observe", &["csi", "error", "openstack::client"]),
    ("server", &["csi", "error", "observe"]),
    ("check", &["call", "cli", "config", "error", "exec", "model", "node", "openstack"]),
    ("trial", &["cli", "csi", "error", "model"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The layer of a source file: its folder below `src`, or its own name.
fn layer(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Every `crate::a::b` in a file, without comments.
fn uses(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let preceding = code[..at].chars().next_back();
        if preceding.is_some_and(|c| c == '$' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let path: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
        found.insert(path.trim_end_matches(':').to_owned());
    }
    found
}

#[test]
fn dependencies_point_down_only() {
    let allowed: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    assert!(files.len() > 20, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let layer = layer(&file);
        if matches!(layer.as_str(), "app" | "main" | "lib") {
            continue;
        }
        let Some(below) = allowed.get(layer.as_str()) else {
            wrong.push(format!("{}: layer {layer} is not in the list", file.display()));
            continue;
        };
        for used in uses(&fs::read_to_string(&file).unwrap()) {
            let first = used.split("::").next().unwrap();
            let fits = first == layer || below.iter().any(|may| used == *may || used.starts_with(&format!("{may}::")));
            if !fits {
                wrong.push(format!("{}: {layer} uses {used}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Providers, connectors and clients are chosen in `app` alone; the `csi` layer sees traits.
#[test]
fn csi_names_no_concrete_provider() {
    let mut files = Vec::new();
    sources(Path::new("src/csi"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for concrete in ["provider::cinder", "provider::manila", "provider::memory"] {
            assert!(!code.contains(concrete), "{} names {concrete}", file.display());
        }
    }
}
