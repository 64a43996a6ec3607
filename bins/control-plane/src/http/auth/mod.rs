//! Logging in and out.

pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod refresh;
pub(crate) mod setup;
pub(crate) mod setup_status;
pub(crate) mod switch;

pub(crate) use login::login;
pub(crate) use logout::logout;
pub(crate) use refresh::refresh;
pub(crate) use setup::setup;
pub(crate) use setup_status::setup_status;
pub(crate) use switch::switch;
