//! What was probably meant by a word that is not known.

/// The known word that is most like this one, if it is like it at all; case and `-` or `_` do not matter.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 4).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "auth-url"?`, or nothing.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|candidate| format!("; did you mean {candidate:?}?")).unwrap_or_default()
}

fn folded(word: &str) -> String {
    word.chars().map(|c| if c == '_' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::{nearest, suggestion};

    #[test]
    fn slips_of_the_pen_are_recognised_and_other_words_are_not() {
        let known = ["auth-url", "username", "user-id", "rescan-on-resize", "cert-file"];
        for (word, meant) in [
            ("auth_url", Some("auth-url")),
            ("authurl", Some("auth-url")),
            ("usrename", Some("username")),
            ("Rescan-On-Rezise", Some("rescan-on-resize")),
            ("bs-version", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(suggestion("user_id", known), "; did you mean \"user-id\"?");
        assert_eq!(suggestion("x", known), "");
    }
}
