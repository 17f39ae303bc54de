//! The syntax of cloud.conf: git-config as Go's `gopkg.in/gcfg.v1` reads it.
//!
//! ```text
//! [Global]                       ; comments begin with ; or #
//! auth-url = https://cloud:5000/v3
//! password = "a # in \"quotes\"" # escapes within quotes: \\ \" \n \t
//! [Global "east"]                # a subsection; its name is case-sensitive, all other names are not
//! use-clouds                     # a key without a value is true
//! cloud = east-\
//! north                          # a backslash at its end goes on with the next line
//! ```
//!
//! Every value is a [`SecretString`], since only the reader of the document knows which of them are passwords; errors
//! never quote a value. Unlike gcfg, a byte order mark is skipped.

use crate::error::{Error, Result};
use secrecy::SecretString;
use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// A place in a document, counted from 1 in lines and characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character within it.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A whole document: its sections in their order, one for each header.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// The sections.
    pub sections: Vec<Section>,
    /// What is allowed and probably not meant: where, and a sentence.
    pub warnings: Vec<(Position, String)>,
}

/// A header and what follows it.
#[derive(Debug, Clone)]
pub struct Section {
    /// The name as it is written.
    pub name: String,
    /// The name of the subsection; empty for none.
    pub subsection: String,
    /// Where the header is.
    pub position: Position,
    /// The keys in their order; one may occur again.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key as it is written.
    pub key: String,
    /// The value, unquoted; none where there is no `=`.
    pub value: Option<SecretString>,
    /// Where the key is.
    pub position: Position,
}

/// Parses a document; `file` is for error messages.
///
/// # Errors
/// [`Kind::InvalidArgument`](crate::error::Kind::InvalidArgument) with file, line, column, and what was expected there.
pub fn parse(file: &str, text: &str) -> Result<Document> {
    let mut scanner = Scanner::new(file, text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut document = Document::default();
    loop {
        scanner.skip_blanks();
        let position = scanner.position;
        match scanner.peek() {
            None => return Ok(document),
            Some('\n') => scanner.advance(),
            Some(';' | '#') => scanner.skip_comment(),
            Some('[') => document.sections.push(scanner.header()?),
            Some(c) if is_letter(c) => match document.sections.last_mut() {
                Some(section) => section.entries.push(scanner.entry(&mut document.warnings)?),
                None => return Err(scanner.expected(position, "a section such as [Global] before the first key")),
            },
            Some(_) => return Err(scanner.expected(position, "a [section], a key or a comment")),
        }
    }
}

/// Walks over the characters and knows where it is.
struct Scanner<'a> {
    file: &'a str,
    rest: Peekable<Chars<'a>>,
    position: Position,
}

impl<'a> Scanner<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, rest: text.chars().peekable(), position: Position { line: 1, column: 1 } }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn advance(&mut self) {
        match self.rest.next() {
            Some('\n') => self.position = Position { line: self.position.line + 1, column: 1 },
            Some(_) => self.position.column += 1,
            None => {}
        }
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.advance();
        }
    }

    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.advance();
        }
    }

    fn expected(&self, position: Position, what: &str) -> Error {
        Error::invalid(format!("{}:{position}: expected {what}", self.file))
    }

    /// `[name]` or `[name "subsection"]`, to the end of the line.
    fn header(&mut self) -> Result<Section> {
        let position = self.position;
        self.advance();
        self.skip_blanks();
        let name = self.name("the name of a section")?;
        self.skip_blanks();
        let subsection = match self.peek() {
            Some('"') => self.subsection()?,
            _ => String::new(),
        };
        self.skip_blanks();
        match self.peek() {
            Some(']') => self.advance(),
            _ if subsection.is_empty() => return Err(self.expected(self.position, "\"subsection\" in quotes, or ]")),
            _ => return Err(self.expected(self.position, "]")),
        }
        self.end_of_line("the end of the line after the section's header")?;
        Ok(Section { name, subsection, position, entries: Vec::new() })
    }

    /// `"…"` with the escapes `\"` and `\\`.
    fn subsection(&mut self) -> Result<String> {
        let start = self.position;
        let mut name = String::new();
        self.advance();
        loop {
            let position = self.position;
            let next = self.peek();
            self.advance();
            match next {
                Some('"') if name.is_empty() => {
                    return Err(
                        self.expected(start, "a name; for the section without a subsection write no quotes at all")
                    );
                }
                Some('"') => return Ok(name),
                Some('\\') => match self.peek() {
                    Some(c @ ('"' | '\\')) => {
                        name.push(c);
                        self.advance();
                    }
                    _ => return Err(self.expected(position, "\\\" or \\\\, the escapes of a subsection's name")),
                },
                None | Some('\n') => {
                    return Err(self.expected(start, "a subsection's name that ends with \" on its line"));
                }
                Some(c) => {
                    self.refuse_nul(c, position)?;
                    name.push(c);
                }
            }
        }
    }

    /// `key`, `key =`, or `key = value`, to the end of the line.
    fn entry(&mut self, warnings: &mut Vec<(Position, String)>) -> Result<Entry> {
        let position = self.position;
        let key = self.name("a key")?;
        self.skip_blanks();
        let value = match self.peek() {
            Some('=') => {
                self.advance();
                self.skip_blanks();
                Some(self.value(&key, warnings)?)
            }
            Some('_') => return Err(self.expected(self.position, "a key with hyphens instead of underscores")),
            None | Some('\n' | ';' | '#') => None,
            Some(_) => return Err(self.expected(self.position, "= after the key")),
        };
        self.end_of_line("the end of the line after the value")?;
        Ok(Entry { key, value, position })
    }

    /// Letters, digits and hyphens, beginning with a letter.
    fn name(&mut self, what: &str) -> Result<String> {
        if !self.peek().is_some_and(is_letter) {
            return Err(self.expected(self.position, what));
        }
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| is_letter(*c) || is_digit(*c) || *c == '-') {
            name.push(c);
            self.advance();
        }
        Ok(name)
    }

    /// What is behind the `=`: quoted and unquoted parts, less the blanks at its end.
    fn value(&mut self, key: &str, warnings: &mut Vec<(Position, String)>) -> Result<SecretString> {
        let start = self.position;
        let mut value = String::new();
        let mut kept = 0; // how much of `value` is not blanks at its end
        let mut quoted = false;
        let mut after_blank = true;
        loop {
            let position = self.position;
            let Some(c) = self.peek() else { break };
            match c {
                '\n' => break,
                ';' | '#' if !quoted => {
                    if !after_blank {
                        let sentence = format!(
                            "the value of {key} ends before {c}, which begins a comment; \
                             if it belongs to the value, put the value in \"quotes\""
                        );
                        warnings.push((position, sentence));
                    }
                    break;
                }
                '"' => quoted = !quoted,
                '\\' => {
                    self.advance();
                    self.escape(position, quoted, &mut value)?;
                    kept = value.len();
                    after_blank = false;
                    continue;
                }
                '\r' => {} // gcfg drops every one of them
                c => {
                    self.refuse_nul(c, position)?;
                    value.push(c);
                }
            }
            self.advance();
            after_blank = !quoted && is_blank(c);
            if quoted || !is_blank(c) {
                kept = value.len();
            }
        }
        if quoted {
            return Err(self.expected(start, &format!("a value of {key} whose quotes are closed on their line")));
        }
        value.truncate(kept);
        Ok(SecretString::from(value))
    }

    /// What is behind a backslash. Outside of quotes gcfg knows `\"` and the continued line only.
    fn escape(&mut self, position: Position, quoted: bool, value: &mut String) -> Result<()> {
        if !quoted && self.peek() == Some('\r') {
            self.advance();
        }
        match self.peek() {
            Some('"') => value.push('"'),
            Some('\n') if !quoted => {}
            Some('\\') if quoted => value.push('\\'),
            Some('n') if quoted => value.push('\n'),
            Some('t') if quoted => value.push('\t'),
            _ if quoted => return Err(self.expected(position, "one of the escapes \\\\ \\\" \\n \\t within quotes")),
            _ => {
                let what = "\\\" or the end of the line after a backslash; put the value in \"quotes\" and write \\\\";
                return Err(self.expected(position, what));
            }
        }
        self.advance();
        Ok(())
    }

    fn end_of_line(&mut self, what: &str) -> Result<()> {
        self.skip_blanks();
        match self.peek() {
            None | Some('\n' | ';' | '#') => Ok(()),
            Some(_) => Err(self.expected(self.position, what)),
        }
    }

    fn refuse_nul(&self, c: char, position: Position) -> Result<()> {
        if c == '\0' { Err(self.expected(position, "text without zero bytes")) } else { Ok(()) }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

fn is_letter(c: char) -> bool {
    c.is_alphabetic()
}

fn is_digit(c: char) -> bool {
    c.is_numeric()
}

#[cfg(test)]
mod tests;
