//! The program against real ones: a control plane with its own PostgreSQL, an agent, and a person at a terminal.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod nats;
mod person;
mod stand;
mod terminals;

use person::Person;
use stand::Stand;

/// A person at a shell whose state shows whether it is the same one later.
async fn at_a_shell(stand: &Stand) -> Person {
    let mut person = Person::start(stand, &["run", "shell"]);
    person.types("kept=before; echo ready$((40 + 1))\r");
    person.sees("ready41").await;
    person
}

/// What was typed after the fault reaches the same shell.
async fn goes_on(mut person: Person) {
    person.types("echo $kept and after$((40 + 2))\r");
    person.sees("before and after42").await;
    person.types("exit 7\r");
    assert_eq!(person.leaves().await, 7);
}

#[tokio::test]
async fn a_person_is_attached_again_after_kill_9_of_the_agent() {
    let mut stand = Stand::start().await;
    let mut person = at_a_shell(&stand).await;
    stand.agent.kill().await;
    person.sees("attaching again").await;
    stand.agent.start();
    person.sees("attached again").await;
    goes_on(person).await;
}

#[tokio::test]
async fn a_person_is_attached_again_after_kill_9_of_the_control_plane() {
    let mut stand = Stand::start().await;
    let mut person = at_a_shell(&stand).await;
    stand.control_plane.kill().await;
    person.sees("attaching again").await;
    stand.control_plane.start();
    person.sees("attached again").await;
    goes_on(person).await;
}
