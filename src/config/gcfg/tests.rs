use super::parse;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use secrecy::ExposeSecret;

/// Every entry as `section.subsection.key=value`, in order; a key without `=` has no `=`.
fn flat(text: &str) -> Vec<String> {
    let document = parse("c", text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    let mut lines = Vec::new();
    for section in document.sections {
        for entry in section.entries {
            let value = entry.value.map(|value| format!("={}", value.expose_secret())).unwrap_or_default();
            lines.push(format!("{}.{}.{}{value}", section.name, section.subsection, entry.key));
        }
    }
    lines
}

fn value(text: &str) -> String {
    let lines = flat(&format!("[a]\nb = {text}"));
    lines[0].strip_prefix("a..b=").unwrap().to_owned()
}

fn error(text: &str) -> String {
    parse("cloud.conf", text).unwrap_err().to_string()
}

#[test]
fn sections_subsections_and_keys_are_read_in_order() {
    let text = "; one\n[Global]\nAuth-URL = x # two\n\n[ Global \"ea\\\"st\\\\\" ] ; three\nuse-clouds\ncloud=\n[Global]\ncloud = y\n";
    assert_eq!(
        flat(text),
        ["Global..Auth-URL=x", "Global.ea\"st\\.use-clouds", "Global.ea\"st\\.cloud=", "Global..cloud=y"]
    );
}

#[test]
fn empty_documents_and_empty_sections_are_fine() {
    assert_eq!(parse("c", "").unwrap().sections.len(), 0);
    assert_eq!(parse("c", "\u{feff}").unwrap().sections.len(), 0);
    assert_eq!(parse("c", "#only a comment").unwrap().sections.len(), 0);
    assert_eq!(parse("c", "[a]").unwrap().sections.len(), 1);
    assert_eq!(parse("c", "[a]\n[a]\n").unwrap().sections.len(), 2);
}

#[test]
fn values_are_unquoted_as_gcfg_does() {
    for (text, expected) in [
        ("x", "x"),
        ("  x y\t ", "x y"),
        ("\"  x  \"", "  x  "),
        ("\"x\"  ", "x"),
        ("a\"b c\"d", "ab cd"),
        ("a \" \" b", "a   b"),
        ("\"a;b#c\"", "a;b#c"),
        ("a;b", "a"),
        ("a #b", "a"),
        ("\"\\\\ \\\" \\n \\t\"", "\\ \" \n \t"),
        ("\\\"x\\\"", "\"x\""),
        ("a \\\n  b", "a   b"),
        ("a\\\r\n b\r", "a b"),
        ("a \\", "a "),
        ("a=b", "a=b"),
        ("[x]", "[x]"),
        ("ä€😀", "ä€😀"),
        ("\"\"", ""),
    ] {
        let text = if text.ends_with("a \\") { "a \\\n" } else { text };
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn windows_line_ends_and_byte_order_marks_do_not_matter() {
    assert_eq!(flat("\u{feff}[a]\r\nb = c\r\n; d\r\n[e \"f\"]\r\ng\r\n"), ["a..b=c", "e.f.g"]);
}

#[test]
fn errors_say_where_and_what_was_expected() {
    for (text, expected) in [
        ("key = x", "cloud.conf:1:1: expected a section such as [Global] before the first key"),
        ("[a]\n  = x", "cloud.conf:2:3: expected a [section], a key or a comment"),
        ("[a]\nauth_url = x", "cloud.conf:2:5: expected a key with hyphens instead of underscores"),
        ("[a]\nb c", "cloud.conf:2:3: expected = after the key"),
        ("[]", "cloud.conf:1:2: expected the name of a section"),
        ("[1a]", "cloud.conf:1:2: expected the name of a section"),
        ("[a", "cloud.conf:1:3: expected \"subsection\" in quotes, or ]"),
        ("[a.b]", "cloud.conf:1:3: expected \"subsection\" in quotes, or ]"),
        ("[a \"b\" c]", "cloud.conf:1:8: expected ]"),
        ("[a \"b\nc\"]", "cloud.conf:1:4: expected a subsection's name that ends"),
        ("[a \"\"]", "cloud.conf:1:4: expected a name; for the section without"),
        ("[a \"\\n\"]", "cloud.conf:1:5: expected \\\" or \\\\"),
        ("[a] b = c", "cloud.conf:1:5: expected the end of the line"),
        ("[a]\nb = \"c\nd\"", "cloud.conf:2:5: expected a value of b whose quotes are closed"),
        ("[a]\nb = \"c", "cloud.conf:2:5: expected a value of b whose quotes are closed"),
        ("[a]\nb = c\\d", "cloud.conf:2:6: expected \\\" or the end of the line after a backslash"),
        ("[a]\nb = c\\", "cloud.conf:2:6: expected \\\" or the end of the line after a backslash"),
        ("[a]\nb = \"\\x\"", "cloud.conf:2:6: expected one of the escapes"),
        ("[a]\nb = \0", "cloud.conf:2:5: expected text without zero bytes"),
    ] {
        let message = error(text);
        assert!(message.starts_with(expected), "{text:?}: {message}");
    }
}

#[test]
fn a_comment_sign_within_a_word_is_allowed_and_warned_about() {
    let warnings = |text: &str| parse("c", text).unwrap().warnings;
    let warned = warnings("[a]\npassword = abc#def");
    assert_eq!((warned[0].0.line, warned[0].0.column), (2, 15));
    assert!(warned[0].1.contains("password") && warned[0].1.contains("quotes") && !warned[0].1.contains("abc"));
    for text in ["[a]\nb = c # d", "[a]\nb = \"c#d\"", "[a]\nb =# d", "[a]\nb = ; d"] {
        assert_eq!(warnings(text), [], "{text:?}");
    }
}

#[test]
fn nothing_shows_a_value() {
    let document = parse("c", "[a]\npassword = hunter2").unwrap();
    assert!(!format!("{document:?}").contains("hunter2"));
    for text in ["[a]\npassword = hunter2\\x", "[a]\npassword = \"hunter2", "[a]\npassword = \"hunter2\\x\""] {
        assert!(!error(text).contains("hunter2"), "{text}");
    }
}

/// As a person would write it who is careful to quote everything.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

proptest! {
    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _ = parse("c", &text);
    }

    #[test]
    fn parsing_what_looks_like_a_document_never_panics(text in "[\\[\\]ab\"\\\\=;# \t\r\n_-]{0,60}") {
        let _ = parse("c", &text);
    }

    #[test]
    fn every_quoted_value_comes_back(text in "[^\0\r]*") {
        prop_assert_eq!(value(&quoted(&text)), text);
    }

    #[test]
    fn every_subsection_comes_back(name in "[^\0\r\n]+") {
        let header = format!("[s \"{}\"]", name.replace('\\', "\\\\").replace('"', "\\\""));
        let document = parse("c", &header).unwrap();
        prop_assert_eq!(&document.sections[0].subsection, &name);
    }

    #[test]
    fn plain_words_come_back_unquoted(word in "[a-zA-Z0-9:/._@%+=-]+", blanks in "[ \t]{0,3}") {
        prop_assert_eq!(value(&format!("{word}{blanks}")), word);
    }

    #[test]
    fn errors_point_into_the_document(text in "[\\[\\]ab\"\\\\=;# \t\n]{0,40}") {
        if let Err(error) = parse("c", &text) {
            let message = error.to_string();
            let mut parts = message.split(':');
            prop_assert_eq!(parts.next(), Some("c"));
            let line: usize = parts.next().unwrap().parse().unwrap();
            let column: usize = parts.next().unwrap().parse().unwrap();
            let lines: Vec<&str> = text.split('\n').collect();
            prop_assert!((1..=lines.len()).contains(&line), "{}", message);
            prop_assert!((1..=lines[line - 1].chars().count() + 1).contains(&column), "{}", message);
        }
    }
}
