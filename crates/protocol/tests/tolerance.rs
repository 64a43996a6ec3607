//! What other people's agents send: missing parts, old names, unknown types, plain rubbish.

#![expect(clippy::unwrap_used, reason = "a frame that cannot be read fails its test")]

use proptest::prelude::*;
use tidegate_model::SessionState;
use tidegate_protocol::{DecodeError, Decoded, FromAgent, MAX_FRAME_BYTES, TerminalFrame, ToAgent, TunnelId};

fn read(frame: &str) -> FromAgent {
    match FromAgent::decode(frame).unwrap() {
        Decoded::Message(message) => message,
        Decoded::Unknown(kind) => panic!("unknown type {kind}"),
    }
}

#[test]
fn a_missing_or_odd_timestamp_and_a_missing_payload_are_no_fault() {
    for frame in [
        r#"{"type":"pong"}"#,
        r#"{"type":"pong","payload":null}"#,
        r#"{"type":"pong","timestamp":"yesterday","payload":{}}"#,
        r#"{"type":"pong","timestamp":17}"#,
    ] {
        assert!(matches!(read(frame), FromAgent::Pong(_)), "{frame}");
    }
}

#[test]
fn the_old_names_of_the_streaming_fields_are_read() {
    let FromAgent::Status(status) = read(
        r#"{"type":"status","payload":{"sessionId":"s","state":"running","vncReady":true,"vncPort":5900}}"#,
    ) else {
        panic!("a status")
    };
    assert_eq!(
        (status.state, status.streaming_ready, status.streaming_port),
        (SessionState::Running, Some(true), Some(5900))
    );
}

#[test]
fn what_a_status_does_not_carry_is_none() {
    let FromAgent::Status(status) = read(r#"{"type":"status","payload":{"sessionId":"s","state":"failed"}}"#)
    else {
        panic!("a status")
    };
    assert_eq!((status.streaming_ready, status.streaming_port, status.platform_metadata), (None, None, None));
}

#[test]
fn an_unknown_type_is_named_and_cut_short() {
    let frame = format!(r#"{{"type":"{}\n","payload":{{}}}}"#, "x".repeat(500));
    assert_eq!(FromAgent::decode(&frame), Ok(Decoded::Unknown("x".repeat(64))));
    assert_eq!(FromAgent::decode(r#"{"type":"command"}"#), Ok(Decoded::Unknown("command".into())));
}

#[test]
fn a_known_type_with_a_payload_that_does_not_fit_is_an_error() {
    assert_eq!(
        FromAgent::decode(r#"{"type":"ack","payload":{}}"#),
        Err(DecodeError::Payload { kind: "ack" })
    );
    assert_eq!(
        FromAgent::decode(r#"{"type":"ack","payload":[1]}"#),
        Err(DecodeError::Payload { kind: "ack" })
    );
}

#[test]
fn a_frame_over_the_limit_is_not_even_parsed() {
    let frame = format!(r#"{{"type":"pong","payload":"{}"}}"#, "x".repeat(MAX_FRAME_BYTES));
    assert!(matches!(FromAgent::decode(&frame), Err(DecodeError::TooLarge(_))));
}

#[test]
fn a_tunnel_id_is_thirty_two_hexadecimal_digits_and_hides_in_logs() {
    let id = TunnelId::from_random([0xab; 16]);
    assert_eq!(id.as_str().parse(), Ok(id.clone()));
    assert!(!format!("{id:?}").contains(id.as_str()));
    for text in ["", "AB", &"g".repeat(32), &"A".repeat(32), "../../../../../../../../../../../"] {
        assert!(text.parse::<TunnelId>().is_err(), "{text}");
    }
}

#[test]
fn a_terminal_frame_out_of_bounds_is_ignored() {
    assert_eq!(
        TerminalFrame::decode(r#"{"type":"resize","cols":80,"rows":24}"#),
        Some(TerminalFrame::Resize { cols: 80, rows: 24 })
    );
    for text in [
        r#"{"type":"resize","cols":0,"rows":24}"#,
        r#"{"type":"resize","cols":70000,"rows":24}"#,
        r#"{"type":"resize","cols":80,"rows":1001}"#,
        "{",
        "",
        r#"{"type":"paint"}"#,
    ] {
        assert_eq!(TerminalFrame::decode(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = (FromAgent::decode(text), ToAgent::decode(text), TerminalFrame::decode(text));
        }
    }

    #[test]
    fn no_envelope_makes_the_decoders_panic(
        kind in "(hello|heartbeat|ack|complete|failed|status|pong|tunnel_failed|command|tunnel_open|[a-z]{0,9})",
        field in "(commandId|sessionId|state|generation|sessions|streamingPort|capacity|[a-zA-Z]{0,9})",
        value in "(null|-1|1e999|99999999999999999999|\"\"|\"running\"|\\[\\]|\\{\\}|\\[\\[\\[\\]\\]\\])",
    ) {
        let frame = format!(r#"{{"type":"{kind}","payload":{{"{field}":{value}}}}}"#);
        let _ = (FromAgent::decode(&frame), ToAgent::decode(&frame));
    }

    #[test]
    fn every_completion_survives_the_wire(id in "cmd-[a-z0-9]{1,40}", key in "[a-z]{1,8}", value in any::<i64>()) {
        let mut result = serde_json::Map::new();
        result.insert(key, value.into());
        let message = FromAgent::Complete(tidegate_protocol::CompleteMessage { command_id: id, result: Some(result) });
        let now = chrono::DateTime::UNIX_EPOCH;
        prop_assert_eq!(FromAgent::decode(&message.encode(now)), Ok(Decoded::Message(message)));
    }
}
