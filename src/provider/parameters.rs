//! What is the same for the parameters of all classes.
//!
//! An unknown parameter is refused, with the nearest known one: a typing error would otherwise be found when the wrong
//! disk is full. Standing in for another driver, which ignores what it does not know, it is only warned about.

use super::names::{KUBERNETES_NAMES, Names};
use crate::error::{Error, Result};
use crate::model::StringMap;

/// Keys that the sidecars take for themselves or pass on; none of them is ours to judge.
const SIDECAR_PREFIX: &str = "csi.storage.k8s.io/";

/// A value; an empty one counts as none.
pub(super) fn value_of(parameters: &StringMap, key: &str) -> Option<String> {
    parameters.get(key).filter(|value| !value.is_empty()).cloned()
}

/// A value that a parameter cannot have.
pub(super) fn wrong_value(key: &str, value: &str, expected: &str) -> Error {
    Error::invalid(format!("parameters: {key} is {value:?}, and must be {expected}"))
}

/// Refuses parameters that are not among the known ones.
pub(super) fn refuse_unknown(names: &Names, parameters: &StringMap, known: &[&str]) -> Result<()> {
    for key in parameters.keys() {
        if known.contains(&key.as_str()) || KUBERNETES_NAMES.contains(&key.as_str()) || key.starts_with(SIDECAR_PREFIX)
        {
            continue;
        }
        let hint = match nearest(key, known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the known ones are {}", known.join(", ")),
        };
        if names.is_drop_in() {
            tracing::warn!(parameter = %key, "unknown parameter ignored; {hint}");
        } else {
            return Err(Error::invalid(format!("parameters: {key:?} is unknown; {hint}")));
        }
    }
    Ok(())
}

/// The known word that somebody who typed this most likely meant.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&plain(word), &plain(candidate)), *candidate))
        .min()
        .filter(|(distance, candidate)| distance * 3 <= candidate.len())
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn nothing_near_is_no_hint() {
        assert_eq!(nearest("", &["type"]), None);
        assert_eq!(nearest("tpye", &["type", "availability"]), Some("type"));
        assert_eq!(nearest("zzz", &["type"]), None);
    }
}
