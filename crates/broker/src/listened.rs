//! The subjects that streams listen to, which are not those that clients use.
//!
//! NATS checks the subject a client publishes to, never the reply subject it asks for: the answer to a publish, to a pull or
//! to a question goes wherever the client says, and a stream that listens there would store it, under whatever sender the
//! subject names. With a pull, what is stored is even of the client's own making.
//!
//! One kind of reply subject is refused from every client, before anything else is done: those below `_R_.`, which the
//! server uses for answers between accounts. So streams listen there. The account maps what clients publish to
//! `<org>.<creator>.<handle>.<pipe>.<sender>` to `_R_.<creator>.<handle>.<pipe>.<sender>`; permissions are checked on that;
//! and streams store it under the plain subject again, which is all that readers see. Answers of JetStream to a plain
//! subject are not mapped and reach nobody. Answers that come from another account are: no client may ask for one.

use uuid::Uuid;

/// What no client may name as its reply.
const RESERVED: &str = "_R_";

/// The subject that permissions are about, of the tokens after the organization.
pub(crate) fn below(tokens: &str) -> String {
    format!("{RESERVED}.{tokens}")
}

/// What the server makes of the subjects that clients of an organization publish to.
pub(crate) fn mapping(organization: Uuid) -> (String, String) {
    let tokens = [1, 2, 3, 4].map(|number| format!("{{{{wildcard({number})}}}}")).join(".");
    (format!("{}.*.*.*.*", organization.simple()), below(&tokens))
}
