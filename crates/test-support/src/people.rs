//! Organizations, their people, and what these ask for.

use tidegate_model::{LoginRequest, NewSession, OrgId, OrgRole, Secret, Session, SystemRole, UserId};
use tidegate_persistence::Operator;
use tidegate_service::{Caller, Changed, NewLocalUser};

use crate::{SimAgent, TestDb};

/// An organization with somebody in it.
#[derive(Debug)]
pub struct TestOrg {
    /// The id.
    pub id: OrgId,
    /// The name.
    pub name: String,
    /// A member with the role `org_admin`, logged in.
    pub admin: Caller,
}

/// A user who can log in.
#[derive(Debug, Clone)]
pub struct TestUser {
    /// The id.
    pub id: UserId,
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret<String>,
}

impl TestUser {
    /// What the user says to log in.
    pub fn login(&self) -> LoginRequest {
        LoginRequest { username: self.username.clone(), password: self.password.clone() }
    }
}

/// A session of this template; `command` gets `true` to run.
pub fn new_session(template: &str) -> NewSession {
    let command = (template == "command").then(|| vec!["true".to_owned()]);
    NewSession { command, ..NewSession::of(template) }
}

impl TestDb {
    /// Makes an organization with a member of role `org_admin`, who is logged in.
    pub async fn org_with_admin(&self, name: &str) -> TestOrg {
        let id = self.services().operators.create_organization(&Operator::console(), name).await.unwrap();
        let admin = self.user_in(name, OrgRole::Admin).await;
        TestOrg { id, name: name.to_owned(), admin: self.caller(&admin).await }
    }

    /// Makes a user in an organization.
    pub async fn user_in(&self, org: &str, role: OrgRole) -> TestUser {
        self.user_with(org, role, SystemRole::User).await
    }

    /// Makes a user with a role on the platform too.
    pub async fn user_with(&self, org: &str, role: OrgRole, system: SystemRole) -> TestUser {
        let username = format!("u{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let password = Secret::new(format!("tidewater {username}"));
        let new = NewLocalUser {
            username: username.clone(),
            email: None,
            full_name: "Test User".into(),
            password: password.clone(),
            role: system,
        };
        let operator = Operator::console();
        let id = self.services().operators.create_user(&operator, new, org, role).await.unwrap();
        TestUser { id, username, password }
    }

    /// Logs a user in.
    pub async fn caller(&self, user: &TestUser) -> Caller {
        let logins = &self.services().logins;
        let token = logins.login(user.login(), None).await.unwrap().token;
        logins.authenticate(&token, None).await.unwrap()
    }

    /// Asks for a session of template `shell`; it is pending.
    pub async fn pending_session(&self, caller: &Caller) -> Session {
        let sessions = &self.services().sessions;
        let made = sessions.create(caller.org().unwrap(), new_session("shell"), None, |_, _| ().into()).await;
        match made.unwrap() {
            Changed::Queued(session, _) => session,
            other => panic!("{other:?} is no new session"),
        }
    }

    /// Asks for a session and lets `agent`, which must be the one it is placed on, start it.
    pub async fn running_session(&self, caller: &Caller, agent: &mut SimAgent) -> Session {
        let id = self.pending_session(caller).await.id;
        agent.work().await;
        let session = self.services().sessions.get(caller.org().unwrap(), id).await.unwrap();
        assert_eq!(session.state.as_str(), "running", "{:?}", session.state_reason);
        session
    }
}
