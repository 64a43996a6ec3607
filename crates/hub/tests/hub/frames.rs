//! Frames that are no messages.

use bytes::Bytes;
use serde_json::json;
use tidegate_hub::{CloseReason, Frame, TransportError};
use tidegate_protocol::MAX_FRAME_BYTES;

use crate::stand::{Stand, Wire};

async fn babble(wire: &Wire, frames: usize) {
    for _ in 0..frames {
        wire.text("{").await;
    }
}

#[tokio::test]
async fn ten_undecodable_frames_in_a_row_close_the_connection() {
    let stand = Stand::new().await;
    let wire = stand.connect(&stand.agent("vm-1").await).await;
    babble(&wire, 10).await;
    assert_eq!(wire.end().await, (CloseReason::Undecodable, Some(1008)));
}

#[tokio::test]
async fn nine_undecodable_frames_and_a_good_one_close_nothing() {
    let stand = Stand::new().await;
    let mut wire = stand.connect(&stand.agent("vm-1").await).await;
    for _ in 0..3 {
        babble(&wire, 9).await;
        wire.say("heartbeat", json!({"status": "online", "activeSessions": 0})).await;
    }
    wire.settle().await;
    // Types of a later version are no babble.
    for _ in 0..20 {
        wire.say("brand_new", json!({})).await;
    }
    wire.settle().await;
}

#[tokio::test]
async fn a_frame_that_is_not_taken_closes_with_its_code() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let large = Frame::Text(" ".repeat(MAX_FRAME_BYTES + 1).into());
    let cases = [
        (Ok(large), (CloseReason::TooLarge, 1009)),
        (Err(TransportError::TooLarge), (CloseReason::TooLarge, 1009)),
        (Ok(Frame::Binary(Bytes::from_static(b"bytes"))), (CloseReason::Binary, 1003)),
        (Err(TransportError::InvalidUtf8), (CloseReason::InvalidUtf8, 1007)),
        (Err(TransportError::Protocol), (CloseReason::Protocol, 1002)),
    ];
    for (frame, (reason, code)) in cases {
        let wire = stand.connect(&agent).await;
        wire.frame(frame).await;
        assert_eq!(wire.end().await, (reason, Some(code)));
    }
}

#[tokio::test]
async fn an_agent_without_a_common_version_is_closed() {
    let stand = Stand::new().await;
    let wire = stand.connect(&stand.agent("vm-1").await).await;
    wire.say("hello", json!({"protocolVersions": [2, 3], "bootId": "boot-1", "sessions": []})).await;
    assert_eq!(wire.end().await, (CloseReason::NoCommonVersion, Some(1002)));
}
