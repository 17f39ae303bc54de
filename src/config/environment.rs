//! The variables of the environment: `OS_*` as an openrc file sets them.

use super::settings::{Dialect, NAMES, Setting, Settings, variable};
use super::spelling;
use crate::error::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Variables besides `OS_*` that matter here.
const OTHERS: [&str; 2] = ["HOME", "XDG_CONFIG_HOME"];

/// A copy of the variables that matter here. Values never show in `Debug`: some of them are passwords.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, SecretString>,
    /// Variables whose values are not text.
    unreadable: Vec<String>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::from_variables(std::env::vars_os())
    }

    /// An environment made of these variables; all but `OS_*`, `HOME` and `XDG_CONFIG_HOME` are left out.
    #[must_use]
    pub fn from_variables<N: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let Ok(name) = name.into().into_string() else { continue };
            if !name.starts_with("OS_") && !OTHERS.contains(&name.as_str()) {
                continue;
            }
            match value.into().into_string() {
                Ok(value) => {
                    environment.variables.insert(name, SecretString::from(value));
                }
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment
    }

    /// The value of a variable; an empty one is as good as none.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub(super) fn get(&self, name: &str) -> Result<Option<&SecretString>> {
        if self.unreadable.iter().any(|unreadable| unreadable == name) {
            return Err(Error::invalid(format!("{name}: the value of this variable is not UTF-8 text; set it again")));
        }
        Ok(self.variables.get(name).filter(|value| !value.expose_secret().is_empty()))
    }

    /// A variable that is no secret.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        Ok(self.get(name)?.map(ExposeSecret::expose_secret))
    }

    /// A variable that is a path.
    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(self.text(name)?.map(PathBuf::from))
    }

    /// Everything that `OS_*` say about a cloud.
    pub(super) fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::new("the environment", Dialect::Environment);
        for names in &NAMES {
            for name in names.clouds_yaml.iter().map(|name| variable(name)) {
                if let Some(value) = self.get(&name)? {
                    settings.fill(names.key, Setting { value: value.clone(), place: name });
                }
            }
        }
        Ok(settings)
    }

    /// Variables that look like misspelled ones of ours.
    pub(super) fn warnings(&self) -> Vec<String> {
        let known = variables();
        let is_known = |name: &str| known.iter().any(|known| known == name) || name.ends_with("_API_VERSION");
        self.variables
            .keys()
            .filter(|name| name.starts_with("OS_") && !is_known(name))
            .filter_map(|name| {
                let meant = spelling::nearest(name, known.iter().map(String::as_str))?;
                Some(format!("{name}: there is no such variable, it is ignored; did you mean {meant}?"))
            })
            .collect()
    }
}

/// Every `OS_*` variable that is read, as it is documented.
#[must_use]
pub fn variables() -> Vec<String> {
    let names = NAMES.iter().flat_map(|names| names.clouds_yaml).map(|name| variable(name));
    names.chain(READ_ELSEWHERE.map(str::to_owned)).collect()
}

/// Variables that say which files and clouds to read.
const READ_ELSEWHERE: [&str; 3] = ["OS_CLOUD", "OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE"];

#[cfg(test)]
mod tests {
    use super::super::settings::Key;
    use super::Environment;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::from_variables(variables.iter().copied())
    }

    #[test]
    fn an_openrc_file_is_understood() {
        let settings = environment(&[
            ("OS_AUTH_URL", "https://c:5000"),
            ("OS_TENANT_NAME", "old"),
            ("OS_PROJECT_NAME", "new"),
            ("OS_ENDPOINT_TYPE", "internalURL"),
            ("OS_INTERFACE", ""),
            ("OS_VOLUMEV3_ENDPOINT_OVERRIDE", "https://v"),
            ("PASSWORD", "x"),
        ])
        .settings()
        .unwrap();
        assert_eq!(settings.text(Key::ProjectName), Some("new"));
        assert_eq!(settings.text(Key::Interface), Some("internalURL"));
        assert_eq!(settings.text(Key::BlockStorageEndpoint), Some("https://v"));
        assert_eq!(settings.text(Key::Password), None);
    }

    #[test]
    fn a_misspelled_variable_is_warned_about_and_foreign_ones_are_not() {
        let warnings = environment(&[
            ("OS_PASWORD", "x"),
            ("OS_CLOUD", "x"),
            ("OS_IDENTITY_API_VERSION", "3"),
            ("OS_USERNAME", "x"),
            ("OS_SOMETHING_ELSE", "x"),
        ])
        .warnings();
        assert_eq!(warnings, ["OS_PASWORD: there is no such variable, it is ignored; did you mean OS_PASSWORD?"]);
    }

    #[test]
    fn a_value_that_is_not_text_is_an_error_by_name() {
        let broken = [(OsString::from("OS_PASSWORD"), OsString::from_vec(vec![0xff]))];
        let message = Environment::from_variables(broken).settings().unwrap_err().to_string();
        assert!(message.starts_with("OS_PASSWORD"), "{message}");
    }

    #[test]
    fn no_value_shows() {
        assert!(!format!("{:?}", environment(&[("OS_PASSWORD", "hunter2")])).contains("hunter2"));
    }
}
