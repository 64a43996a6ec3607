//! The first message of a pipe, which makes its stream, and the others, which one question lets in.

use futures_util::future::join_all;

use super::*;

impl Stage {
    async fn pipe(&self, handle: &str, name: &str) {
        let request: CreatePipeRequest = read(json!({"name": name}));
        let made =
            self.services.pipes.create(scope(&self.owner), handle, request, None, |_| json!(null)).await;
        assert!(matches!(made, Ok(Made::New(_))), "{made:?}");
    }
}

/// Takes back what was written down of a pipe's stream, as if whoever made it had ended before; their lease ends at `until`.
async fn forget(stage: &Stage, pipe: &str, until: &str) {
    stage
        .test
        .execute(&format!(
            "UPDATE pipe_operations SET status = 'pending', finished_at = NULL, next_at = {until} WHERE pipe = '{pipe}';
             UPDATE pipe_streams SET force_ttl_seconds = NULL, force_max_msgs = NULL, force_max_bytes = NULL, incarnation = NULL,
                seen_at = NULL WHERE pipe = '{pipe}'"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_send_the_first_message_at_two_replicas_one_makes_the_stream() {
    let stage = Stage::new().await;
    let other = replica(&stage.test).await;
    stage.make("build", "message").await;
    stage.pipe("build", "room").await;
    let send = async |number: usize| {
        let services = if number.is_multiple_of(2) { &stage.services } else { &other };
        let said = text(&number.to_string());
        services.messages.publish(scope(&stage.owner), "build", "room", said, None).await.unwrap().sequence
    };
    let mut sequences = join_all((0..16).map(send)).await;
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=16).collect::<Vec<_>>());
    let done: String = stage
        .test
        .look("SELECT string_agg(kind || ' ' || status || ' ' || attempts, ',') FROM pipe_operations WHERE kind = 'ensure_stream'")
        .await;
    assert_eq!(done, "ensure_stream done 1");
}

#[tokio::test]
async fn a_crash_before_a_stream_is_written_down_is_repeated_and_changes_nothing() {
    let stage = Stage::new().await;
    let other = replica(&stage.test).await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "first").await.unwrap();
    let incarnation = "SELECT incarnation::text FROM pipe_streams";
    let before: String = stage.test.look(incarnation).await;
    // The lease of whoever crashed has passed.
    forget(&stage, "inbox", "'epoch'").await;
    let send =
        async || other.messages.publish(scope(&stage.friend), "build", "inbox", text("second"), None).await;
    assert_eq!(send().await.unwrap().sequence, 2);
    assert_eq!(stage.test.look::<String>(incarnation).await, before);
    let attempts: i32 = stage.test.look("SELECT attempts FROM pipe_operations").await;
    assert_eq!(attempts, 2);
    // It has not passed yet: nobody else makes it meanwhile, and a repeat completes it.
    forget(&stage, "inbox", "now() + interval '1 hour'").await;
    let refused = send().await.unwrap_err();
    assert!(matches!(refused, Error::NotReady(_)), "{refused:?}");
    // Where no other process can have it, nobody waits for the lease.
    assert_eq!(other.broker.let_go().await.unwrap(), 1);
    assert_eq!(send().await.unwrap().sequence, 3);
    assert_eq!(other.broker.let_go().await.unwrap(), 0);
    let page = stage.read(&stage.owner, "build", "inbox", MessagesRead::After(0)).await.unwrap();
    assert_eq!(said(&page), ["first", "second", "second"]);
}

/// Nothing is claimed that nobody carries out. What was tried, and is to be tried again, says why.
async fn no_lease_is_left(stage: &Stage) {
    stage.services.broker.finish().await;
    let left: i64 = stage
        .test
        .look(
            "SELECT count(*) FROM pipe_operations WHERE status = 'pending' AND attempts > 0 AND next_at > 'epoch' AND reason IS NULL",
        )
        .await;
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_at_any_moment_leaves_no_lease_behind() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.owner, "build", "inbox", "the account is there").await.unwrap();
    let mut over = 0;
    for number in 0_u32.. {
        let name = format!("room-{number}");
        stage.pipe("build", &name).await;
        let sending = Box::pin(stage.send(&stage.owner, "build", &name, "hi"));
        if let Some(sent) = given_up(sending, number).await {
            sent.unwrap();
            over += 1;
            if over == 8 {
                break;
            }
        }
    }
    no_lease_is_left(&stage).await;
    stage.test.execute("UPDATE pipe_operations SET next_at = 'epoch'").await;
    stage.apply().await;
    let (wanted, made) = ("SELECT count(*) FROM pipe_streams", " WHERE incarnation IS NOT NULL");
    let made: i64 = stage.test.look(&format!("{wanted}{made}")).await;
    assert_eq!(made, stage.test.look::<i64>(wanted).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_repeats_and_leaves_at_any_moment_leaves_no_lease_behind() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    let mut over = 0;
    for number in 0_u32.. {
        let name = format!("room-{number}");
        stage.pipe("build", &name).await;
        stage.send(&stage.owner, "build", &name, "its stream is there").await.unwrap();
        // Asked for again, and nobody does it.
        forget(&stage, &name, "'epoch'").await;
        let sending = Box::pin(stage.send(&stage.owner, "build", &name, "hi"));
        if let Some(sent) = given_up(sending, number).await {
            assert_eq!(sent.unwrap().sequence, 2);
            over += 1;
            if over == 4 {
                break;
            }
        }
    }
    no_lease_is_left(&stage).await;
}

#[tokio::test]
async fn what_is_taken_away_is_gone_with_the_next_message() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.pipe("build", "room").await;
    stage.send(&stage.owner, "build", "room", "mine").await.unwrap();
    forbidden(stage.send(&stage.friend, "build", "room", "not yet").await);
    let name = scope(&stage.friend).username().to_owned();
    let grant = stage.grant("build", json!({"username": name, "right": "write"})).await;
    for sequence in [2, 3] {
        assert_eq!(stage.send(&stage.friend, "build", "room", "may").await.unwrap().sequence, sequence);
    }
    stage.services.sources.revoke_grant(scope(&stage.owner), "build", grant).await.unwrap();
    forbidden(stage.send(&stage.friend, "build", "room", "no more").await);
    stage.grant("build", json!({"everyone": true, "right": "read"})).await;
    forbidden(stage.send(&stage.friend, "build", "room", "reading is not writing").await);
    stage.services.pipes.delete(scope(&stage.owner), "build", "room").await.unwrap();
    let gone = stage.send(&stage.owner, "build", "room", "gone").await.unwrap_err();
    assert!(matches!(gone, Error::NotFound(_)), "{gone:?}");
    for handle in ["nobody", "No Handle", "nul\0"] {
        let none = stage.send(&stage.owner, handle, "in\0box", "hi").await.unwrap_err();
        assert!(matches!(none, Error::NotFound(_)), "{none:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_send_at_one_time_each_is_let_in_for_themselves() {
    let stage = Stage::new().await;
    let strange = stage.test.org_with_admin("bolt").await;
    stage.make("build", "message").await;
    stage.make("shell", "pty").await;
    for (handle, pipe) in [("build", "inbox"), ("shell", "stdin"), ("shell", "stdout")] {
        stage.send(&stage.owner, handle, pipe, "it is made").await.unwrap();
    }
    let send = async |number: usize| {
        let (who, handle, pipe) = match number % 5 {
            0 => (&stage.friend, "build", "inbox"),
            1 => (&stage.friend, "shell", "stdin"),
            2 => (&stage.friend, "shell", "stdout"),
            3 => (&stage.owner, "shell", "stdout"),
            _ => (&strange.admin, "build", "inbox"),
        };
        match stage.send(who, handle, pipe, "at one time").await {
            Ok(sent) => {
                assert_eq!(sent.envelope.sender, scope(who).user_id());
                [0, 3].contains(&(number % 5))
            }
            Err(Error::Forbidden(_)) => [1, 2].contains(&(number % 5)),
            Err(Error::NotFound(_)) => number % 5 == 4,
            Err(error) => panic!("{number}: {error:?}"),
        }
    };
    assert!(join_all((0..100).map(send)).await.into_iter().all(|as_expected| as_expected));
}

/// Whoever makes a stream by looking at it, and whoever comes after them, are told the same of it.
#[tokio::test]
async fn a_stream_has_one_incarnation_from_its_first_answer_on() {
    let stage = Stage::new().await;
    // The nanoseconds of a moment are nought once in a thousand.
    for handle in ["one", "two", "three"] {
        stage.make(handle, "message").await;
        let incarnation = async || {
            stage.read(&stage.owner, handle, "inbox", MessagesRead::After(0)).await.unwrap().incarnation
        };
        let first = incarnation().await;
        assert!(first.is_some());
        assert_eq!(incarnation().await, first);
    }
}
