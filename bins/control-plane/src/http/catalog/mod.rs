//! `catalog/…`.

pub(crate) mod repositories;
