//! Device-code login as devices see it (RFC 8628): outside of the API's prefix, with OAuth's own names and refusals.

pub(crate) mod code;
pub(crate) mod token;

pub(crate) use code::code;
pub(crate) use token::token;
