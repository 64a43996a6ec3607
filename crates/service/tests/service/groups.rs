//! Groups: a hierarchy without circles whoever moves what at the same time, and rights that reach down and never up.

use futures_util::future::join_all;
use tidegate_model::{
    AddGroupMemberRequest, CreateGroupRequest, Group, GroupId, GroupRole, GroupType, OrgRole, PatchField,
    UpdateGroupRequest, UserId,
};
use tidegate_persistence::OrgScope;
use tidegate_service::{Caller, ChildrenOf, Error, GroupAdded, MadeGroup, Paging, Result};
use tidegate_test_support::{TestDb, TestOrg};

struct Stage {
    test: TestDb,
    org: TestOrg,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        Self { test, org }
    }

    fn admin(&self) -> &OrgScope {
        self.org.admin.org().unwrap()
    }

    async fn member(&self) -> Caller {
        self.test.caller(&self.test.user_in("acme", OrgRole::User).await).await
    }

    async fn make(&self, scope: &OrgScope, name: &str, parent: Option<GroupId>) -> Result<Group> {
        let request = CreateGroupRequest {
            name: name.into(),
            display_name: name.into(),
            description: String::new(),
            kind: GroupType::Team,
            parent_id: parent,
        };
        match self.test.services().groups.create(scope, request, None, |_| ().into()).await? {
            MadeGroup::New(group) => Ok(*group),
            MadeGroup::Replay(_) => panic!("nothing to repeat"),
        }
    }

    async fn group(&self, name: &str, parent: Option<GroupId>) -> GroupId {
        self.make(self.admin(), name, parent).await.unwrap().id
    }

    async fn add(
        &self,
        scope: &OrgScope,
        group: GroupId,
        user: UserId,
        role: GroupRole,
    ) -> Result<GroupAdded> {
        self.test.services().groups.add(scope, group, AddGroupMemberRequest { user_id: user, role }).await
    }

    async fn hang(&self, scope: &OrgScope, group: GroupId, parent: Option<GroupId>) -> Result<Group> {
        let parent_id = parent.map_or(PatchField::Clear, PatchField::Set);
        let change = UpdateGroupRequest { parent_id, ..Default::default() };
        self.test.services().groups.update(scope, group, change).await
    }

    async fn delete(&self, scope: &OrgScope, group: GroupId, children: ChildrenOf) -> Result<()> {
        self.test.services().groups.delete(scope, group, children).await
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T>) -> &'static str {
    match outcome {
        Err(Error::Conflict { code, .. }) => code,
        Err(Error::Forbidden(_)) => "forbidden",
        Err(Error::NotFound(_)) => "not found",
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_group_never_stands_above_itself_nor_too_deep() {
    let stage = Stage::new().await;
    let mut chain = vec![stage.group("level-1", None).await];
    for level in 2..=8 {
        chain.push(stage.group(&format!("level-{level}"), chain.last().copied()).await);
    }
    assert_eq!(code(stage.make(stage.admin(), "level-9", chain.last().copied()).await), "E_GROUP_DEPTH");
    assert_eq!(code(stage.hang(stage.admin(), chain[0], Some(chain[7])).await), "E_GROUP_CYCLE");
    assert_eq!(code(stage.hang(stage.admin(), chain[0], Some(chain[0])).await), "E_GROUP_CYCLE");
    let other = stage.group("other", None).await;
    assert_eq!(
        code(stage.hang(stage.admin(), chain[0], Some(other)).await),
        "E_GROUP_DEPTH",
        "the whole tree moves"
    );
    stage.hang(stage.admin(), chain[4], Some(other)).await.unwrap();
    assert_eq!(code(stage.make(stage.admin(), "level-1", None).await), "E_GROUP_TAKEN");
    assert_eq!(code(stage.hang(stage.admin(), other, Some(GroupId::new())).await), "not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_moved_at_the_same_time_close_no_circle() {
    let stage = Stage::new().await;
    for round in 0..8 {
        let mut ring = Vec::new();
        for place in 0..4 {
            ring.push(stage.group(&format!("round-{round}-{place}"), None).await);
        }
        let moves = (0..4).map(|place| {
            let (groups, scope) = (stage.test.services().groups.clone(), stage.admin().clone());
            let (group, parent) = (ring[place], ring[(place + 1) % 4]);
            let change = UpdateGroupRequest { parent_id: PatchField::Set(parent), ..Default::default() };
            tokio::spawn(async move { groups.update(&scope, group, change).await })
        });
        let outcomes: Vec<_> = join_all(moves).await.into_iter().map(std::result::Result::unwrap).collect();
        let refused: Vec<_> = outcomes.into_iter().filter(Result::is_err).collect();
        assert_eq!(refused.len(), 1, "{refused:?}");
        for outcome in refused {
            assert_eq!(code(outcome), "E_GROUP_CYCLE");
        }
    }
}

#[tokio::test]
async fn children_are_never_deleted_with_their_group() {
    let stage = Stage::new().await;
    let top = stage.group("top", None).await;
    let middle = stage.group("middle", Some(top)).await;
    let low = stage.group("low", Some(middle)).await;
    let refused = stage.delete(stage.admin(), middle, ChildrenOf::Keep).await;
    assert!(
        matches!(&refused, Err(Error::Conflict { code: "E_GROUP_HAS_CHILDREN", message }) if message.contains("low")),
        "{refused:?}"
    );
    stage.delete(stage.admin(), middle, ChildrenOf::Lift).await.unwrap();
    let groups = &stage.test.services().groups;
    assert_eq!(groups.get(stage.admin(), low).await.unwrap().parent_id, Some(top));
    assert_eq!(code(groups.get(stage.admin(), middle).await), "not found");
    stage.delete(stage.admin(), low, ChildrenOf::Keep).await.unwrap();
    assert_eq!(
        stage.test.look::<i64>("SELECT count(*) FROM audit_log WHERE action = 'group.delete'").await,
        2
    );
}

#[tokio::test]
async fn rights_reach_down_the_hierarchy_and_never_above_the_own_role() {
    let stage = Stage::new().await;
    let (lead, plain, third) = (stage.member().await, stage.member().await, stage.member().await);
    let (top, id) = (stage.group("top", None).await, |caller: &Caller| caller.user().user_id());
    let below = stage.group("below", Some(top)).await;
    let elsewhere = stage.group("elsewhere", None).await;
    stage.add(stage.admin(), top, id(&lead), GroupRole::Admin).await.unwrap();
    let as_lead = lead.org().unwrap();
    stage.add(as_lead, below, id(&plain), GroupRole::Admin).await.unwrap();
    for (group, role) in [(top, GroupRole::Owner), (below, GroupRole::Owner), (elsewhere, GroupRole::Member)]
    {
        assert_eq!(code(stage.add(as_lead, group, id(&third), role).await), "forbidden");
    }
    stage.make(as_lead, "made-by-lead", Some(below)).await.unwrap();
    assert_eq!(code(stage.make(as_lead, "at-the-top", None).await), "forbidden");
    assert_eq!(code(stage.hang(as_lead, below, None).await), "forbidden", "out from under the quota above");
    assert_eq!(code(stage.hang(as_lead, below, Some(elsewhere)).await), "forbidden");
    assert_eq!(code(stage.delete(as_lead, below, ChildrenOf::Lift).await), "forbidden", "an owner's to do");
    let as_plain = plain.org().unwrap();
    assert_eq!(code(stage.add(as_plain, top, id(&third), GroupRole::Member).await), "forbidden", "upwards");
    // An owner is above an admin, and stays.
    stage.add(stage.admin(), below, id(&third), GroupRole::Owner).await.unwrap();
    let groups = &stage.test.services().groups;
    assert_eq!(code(groups.remove(as_plain, below, id(&third)).await), "forbidden");
    assert_eq!(code(groups.set_role(as_plain, below, id(&third), GroupRole::Member).await), "forbidden");
    let repeat = stage.add(stage.admin(), below, id(&third), GroupRole::Member).await.unwrap();
    assert!(matches!(&repeat, GroupAdded::Changed(it) if it.role == GroupRole::Member), "{repeat:?}");
    groups.remove(as_plain, below, id(&third)).await.unwrap();
    assert_eq!(code(groups.remove(as_plain, below, id(&third)).await), "not found");
}

#[tokio::test]
async fn only_members_of_the_organization_are_in_its_groups_and_only_as_long_as_they_are() {
    let stage = Stage::new().await;
    let rival = stage.test.org_with_admin("rival").await;
    let (group, member) = (stage.group("team", None).await, stage.member().await);
    let (stranger, id) = (rival.admin.user().user_id(), member.user().user_id());
    assert_eq!(code(stage.add(stage.admin(), group, stranger, GroupRole::Member).await), "not found");
    stage.add(stage.admin(), group, id, GroupRole::Owner).await.unwrap();
    let groups = &stage.test.services().groups;
    assert_eq!(groups.get(stage.admin(), group).await.unwrap().member_count, 1);
    let theirs =
        groups.of_user(member.org().unwrap(), id, &Paging { limit: 10, cursor: None }).await.unwrap();
    assert_eq!(
        (theirs.total, theirs.items[0].group_name.as_str(), theirs.items[0].role),
        (1, "team", GroupRole::Owner)
    );
    stage.test.services().members.remove(stage.admin(), id).await.unwrap();
    assert_eq!(groups.get(stage.admin(), group).await.unwrap().member_count, 0);
    // Another organization's group is not found, whatever is asked of it.
    let scope = rival.admin.org().unwrap();
    assert_eq!(code(groups.get(scope, group).await), "not found");
    assert_eq!(code(stage.hang(scope, group, None).await), "not found");
    assert_eq!(code(stage.delete(scope, group, ChildrenOf::Lift).await), "not found");
    assert_eq!(code(stage.make(scope, "below", Some(group)).await), "not found");
    assert_eq!(code(stage.add(scope, group, stranger, GroupRole::Member).await), "not found");
    let quotas = &stage.test.services().quotas;
    assert_eq!(code(quotas.of_group(scope, group).await), "not found");
    assert_eq!(code(quotas.of_user(scope, id).await), "not found");
}
