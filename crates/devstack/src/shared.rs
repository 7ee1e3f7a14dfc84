//! The one stack that all tests of a run share.

use std::env;

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::{services::Services, stack::Stack};

/// Names the state file of a running stack; `devstack exec` and `devstack up` set it or print it.
pub const STATE_FILE_VARIABLE: &str = "HOLDFAST_DEVSTACK";

enum Shared {
    Attached(Services),
    Own(Box<Stack>),
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// The running stack that `HOLDFAST_DEVSTACK` names, or else one that this process starts once and keeps to its end.
/// Others use it too: make a database and Redis keys of your own, and start a [`Stack`] to hurt servers.
///
/// # Panics
/// When no stack can be had; a test could do nothing else either.
pub async fn shared() -> &'static Services {
    match SHARED.get_or_try_init(find_or_start).await {
        Ok(Shared::Attached(services)) => services,
        Ok(Shared::Own(stack)) => stack,
        Err(error) => panic!("no devstack: {error:#}"),
    }
}

async fn find_or_start() -> Result<Shared> {
    match env::var_os(STATE_FILE_VARIABLE) {
        Some(path) => Ok(Shared::Attached(Services::read(path.as_ref())?)),
        None => Ok(Shared::Own(Box::new(Stack::start().await?))),
    }
}
