//! Reading what a controller said about a connection: a stranger's data, in which numbers may be text and absent may be
//! null.

use super::Link;
use crate::error::{Error, Result};
use serde_json::Value;
use std::fmt::Display;
use std::str::FromStr;

/// The data of a [`Link`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    link: &'a Link,
}

impl<'a> Fields<'a> {
    pub(super) fn of(link: &'a Link) -> Self {
        Self { link }
    }

    /// A field that is there and is neither null nor empty.
    pub(super) fn value(self, key: &str) -> Option<&'a Value> {
        self.link.connection.data.get(key).filter(|value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => true,
        })
    }

    /// A field that is text, or a number as text, parsed; none if it is not there.
    ///
    /// # Errors
    /// `InvalidArgument`: it is something else, or makes no sense.
    pub(super) fn optional<T: FromStr<Err: Display>>(self, key: &str) -> Result<Option<T>> {
        self.value(key).map(|value| self.parse(key, value)).transpose()
    }

    /// The same for one that must be there.
    ///
    /// # Errors
    /// `InvalidArgument`: it is not there, or makes no sense.
    pub(super) fn required<T: FromStr<Err: Display>>(self, key: &str) -> Result<T> {
        self.optional(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A field that is a list; one that is a single value is a list of it. Empty if it is not there.
    ///
    /// # Errors
    /// `InvalidArgument`: an entry makes no sense.
    pub(super) fn list<T: FromStr<Err: Display>>(self, key: &str) -> Result<Vec<T>> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(|value| self.parse(key, value)).collect(),
            Some(value) => Ok(vec![self.parse(key, value)?]),
        }
    }

    /// A part of a field.
    ///
    /// # Errors
    /// `InvalidArgument`: it is neither text nor number, or makes no sense.
    pub(super) fn parse<T: FromStr<Err: Display>>(self, key: &str, value: &Value) -> Result<T> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(self.wrong(key, "is neither text nor a number")),
        };
        text.parse().map_err(|error: T::Err| self.wrong(key, &error.to_string()))
    }

    /// The error for a field that makes no sense.
    pub(super) fn wrong(self, key: &str, why: &str) -> Error {
        Error::invalid(format!(
            "volume {}: {key} of the {} connection {why}; it comes from Cinder's back end",
            self.link.volume, self.link.connection.kind
        ))
    }
}
