//! `catalog/repositories…`: where templates and plugins come from. Operators add, change and remove them; a server that one
//! lies on may say that it changed.

pub(crate) mod add;
pub(crate) mod one;
pub(crate) mod sync;

pub(crate) use add::{add, list};
pub(crate) use one::{change, get, problems, remove};
pub(crate) use sync::{sync, webhook};
