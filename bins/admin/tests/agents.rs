//! `tidegate-admin agents`, `sessions` and `commands`, as an operator types them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

mod console;

use console::Console;
use serde_json::Value;
use tidegate_model::Clock;
use tidegate_test_support::{SimAgent, TestDb, TestOrg};

/// A database with an agent that is connected, and the operator's machine.
struct Stand {
    test: TestDb,
    org: TestOrg,
    agent: SimAgent,
    console: Console,
}

impl Stand {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let agent = test.online_agent("vm-1", 9).await;
        let console = Console::of(&test);
        Self { test, org, agent, console }
    }

    fn says(&self, words: &[&str]) -> String {
        self.console.says(words)
    }

    fn json(&self, words: &[&str]) -> Value {
        self.console.json(words)
    }

    fn refused(&self, words: &[&str]) -> String {
        self.console.refused(words)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_listed_drained_assigned_and_removed() {
    let stand = Stand::new().await;
    let list = stand.says(&["agents", "list"]);
    assert!(list.contains("vm-1") && list.contains("all") && list.contains("of 9"), "{list}");
    assert_eq!(stand.json(&["agents", "list", "--status", "offline"])["total"], 0);
    assert_eq!(stand.json(&["agents", "list", "--platform", "vm", "--approval", "approved"])["total"], 1);
    assert!(stand.refused(&["agents", "list", "--status", "asleep"]).contains("asleep"));

    let drained = stand.says(&["agents", "drain", "vm-1", "--deadline", "2d", "--reason", "a new kernel"]);
    assert!(drained.contains("gets no sessions; what still runs at "), "{drained}");
    let shown = stand.says(&["agents", "show", "vm-1"]);
    assert!(shown.contains("a new kernel") && shown.contains("drain ends"), "{shown}");
    assert_eq!(stand.json(&["agents", "show", "vm-1"])["drain"]["reason"], "a new kernel");
    assert_eq!(stand.json(&["agents", "list", "--status", "draining"])["total"], 1);
    assert!(
        stand.refused(&["agents", "drain", "vm-1", "--deadline", "soon"]).contains("must be a time such as")
    );
    stand.says(&["agents", "undrain", "vm-1"]);
    assert_eq!(stand.json(&["agents", "show", "vm-1"]).get("drain"), None);

    let assigned = stand.says(&["agents", "assign", "vm-1", "--organization", "acme"]);
    assert!(assigned.contains("serves organization acme alone"), "{assigned}");
    assert_eq!(
        stand.json(&["agents", "list", "--organization", "acme"])["agents"][0]["organization"],
        "acme"
    );
    assert!(stand.says(&["agents", "assign", "vm-1", "--shared"]).contains("serves all organizations"));
    stand.refused(&["agents", "assign", "vm-1"]);
    stand.refused(&["agents", "assign", "vm-1", "--organization", "nobody"]);

    stand.test.pending_session(&stand.org.admin).await;
    let refused = stand.refused(&["agents", "remove", "vm-1"]);
    assert!(refused.contains("agent vm-1 holds 1 session: drain it"), "{refused}");
    stand.says(&["agents", "remove", "vm-1", "--force"]);
    assert_eq!(stand.json(&["agents", "list"])["total"], 0);
    assert_eq!(stand.json(&["sessions", "list", "--state", "terminated"])["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_with_an_overlap_and_revoked() {
    let stand = Stand::new().await;
    let agents = &stand.test.services().agents;
    let lets_in = async |key: &tidegate_model::Secret<String>| {
        agents.authenticate(stand.agent.handle(), Some(key), None).await.is_ok()
    };
    // The program's clock is the machine's.
    let ahead = tidegate_model::SystemClock::new().now() - stand.test.manual_clock().now();
    stand.test.manual_clock().advance(ahead);
    let rotated = stand.json(&["agents", "rotate-key", "vm-1", "--overlap-seconds", "600"]);
    let new = tidegate_model::Secret::new(rotated["apiKey"].as_str().unwrap().to_owned());
    assert!(rotated["oldKeyUntil"].is_string());
    assert!(lets_in(&new).await && lets_in(stand.agent.key()).await);
    assert!(
        stand.refused(&["agents", "rotate-key", "vm-1", "--overlap-seconds", "604801"]).contains("7 days")
    );
    let revoked = stand.says(&["agents", "revoke-key", "vm-1"]);
    assert!(revoked.contains("is cut off"), "{revoked}");
    assert!(!lets_in(&new).await && !lets_in(stand.agent.key()).await);
    let again = stand.says(&["agents", "rotate-key", "vm-1"]);
    assert!(again.contains("the old one is good for nothing any more"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_all_organizations_are_listed_and_ended_and_commands_shown() {
    let mut stand = Stand::new().await;
    let bolt = stand.test.org_with_admin("bolt").await;
    let theirs = stand.test.running_session(&bolt.admin, &mut stand.agent).await.id.to_string();
    stand.test.pending_session(&stand.org.admin).await;
    assert_eq!(stand.json(&["sessions", "list"])["total"], 2);
    let of_bolt = stand.json(&["sessions", "list", "--organization", "bolt", "--agent", "vm-1"]);
    assert_eq!(
        (&of_bolt["total"], of_bolt["sessions"][0]["id"].as_str()),
        (&1.into(), Some(theirs.as_str()))
    );
    let table = stand.says(&["sessions", "list", "--state", "running"]);
    assert!(table.contains(&theirs) && table.contains("ORGANIZATION"), "{table}");
    let ended = stand.says(&["sessions", "terminate", &theirs, "--reason", "it mines coins"]);
    assert!(ended.contains("is being ended"), "{ended}");
    assert!(stand.says(&["sessions", "terminate", &theirs]).contains("is terminating already"));
    let commands = stand.json(&["commands", "list", "vm-1"]);
    let stop = &commands["commands"][0];
    assert_eq!((stop["action"].as_str(), stop["status"].as_str()), (Some("stop_session"), Some("pending")));
    let id = stop["commandId"].as_str().unwrap();
    assert_eq!(stand.json(&["commands", "show", id])["sessionId"], theirs.as_str());
    let shown = stand.says(&["commands", "show", id]);
    assert!(shown.contains("acknowledged") && shown.contains("never"), "{shown}");
    stand.agent.work().await;
    assert_eq!(stand.json(&["commands", "show", id])["status"], "completed");
    assert!(stand.refused(&["commands", "show", "cmd-odd"]).contains("is no id of a command"));
}
