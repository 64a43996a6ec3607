//! The sandbox that plugins run in: WebAssembly modules of strangers, each call with its own memory, a bounded amount of
//! work, memory and time, and no way out but the functions that an operator has granted.
//!
//! What is never kept here: PostgreSQL, HTTP, and who may do what. What a module asks for is answered by a [`Host`], which
//! somebody else writes.
//!
//! # What a module looks like
//!
//! It exports three things and imports what it needs of the module `tidegate`:
//!
//! | name | | |
//! |---|---|---|
//! | `memory` | export | its memory |
//! | `alloc` | export | `(len: i32) -> i32`: room for `len` bytes, which the host writes into |
//! | `handle` | export | `(ptr: i32, len: i32) -> i64`: takes JSON, gives JSON as `ptr << 32 \| len` |
//! | `log`, `kv`, `sessions_read`, `sessions_tag`, `http` | import | `(ptr: i32, len: i32) -> i64`, both ways as `handle` |
//!
//! A function answers `{"ok": …}` or `{"error": "…"}`. One that was not granted ends the call. Each call is a new instance:
//! nothing of one is left for the next but what was put into the key-value store.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_plugins::{Grants, Limits, Nothing, Sandbox};
//!
//! let wasm = wat::parse_str(r#"(module
//!     (memory (export "memory") 1)
//!     (data (i32.const 0) "{\"hello\":true}")
//!     (func (export "alloc") (param i32) (result i32) (i32.const 1024))
//!     (func (export "handle") (param i32 i32) (result i64) (i64.const 14)))"#).unwrap();
//! let module = Sandbox::new().load(&wasm).unwrap();
//! let answer = module.call(&serde_json::json!({}), Box::new(Nothing), &Grants::none(), &Limits::default());
//! assert_eq!(answer.unwrap(), serde_json::json!({"hello": true}));
//! ```

mod call;
mod fault;
mod grants;
mod host;
mod limits;
mod sandbox;

pub use fault::Fault;
pub use grants::{Grants, Permission};
pub use host::{Function, Host, Nothing};
pub use limits::Limits;
pub use sandbox::{LONGEST_MODULE, Module, Sandbox};
