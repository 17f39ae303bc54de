//! Settings of clouds that are read again when their files change, so that credentials and certificates can be
//! rotated without a restart.

use crate::config::{Config, Source};
use crate::error::{Error, Result};
use crate::openstack::cloud::Cloud;
use crate::openstack::session::Settings;
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};

/// The configuration of a process, as it is now.
#[derive(Debug)]
pub(super) struct Configuration {
    source: Source,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<Config>,
    /// Counts the changes.
    generation: u64,
}

impl Configuration {
    /// Reads it for the first time, and warns of what was not understood.
    ///
    /// # Errors
    /// `InvalidArgument`: it is wrong.
    pub(super) async fn load(source: Source) -> Result<Arc<Self>> {
        tokio::task::spawn_blocking(move || {
            let config = source.load()?;
            warn_of(&config);
            let state = State { config: Arc::new(config), generation: 0 };
            Ok(Arc::new(Self { source, state: Mutex::new(state) }))
        })
        .await
        .map_err(|error| Error::internal("read the configuration").because(error))?
    }

    /// As it was read last.
    pub(super) fn config(&self) -> Arc<Config> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.config)
    }

    /// As it is now. What cannot be read leaves the present configuration in place. Blocks.
    fn current(&self) -> (Arc<Config>, u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.config.fingerprint.is_current() {
            match self.source.load() {
                Ok(config) => {
                    tracing::info!("the configuration has changed and was read again");
                    warn_of(&config);
                    state.config = Arc::new(config);
                    state.generation += 1;
                }
                Err(error) => {
                    tracing::warn!(%error, "the configuration has changed and cannot be read: the old one stays in use");
                }
            }
        }
        (Arc::clone(&state.config), state.generation)
    }
}

fn warn_of(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// One cloud of the configuration.
#[derive(Debug)]
pub(super) struct ReloadingCloud {
    pub(super) configuration: Arc<Configuration>,
    /// Its name; none for the default cloud, whatever its name is.
    pub(super) name: Option<String>,
}

#[async_trait]
impl Settings for ReloadingCloud {
    async fn current(&self) -> Result<(Arc<Cloud>, u64)> {
        let configuration = Arc::clone(&self.configuration);
        let (config, generation) = tokio::task::spawn_blocking(move || configuration.current())
            .await
            .map_err(|error| Error::internal("read the configuration").because(error))?;
        let cloud = match &self.name {
            None => Some(&config.clouds.default),
            Some(name) => config.clouds.get(name),
        };
        let cloud = cloud.ok_or_else(|| {
            let name = self.name.as_deref().unwrap_or_default();
            Error::invalid(format!("cloud {name:?} is no longer in the configuration"))
        })?;
        Ok((Arc::new(cloud.clone()), generation))
    }
}

#[cfg(test)]
mod tests {
    use super::{Configuration, ReloadingCloud};
    use crate::config::Source;
    use crate::openstack::cloud::Auth;
    use crate::openstack::session::Settings;
    use secrecy::ExposeSecret;
    use std::fs;
    use std::sync::Arc;

    fn conf(password: &str) -> String {
        format!(
            "[Global]\nauth-url = http://127.0.0.1:1/v3\nusername = u\npassword = {password}\n\
             user-domain-name = d\ntenant-name = p\ntenant-domain-name = d\n"
        )
    }

    async fn password(cloud: &ReloadingCloud) -> (String, u64) {
        let (cloud, generation) = cloud.current().await.unwrap();
        match &cloud.auth {
            Auth::Password { password, .. } => (password.expose_secret().to_owned(), generation),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cloud.conf");
        fs::write(&path, conf("old")).unwrap();
        let source = Source { cloud_config: vec![path.clone()], ..Source::default() };
        let configuration = Configuration::load(source).await.unwrap();
        let cloud = ReloadingCloud { configuration: Arc::clone(&configuration), name: None };
        assert_eq!(password(&cloud).await, ("old".to_owned(), 0));
        fs::write(&path, conf("the-new-one")).unwrap();
        assert_eq!(password(&cloud).await, ("the-new-one".to_owned(), 1));
        fs::write(&path, "[Global\n").unwrap();
        assert_eq!(password(&cloud).await, ("the-new-one".to_owned(), 1));
        fs::remove_file(&path).unwrap();
        assert_eq!(password(&cloud).await, ("the-new-one".to_owned(), 1));
        fs::write(&path, conf("third")).unwrap();
        assert_eq!(password(&cloud).await, ("third".to_owned(), 2));
    }
}
