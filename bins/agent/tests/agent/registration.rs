//! From the bootstrap key to a key of its own.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tidegate_model::Secret;

use crate::{
    control_plane::ControlPlane,
    support::{Agent, Folder},
};

#[tokio::test]
async fn an_agent_waits_for_approval_with_its_claim_and_connects_with_its_own_key() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start_with(&folder, &plane.url(), |options| {
        options.bootstrap_key = Some(Secret::new("bootstrap".to_owned()));
        options.region = Some("eu-west".into());
    });
    let pending = json!({"agent": {}, "approvalStatus": "pending", "claimToken": "claim-1"});
    let first = plane.answer(202, &pending).await;
    assert!(
        first.starts_with("POST /api/v1/agents/register ") && !first.to_lowercase().contains("x-agent-claim")
    );
    assert!(first.contains(r#""agentId":"agent-1","platform":"vm","region":"eu-west""#), "{first}");
    let second = plane.answer(202, &json!({"agent": {}, "approvalStatus": "pending"})).await;
    assert!(second.to_lowercase().contains("x-agent-claim: claim-1"), "{second}");
    plane.answer(403, &json!({})).await;
    plane.answer(200, &json!({"agent": {}, "approvalStatus": "approved", "apiKey": "ab".repeat(32)})).await;
    let _link = plane.link().await;
    for file in ["agent.key", "claim.token"] {
        let mode = std::fs::metadata(folder.path().join("private").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_key_that_is_refused_sends_the_agent_back_to_registration() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    std::fs::create_dir_all(folder.path().join("private")).unwrap();
    std::fs::write(folder.path().join("private/agent.key"), "cd".repeat(32)).unwrap();
    std::fs::write(folder.path().join("private/claim.token"), "claim-1").unwrap();
    let agent = Agent::start_with(&folder, &plane.url(), |options| {
        options.bootstrap_key = Some(Secret::new("bootstrap".to_owned()));
    });
    let connect = plane.answer(401, &json!({})).await;
    assert!(connect.starts_with("GET /api/v1/agents/connect"));
    let register = plane
        .answer(200, &json!({"agent": {}, "approvalStatus": "approved", "apiKey": "ab".repeat(32)}))
        .await;
    assert!(register.to_lowercase().contains("x-agent-claim: claim-1"), "{register}");
    let _link = plane.link().await;
    agent.stop().await;
}
