//! Installed applications: crashes between the states, who may launch at the moment of the launch, and what a session
//! remembers when catalog and application are gone.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};
use tidegate_model::{
    AccessLevel, AddGroupAccessRequest, AddGroupMemberRequest, ApplicationId, CatalogTemplateId, Clock,
    CreateGroupRequest, FromFields, GroupId, GroupRole, InstallApplicationRequest, InstallStatus,
    InstalledApplication, NewSession, OrgRole, RepositoryId, Scope, SessionState, UpdateApplicationRequest,
};
use tidegate_persistence::application::{self, Brought, Claimed};
use tidegate_service::{
    ApplicationsPage, Caller, Changed, ChangedAccess, Error, Idempotency, Made, MadeGroup, Paging, Removal,
    Services,
};
use tidegate_test_support::{SimAgent, TestDb, TestOrg, catalog::template, eventually};

use crate::{
    keys::{mint, wanted},
    queued, state,
};

struct Stage {
    test: TestDb,
    org: TestOrg,
    agent: SimAgent,
    user: Caller,
    template: CatalogTemplateId,
}

const GREETER: &str = "greeter";

fn greeter() -> Value {
    json!({
        "displayName": "Greeter", "appType": "terminal", "platforms": ["vm"], "command": ["greet", "${whom}"],
        "env": {"MOOD": "${mood}"}, "tags": ["greeter"],
        "options": {"whom": {"type": "string", "default": "world"}, "mood": {"enum": ["glad", "sad"], "default": "glad"}},
    })
}

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let agent = test.online_agent("vm-1", 100).await;
        let user = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let repository = test.repository("tests").await;
        test.sync(repository, &[template(GREETER, &greeter())], &[]).await;
        let template = test.template_id(repository, GREETER).await;
        Self { test, org, agent, user, template }
    }

    fn services(&self) -> &Services {
        self.test.services()
    }

    async fn ask(&self, configuration: Value) -> Result<InstalledApplication, Error> {
        let body = json!({"catalogTemplateId": self.template, "configuration": configuration});
        let request = InstallApplicationRequest::from_json(body).unwrap();
        let scope = self.org.admin.org().unwrap();
        match self.services().applications.install(scope, request, None, |_| json!(null)).await? {
            Made::New(made) => Ok(made),
            Made::Replay(_) => panic!("no key was given"),
        }
    }

    async fn installed(&self, configuration: Value) -> ApplicationId {
        let id = self.ask(configuration).await.unwrap().id;
        assert_eq!(self.services().applications.install_due().await.unwrap(), 1);
        assert_eq!(self.get(id).await.install_status, InstallStatus::Installed);
        id
    }

    async fn get(&self, id: ApplicationId) -> InstalledApplication {
        self.services().applications.get(self.org.admin.org().unwrap(), id).await.unwrap()
    }

    async fn group(&self, name: &str, parent: Option<GroupId>) -> GroupId {
        let body = json!({"name": name, "displayName": "Some of us", "type": "team", "parentId": parent});
        let request = CreateGroupRequest::from_json(body).unwrap();
        let groups = &self.services().groups;
        match groups.create(self.org.admin.org().unwrap(), request, None, |_| json!(null)).await.unwrap() {
            MadeGroup::New(group) => group.id,
            MadeGroup::Replay(_) => panic!("a new group"),
        }
    }

    async fn join(&self, group: GroupId) {
        let request = AddGroupMemberRequest { user_id: self.user.user().user_id(), role: GroupRole::Member };
        let groups = &self.services().groups;
        groups.add_keyed(self.org.admin.org().unwrap(), group, request, None, |_| json!(null)).await.unwrap();
    }

    async fn give(&self, id: ApplicationId, group_id: GroupId, access_level: AccessLevel) {
        let request = AddGroupAccessRequest { group_id, access_level };
        let scope = self.org.admin.org().unwrap();
        let given = self.services().applications.add_group(scope, id, request, None, |_| json!(null)).await;
        assert!(matches!(given, Ok(ChangedAccess::New(_) | ChangedAccess::Changed(_))), "{given:?}");
    }

    async fn launch(&self, who: &Caller, id: ApplicationId) -> Result<Changed, Error> {
        let new = NewSession::of_application(id);
        self.services().sessions.create(who.org().unwrap(), new, None, |_, _| json!(null)).await
    }

    /// The names that the user is shown.
    async fn mine(&self) -> Vec<String> {
        let paging = Paging { limit: 100, cursor: None };
        let applications = &self.services().applications;
        let page =
            applications.list(self.user.org().unwrap(), ApplicationsPage::Users, &paging).await.unwrap();
        page.items.into_iter().map(|it| it.name).collect()
    }
}

#[tokio::test]
async fn whoever_dies_in_the_middle_is_followed_by_somebody_who_goes_on() {
    let stage = Stage::new().await;
    let id = stage.ask(json!({})).await.unwrap().id;
    // Claimed by somebody whose lease has not passed: nobody else is at it.
    let claimed = "UPDATE installed_applications SET install_status = 'creating', install_attempt = 1, install_due_at = install_due_at + interval '1 minute'";
    stage.test.execute(claimed).await;
    assert_eq!(stage.services().applications.install_due().await.unwrap(), 0);
    assert_eq!(stage.get(id).await.install_status, InstallStatus::Creating);
    stage
        .test
        .execute("UPDATE installed_applications SET install_due_at = install_due_at - interval '2 minutes'")
        .await;
    assert_eq!(stage.services().applications.install_due().await.unwrap(), 1);
    assert_eq!(stage.get(id).await.install_status, InstallStatus::Installed);
    assert_eq!(stage.services().applications.install_due().await.unwrap(), 0, "once");
    let installs: i64 = stage.test.look("SELECT install_count FROM template_stats").await;
    assert_eq!(installs, 1);
}

#[tokio::test]
async fn what_kills_everybody_who_is_at_it_is_given_up() {
    let stage = Stage::new().await;
    let id = stage.ask(json!({})).await.unwrap().id;
    stage
        .test
        .execute("UPDATE installed_applications SET install_status = 'creating', install_attempt = 5")
        .await;
    assert_eq!(stage.services().applications.install_due().await.unwrap(), 1);
    let seen = stage.get(id).await;
    assert_eq!(seen.install_status, InstallStatus::Failed);
    assert!(seen.install_message.unwrap().contains("5 times"));
}

#[tokio::test]
async fn many_who_look_at_once_install_once() {
    let stage = Stage::new().await;
    stage.ask(json!({})).await.unwrap();
    let looks = (0..4).map(|_| stage.services().applications.install_due());
    let ended: usize = futures_util::future::try_join_all(looks).await.unwrap().into_iter().sum();
    assert_eq!(ended, 1);
    let lines: i64 =
        stage.test.look("SELECT count(*) FROM audit_log WHERE action = 'application.installed'").await;
    assert_eq!(lines, 1);
}

#[tokio::test]
async fn a_template_that_was_withdrawn_meanwhile_is_not_installed() {
    let stage = Stage::new().await;
    let id = stage.ask(json!({})).await.unwrap().id;
    stage.test.execute("UPDATE catalog_templates SET withdrawn_at = now()").await;
    stage.services().applications.install_due().await.unwrap();
    let seen = stage.get(id).await;
    assert_eq!(seen.install_status, InstallStatus::Failed);
    assert!(seen.install_message.unwrap().contains("withdrawn"));
    assert!(matches!(stage.ask(json!({})).await, Err(Error::NotFound(_))), "nor asked for");
    stage.test.execute("UPDATE catalog_templates SET withdrawn_at = NULL").await;
    let scope = stage.org.admin.org().unwrap();
    let again = stage.services().applications.update(scope, id, UpdateApplicationRequest::default()).await;
    assert_eq!(again.unwrap().install_status, InstallStatus::Pending);
    stage.services().applications.install_due().await.unwrap();
    assert_eq!(stage.get(id).await.install_status, InstallStatus::Installed);
}

#[tokio::test]
async fn groups_let_in_those_below_them_and_nobody_else() {
    let stage = Stage::new().await;
    let id = stage.installed(json!({})).await;
    assert_eq!(stage.mine().await, [""; 0]);
    let above = stage.group("above", None).await;
    let below = stage.group("below", Some(above)).await;
    stage.join(below).await;
    stage.give(id, above, AccessLevel::View).await;
    assert_eq!(stage.mine().await.len(), 1);
    assert!(matches!(stage.launch(&stage.user, id).await, Err(Error::Forbidden(_))));
    stage.give(id, below, AccessLevel::Launch).await;
    stage.launch(&stage.user, id).await.unwrap();
    // The best of both counts, and goes with the group.
    let scope = stage.org.admin.org().unwrap();
    stage.services().groups.delete(scope, below, tidegate_service::ChildrenOf::Keep).await.unwrap();
    assert_eq!(stage.mine().await, [""; 0]);
    assert!(matches!(stage.launch(&stage.user, id).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_group_that_lost_its_access_between_list_and_launch_starts_nothing() {
    let stage = Stage::new().await;
    let id = stage.installed(json!({})).await;
    let crew = stage.group("crew", None).await;
    stage.join(crew).await;
    stage.give(id, crew, AccessLevel::Launch).await;
    assert_eq!(stage.mine().await.len(), 1, "it was in the list");
    stage.services().applications.remove_group(stage.org.admin.org().unwrap(), id, crew).await.unwrap();
    assert!(matches!(stage.launch(&stage.user, id).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn an_admins_group_changes_it_and_does_not_say_who_uses_it() {
    let stage = Stage::new().await;
    let id = stage.installed(json!({})).await;
    let crew = stage.group("crew", None).await;
    stage.join(crew).await;
    stage.give(id, crew, AccessLevel::Admin).await;
    let (applications, scope) = (&stage.services().applications, stage.user.org().unwrap());
    let change = UpdateApplicationRequest { enabled: Some(false), ..Default::default() };
    let changed = applications.update(scope, id, change).await.unwrap();
    assert!(!changed.enabled && changed.configuration.is_some());
    assert_eq!(stage.mine().await, [""; 0], "nobody starts it");
    assert!(applications.get(scope, id).await.is_ok(), "who may enable it sees it");
    assert!(matches!(applications.remove_group(scope, id, crew).await, Err(Error::Forbidden(_))));
    assert!(matches!(applications.remove(scope, id, Removal::Forced).await, Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn another_organization_finds_nothing_of_it() {
    let stage = Stage::new().await;
    let id = stage.installed(json!({})).await;
    let rival = stage.test.org_with_admin("rival").await.admin;
    let (applications, scope) = (&stage.services().applications, rival.org().unwrap());
    let crew = stage.group("crew", None).await;
    let request = AddGroupAccessRequest { group_id: crew, access_level: AccessLevel::View };
    let change = UpdateApplicationRequest::default();
    assert!(matches!(applications.get(scope, id).await, Err(Error::NotFound(_))));
    assert!(matches!(applications.update(scope, id, change).await, Err(Error::NotFound(_))));
    assert!(matches!(applications.remove(scope, id, Removal::Forced).await, Err(Error::NotFound(_))));
    assert!(matches!(applications.groups(scope, id).await, Err(Error::NotFound(_))));
    let given = applications.add_group(scope, id, request, None, |_| json!(null)).await;
    assert!(matches!(given, Err(Error::NotFound(_))));
    assert!(matches!(stage.launch(&rival, id).await, Err(Error::NotFound(_))));
    // Their own application, and a group of ours.
    let body = json!({"catalogTemplateId": stage.template, "groupIds": [crew]});
    let request = InstallApplicationRequest::from_json(body).unwrap();
    let made = applications.install(scope, request, None, |_| json!(null)).await;
    assert!(matches!(made, Err(Error::NotFound(_))), "{made:?}");
}

#[tokio::test]
async fn a_session_remembers_what_it_runs_when_catalog_and_application_are_gone() {
    let mut stage = Stage::new().await;
    let id = stage.installed(json!({"whom": "tide", "mood": "sad"})).await;
    let session = queued(stage.launch(&stage.org.admin, id).await.unwrap());
    assert_eq!((session.template.as_str(), session.application_id), (GREETER, Some(id)));
    let claimed = stage.agent.claim().await;
    let first = claimed[0].command.payload.clone();
    assert_eq!(first["command"], json!(["greet", "tide"]));
    assert_eq!(first["templateManifest"]["metadata"]["name"], GREETER);
    let mut said = Vec::new();
    for outbound in &claimed {
        said.extend(stage.agent.behaviour.answer(&outbound.command));
    }
    stage.agent.say(said).await;
    let scope = stage.org.admin.org().unwrap();
    stage.services().sessions.hibernate(scope, session.id).await.unwrap();
    stage.agent.work().await;
    assert_eq!(state(&stage.test, &stage.org.admin, session.id).await, SessionState::Hibernated);
    // One that sleeps keeps nothing from being removed.
    stage.services().applications.remove(scope, id, Removal::Refused).await.unwrap();
    stage.test.execute("UPDATE catalog_templates SET manifest = '{}', withdrawn_at = now()").await;
    stage.services().sessions.wake(scope, session.id).await.unwrap();
    let second = stage.agent.claim().await[0].command.payload.clone();
    for part in ["command", "templateManifest", "protocol", "template", "environment", "tags"] {
        assert_eq!(second[part], first[part], "{part}");
    }
    assert_eq!(second["environment"]["TIDEGATE_OPTION_MOOD"], "sad");
    assert_eq!(second["environment"]["MOOD"], "sad");
}

#[tokio::test]
async fn a_forced_removal_ends_what_runs_and_what_sleeps() {
    let mut stage = Stage::new().await;
    let id = stage.installed(json!({})).await;
    let scope = stage.org.admin.org().unwrap();
    let running = queued(stage.launch(&stage.org.admin, id).await.unwrap()).id;
    let asleep = queued(stage.launch(&stage.org.admin, id).await.unwrap()).id;
    stage.agent.work().await;
    stage.services().sessions.hibernate(scope, asleep).await.unwrap();
    stage.agent.work().await;
    let refused = stage.services().applications.remove(scope, id, Removal::Refused).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "E_APPLICATION_IN_USE", .. })), "{refused:?}");
    stage.services().applications.remove(scope, id, Removal::Forced).await.unwrap();
    stage.agent.work().await;
    for session in [running, asleep] {
        assert_eq!(state(&stage.test, &stage.org.admin, session).await, SessionState::Terminated);
    }
}

#[tokio::test]
async fn a_removal_and_launches_that_race_leave_no_session_without_its_application() {
    let stage = Stage::new().await;
    for _ in 0..5 {
        let id = stage.installed(json!({})).await;
        let removing =
            stage.services().applications.remove(stage.org.admin.org().unwrap(), id, Removal::Refused);
        let launches = (0..3).map(|_| stage.launch(&stage.org.admin, id));
        let (removed, answers) = tokio::join!(removing, futures_util::future::join_all(launches));
        let started = answers.iter().filter(|answer| answer.is_ok()).count();
        match removed {
            Ok(()) => assert_eq!(started, 0, "a session was started of what is gone"),
            Err(Error::Conflict { code, .. }) => assert!(code == "E_APPLICATION_IN_USE" && started > 0),
            Err(other) => panic!("{other:?}"),
        }
        let over = "UPDATE sessions SET state = 'terminated', ended_at = now()";
        stage.test.execute(over).await;
    }
}

#[tokio::test]
async fn what_was_removed_goes_with_the_last_session_that_came_from_it() {
    let stage = Stage::new().await;
    let id = stage.installed(json!({"whom": "secret"})).await;
    queued(stage.launch(&stage.org.admin, id).await.unwrap());
    let scope = stage.org.admin.org().unwrap();
    stage.services().applications.remove(scope, id, Removal::Forced).await.unwrap();
    let forgotten: bool =
        stage.test.look("SELECT configuration = '{}' AND icon IS NULL FROM installed_applications").await;
    assert!(forgotten, "what it was set to is forgotten at once");
    stage
        .test
        .execute("UPDATE installed_applications SET removed_at = removed_at - interval '400 days'")
        .await;
    stage.services().operators.tidy().await.unwrap();
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM installed_applications").await, 1);
    stage
        .test
        .execute("DELETE FROM commands; DELETE FROM session_events; DELETE FROM session_specs; DELETE FROM sessions")
        .await;
    stage.services().operators.tidy().await.unwrap();
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM installed_applications").await, 0);
}

#[tokio::test]
async fn whoever_stalled_in_an_earlier_asking_does_not_end_a_later_one() {
    let stage = Stage::new().await;
    let id = stage.ask(json!({"whom": "first"})).await.unwrap().id;
    let db = stage.test.db();
    let claim = async || {
        let now = stage.test.manual_clock().now();
        let due = db.due_installations(now, 10).await.unwrap();
        let (scope, _) = due.into_iter().find(|(_, due)| *due == id).unwrap();
        let lease = now + TimeDelta::seconds(60);
        let claimed =
            db.in_org_as_system(&scope, async |tx| application::claim(tx, id, now, lease).await).await;
        (scope, claimed.unwrap().unwrap())
    };
    // The first one stalls; another one goes on, and says that it came to nothing.
    let (scope, stalled) = claim().await;
    stage.test.manual_clock().advance(TimeDelta::minutes(2));
    stage.test.execute("UPDATE catalog_templates SET withdrawn_at = now()").await;
    assert_eq!(stage.services().applications.install_due().await.unwrap(), 1);
    stage.test.execute("UPDATE catalog_templates SET withdrawn_at = NULL").await;
    // Asked for once more, with something else, and somebody is at it.
    let change = UpdateApplicationRequest {
        configuration: Some(object(json!({"whom": "second"}))),
        ..UpdateApplicationRequest::default()
    };
    stage.services().applications.update(stage.org.admin.org().unwrap(), id, change).await.unwrap();
    let (_, current) = claim().await;
    assert_eq!(current.configuration["whom"], "second");
    let brought = |claimed: &Claimed| Brought {
        manifest: template(GREETER, &greeter()).manifest,
        configuration: claimed.configuration.clone(),
        icon: None,
    };
    let now = stage.test.manual_clock().now();
    let late = db
        .in_org_as_system(&scope, async |tx| application::finish(tx, &stalled, brought(&stalled), now).await);
    assert!(!late.await.unwrap(), "it ended what it did not begin");
    let late = db.in_org_as_system(&scope, async |tx| application::fail(tx, &stalled, "too late", now).await);
    assert!(!late.await.unwrap(), "it ended what it did not begin");
    let ended = db
        .in_org_as_system(&scope, async |tx| application::finish(tx, &current, brought(&current), now).await);
    assert!(ended.await.unwrap());
    assert_eq!(stage.get(id).await.configuration.unwrap()["whom"], "second");
}

#[tokio::test]
async fn an_application_whose_options_do_not_fit_any_more_is_given_ones_that_do() {
    let stage = Stage::new().await;
    let id = stage.ask(json!({"whom": "tide"})).await.unwrap().id;
    let repository = "SELECT id FROM repositories WHERE name = 'tests'";
    let repository = RepositoryId::from_number(stage.test.look(repository).await);
    let mut changed = greeter();
    changed["options"] = json!({"who": {"type": "string", "maxLength": 9}});
    changed["command"] = json!(["greet", "${who}"]);
    let mut next = template(GREETER, &changed);
    next.digest = vec![2];
    stage.test.sync(repository, &[next], &[]).await;
    stage.services().applications.install_due().await.unwrap();
    let failed = stage.get(id).await;
    assert_eq!(failed.install_status, InstallStatus::Failed);
    assert!(failed.install_message.unwrap().contains("configuration.whom"));
    let change = |configuration: Value| UpdateApplicationRequest {
        configuration: Some(object(configuration)),
        ..UpdateApplicationRequest::default()
    };
    let (applications, scope) = (&stage.services().applications, stage.org.admin.org().unwrap());
    let refused = applications.update(scope, id, change(json!({"whom": "tide"}))).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "as the catalog has it now: {refused:?}");
    applications.update(scope, id, change(json!({"who": "moon"}))).await.unwrap();
    applications.install_due().await.unwrap();
    let seen = stage.get(id).await;
    assert_eq!((seen.install_status, seen.install_message), (InstallStatus::Installed, None));
    assert_eq!(seen.configuration.unwrap()["who"], "moon");
}

#[tokio::test]
async fn options_that_were_held_against_what_it_was_are_not_set_on_what_it_became() {
    let stage = Stage::new().await;
    let id = stage.ask(json!({})).await.unwrap().id;
    let (applications, scope) = (&stage.services().applications, stage.org.admin.org().unwrap());
    let change = UpdateApplicationRequest {
        configuration: Some(object(json!({"whom": "tide"}))),
        ..UpdateApplicationRequest::default()
    };
    let update = applications.update(scope, id, change.clone());
    // Whoever has the organization's lock lets the change wait between its look and its write.
    let db = stage.test.db();
    let meanwhile = db.in_org_locked(scope, async |_, _| {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        eventually("the change waits", async || stage.test.look::<i64>(waiting).await > 0).await;
        let repository = RepositoryId::from_number(stage.test.look("SELECT id FROM repositories").await);
        let mut changed = greeter();
        changed["options"] = json!({"who": {"type": "string", "default": "moon"}});
        let mut next = template(GREETER, &changed);
        next.digest = vec![2];
        stage.test.sync(repository, &[next], &[]).await;
        // Nothing that does not fit any more was asked for.
        stage.test.execute("UPDATE installed_applications SET configuration = '{}'").await;
        assert_eq!(applications.install_due().await.unwrap(), 1);
        Ok::<_, tidegate_persistence::Error>(())
    });
    let (meanwhile, updated) = tokio::join!(meanwhile, update);
    meanwhile.unwrap();
    assert!(matches!(updated, Err(Error::Conflict { code: "E_APPLICATION_CHANGED", .. })), "{updated:?}");
    assert_eq!(stage.get(id).await.configuration.unwrap(), object(json!({"who": "moon"})));
    let again = applications.update(scope, id, change).await;
    assert!(matches!(again, Err(Error::Invalid(_))), "as it is now: {again:?}");
}

#[tokio::test]
async fn the_log_and_whoever_is_told_of_it_learn_which_options_are_set_and_not_to_what() {
    let stage = Stage::new().await;
    let id = stage.installed(json!({"whom": "license-4711"})).await;
    let change = UpdateApplicationRequest {
        configuration: Some(object(json!({"whom": "license-4712"}))),
        ..UpdateApplicationRequest::default()
    };
    let (applications, scope) = (&stage.services().applications, stage.org.admin.org().unwrap());
    applications.update(scope, id, change).await.unwrap();
    applications.remove(scope, id, Removal::Refused).await.unwrap();
    let said = "SELECT count(*) FROM audit_log WHERE concat(before, after, detail) LIKE '%license-47%'";
    assert_eq!(stage.test.look::<i64>(said).await, 0);
    let options = "SELECT after->'options' = '[\"mood\", \"whom\"]' AND detail->'changedOptions' = '[\"whom\"]' \
                   FROM audit_log WHERE action = 'application.update'";
    assert!(stage.test.look::<bool>(options).await);
}

#[tokio::test]
async fn a_repeat_gets_its_answer_whatever_became_of_the_template_meanwhile() {
    let stage = Stage::new().await;
    let scope = stage.org.admin.org().unwrap();
    let key = |route| Idempotency::new(scope.credential(), route, "again", b"the same").unwrap();
    let (installing, starting) = (key("POST applications"), key("POST sessions"));
    let body = json!({"catalogTemplateId": stage.template});
    let install = async || {
        let request = InstallApplicationRequest::from_json(body.clone()).unwrap();
        stage.services().applications.install(scope, request, Some(&installing), |made| json!(made.id)).await
    };
    let start = async || {
        let new = NewSession::of(GREETER);
        stage.services().sessions.create(scope, new, Some(&starting), |made, _| json!(made.id)).await
    };
    let Made::New(made) = install().await.unwrap() else { panic!("the first") };
    let session = queued(start().await.unwrap());
    stage.test.execute("UPDATE catalog_templates SET withdrawn_at = now()").await;
    let again = install().await;
    assert!(matches!(&again, Ok(Made::Replay(kept)) if kept.body == json!(made.id)), "{again:?}");
    let again = start().await;
    assert!(matches!(&again, Ok(Changed::Replay(kept)) if kept.body == json!(session.id)), "{again:?}");
    let other = NewSession::of(GREETER);
    let other = stage.services().sessions.create(scope, other, None, |_, _| json!(null)).await;
    assert!(matches!(other, Err(Error::NotFound(_))), "{other:?}");
}

#[tokio::test]
async fn what_an_agent_is_told_at_once_has_bounds() {
    let stage = Stage::new().await;
    let mut swelling = greeter();
    swelling["command"] = json!(vec!["${whom}"; 500]);
    let repository = stage.test.repository("swelling").await;
    stage.test.sync(repository, &[template("swelling", &swelling)], &[]).await;
    let swelling = stage.test.template_id(repository, "swelling").await;
    let stage = Stage { template: swelling, ..stage };
    let refused = stage.ask(json!({"whom": "x".repeat(2_000)})).await;
    let Err(Error::Invalid(errors)) = refused else { panic!("{refused:?}") };
    assert_eq!(errors.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["configuration"]);
    // What is written longer than it is, counts as it is written.
    let refused = stage.ask(json!({"whom": "\u{1}".repeat(300)})).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let id = stage.installed(json!({"whom": "x".repeat(300)})).await;
    let new = NewSession {
        environment: [("LONG".to_owned(), "\u{1}".repeat(60_000))].into(),
        ..NewSession::of_application(id)
    };
    let scope = stage.org.admin.org().unwrap();
    let refused = stage.services().sessions.create(scope, new, None, |_, _| json!(null)).await;
    let Err(Error::Invalid(errors)) = refused else { panic!("{refused:?}") };
    assert_eq!(errors.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["environment"]);
    queued(stage.launch(&stage.org.admin, id).await.unwrap());
}

#[tokio::test]
async fn what_an_organization_installed_ends_with_it() {
    let stage = Stage::new().await;
    stage.installed(json!({"whom": "secret"})).await;
    stage.ask(json!({"whom": "secret"})).await.unwrap();
    let scope = stage.org.admin.org().unwrap();
    let owner = format!(
        "UPDATE organizations SET owner_user_id = '{}' WHERE id = '{}'",
        scope.user_id(),
        scope.org_id()
    );
    stage.test.execute(&owner).await;
    stage.services().organizations.delete(scope).await.unwrap();
    assert_eq!(stage.services().applications.install_due().await.unwrap(), 0, "nobody waits for it");
    let kept =
        "SELECT count(*) FROM installed_applications WHERE removed_at IS NULL OR configuration <> '{}'";
    assert_eq!(stage.test.look::<i64>(kept).await, 0);
}

#[tokio::test]
async fn a_key_that_starts_sessions_does_not_learn_what_applications_are_set_to() {
    let stage = Stage::new().await;
    let id = stage.installed(json!({"whom": "secret"})).await;
    let crew = stage.group("crew", None).await;
    stage.give(id, crew, AccessLevel::Launch).await;
    let paging = Paging { limit: 100, cursor: None };
    for (scopes, learns) in [
        (&[Scope::SessionsRead, Scope::SessionsWrite][..], false),
        (&[Scope::SessionsRead, Scope::OrgRead], true),
        (&[Scope::SessionsRead, Scope::OrgWrite], true),
    ] {
        let (_, key) = mint(&stage.services().keys, &stage.org.admin, &wanted(scopes)).await.unwrap();
        let key = stage.services().logins.authenticate(&key, None).await.unwrap();
        let (applications, scope) = (&stage.services().applications, key.org().unwrap());
        let one = applications.get(scope, id).await.unwrap();
        let list = applications.list(scope, ApplicationsPage::Organization, &paging).await.unwrap().items;
        assert_eq!(one.manifest.is_some(), learns, "{scopes:?}");
        for seen in [&one, &list[0]] {
            assert_eq!((seen.configuration.is_some(), seen.groups.is_some()), (learns, learns), "{scopes:?}");
        }
        if !learns {
            queued(stage.launch(&key, id).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_launch_tells_nobody_of_what_they_are_not_shown() {
    let stage = Stage::new().await;
    let id = stage.installed(json!({})).await;
    let crew = stage.group("crew", None).await;
    stage.join(crew).await;
    stage.give(id, crew, AccessLevel::View).await;
    let off = "UPDATE installed_applications SET enabled = false";
    stage.test.execute(off).await;
    assert!(matches!(stage.launch(&stage.user, id).await, Err(Error::NotFound(_))), "it is hidden");
    stage.give(id, crew, AccessLevel::Launch).await;
    let refused = stage.launch(&stage.user, id).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "E_APPLICATION_DISABLED", .. })), "{refused:?}");
    let failed =
        "UPDATE installed_applications SET install_status = 'failed', install_message = 'inside knowledge'";
    stage.test.execute(failed).await;
    for (who, learns) in [(&stage.user, false), (&stage.org.admin, true)] {
        let refused = stage.launch(who, id).await;
        let Err(Error::Conflict { code: "E_APPLICATION_NOT_INSTALLED", message }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(message.contains("inside knowledge"), learns, "{message}");
    }
}
