//! What every verb needs: the client and the way to answer.

use std::{env, fs, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use tidegate_client::{Client, ClientBuilder};
use tidegate_model::Secret;
use url::Url;

use crate::{args::Global, credentials::Credentials, output::Output};

/// Client and output of one run.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
}

impl Context {
    /// With the API key or token of the environment, else with what the last login here was made with.
    pub(crate) fn new(global: &Global) -> anyhow::Result<Self> {
        let target = Target::find(global)?;
        let builder = target.builder()?;
        let client = match of_environment()? {
            Some(credential) => builder.token(credential),
            None => match target.credentials.fixed(&target.url)? {
                Some(credential) => builder.token(credential),
                None => builder.store(Arc::new(target.credentials.store(&target.url))),
            },
        };
        Ok(Self { client: client.build()?, output: Output::new(global.json) })
    }
}

/// The credential that a program was given.
fn of_environment() -> anyhow::Result<Option<Secret<String>>> {
    for name in ["TIDEGATE_API_KEY", "TIDEGATE_TOKEN"] {
        if let Some(text) = env::var_os(name).filter(|text| !text.is_empty()) {
            let text = text.into_string().map_err(|_| anyhow::anyhow!("{name} is not UTF-8"))?;
            return Ok(Some(Secret::new(text.trim().to_owned())));
        }
    }
    Ok(None)
}

/// Which control plane is meant.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) credentials: Credentials,
}

impl Target {
    /// The one named by flag or environment, else the one of the last login.
    pub(crate) fn find(global: &Global) -> anyhow::Result<Self> {
        let credentials = Credentials::of_user()?;
        let url = match &global.url {
            Some(url) => url.clone(),
            None => credentials.current()?.context(
                "no control plane is known: write `tidegate login --url https://…` once, or set TIDEGATE_URL",
            )?,
        };
        let ca_file = match &global.ca_file {
            // The login remembers it, and later calls are made from other folders.
            Some(file) => Some(std::path::absolute(file)?),
            None => credentials.ca_file(&url)?,
        };
        Ok(Self { url, ca_file, credentials })
    }

    /// A client of it, still without a credential.
    pub(crate) fn builder(&self) -> anyhow::Result<ClientBuilder> {
        let builder =
            Client::builder(self.url.clone()).user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        Ok(match &self.ca_file {
            Some(file) => builder.ca_pem(
                fs::read(file).with_context(|| format!("the CA file {} cannot be read", file.display()))?,
            ),
            None => builder,
        })
    }
}
