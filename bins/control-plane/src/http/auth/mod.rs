//! Logging in and out.

pub(crate) mod exchange;
pub(crate) mod forgotten;
pub(crate) mod login;
pub(crate) mod logins;
pub(crate) mod logout;
pub(crate) mod password;
pub(crate) mod providers;
pub(crate) mod refresh;
pub(crate) mod setup;
pub(crate) mod setup_status;
pub(crate) mod switch;

pub(crate) use exchange::exchange;
pub(crate) use forgotten::{new_password, reset_password};
pub(crate) use login::login;
pub(crate) use logins::{logins, revoke_login};
pub(crate) use logout::logout;
pub(crate) use password::password;
pub(crate) use providers::providers;
pub(crate) use refresh::refresh;
pub(crate) use setup::setup;
pub(crate) use setup_status::setup_status;
pub(crate) use switch::switch;
