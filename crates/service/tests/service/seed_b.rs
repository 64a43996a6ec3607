//! `docs/seed-b.md` names a Rust counterpart for everything of seed B, and each of them is there: the compiler has looked.

use std::{collections::BTreeMap, fs, path::Path};

/// Everything in seed B, in its index and below it, each with a path that the compiler follows.
macro_rules! counterparts {
    ($($go:literal => $kind:ident $($part:ident)::+;)+) => {
        const SEED: &[(&str, &[&str])] = &[$(($go, &[$(stringify!($part)),+])),+];

        /// Never called: it compiles, and that is all.
        #[expect(dead_code, reason = "a path to nothing does not compile")]
        fn followed() {
            $(follow!($kind $($part)::+);)+
        }
    };
}

macro_rules! follow {
    (function $path:path) => {
        let _ = $path;
    };
    (variant $path:path) => {
        let _ = |found: &_| matches!(found, $path { .. });
    };
    (kind $path:path) => {
        let _ = std::any::type_name::<$path>;
    };
    // What takes a closure has no value of its own: it is called below.
    (called $path:path) => {};
}

counterparts! {
    "Migrate" => function tidegate_persistence::migrate::run;
    "Pool" => kind tidegate_persistence::Db;
    "ErrNotFound" => variant tidegate_service::Error::NotFound;
    "Account" => kind tidegate_model::Organization;
    "InsertAccount" => function tidegate_service::Organizations::create;
    "GetAccount" => function tidegate_service::Organizations::get;
    "GetAccountByName" => function tidegate_persistence::organization::find_by_name;
    "ListAccounts" => function tidegate_service::AllOrganizations::list;
    "ListAccountsForUser" => function tidegate_service::Organizations::list;
    "FirstOwnedAccountFor" => function tidegate_service::Users::first_owned;
    "IsMemberOrOwner" => function tidegate_service::Users::is_member_or_owner;
    "Member" => kind tidegate_model::Member;
    "AddMember" => function tidegate_service::Members::add;
    "RemoveMember" => function tidegate_service::Members::remove;
    "ErrCannotRemoveOwner" => variant tidegate_service::Error::Conflict;
    "ListMembers" => function tidegate_service::Users::list_non_owners;
    "User" => kind tidegate_model::User;
    "UserMode" => kind tidegate_model::UserMode;
    "ErrInvalidUserMode" => kind tidegate_model::InvalidUserMode;
    "InsertUser" => function tidegate_persistence::user::insert;
    "GetUser" => function tidegate_service::Users::get;
    "GetUserByUsername" => function tidegate_service::Users::get_by_username;
    "UpsertUserByGitHubID" => function tidegate_service::Identities::upsert_user_by_github_id;
    "UsernamesByIDs" => function tidegate_service::Users::usernames_by_ids;
    "Invite" => kind tidegate_model::Invite;
    "InviteStatus" => kind tidegate_model::InviteStatus;
    "InviteWithAccount" => kind tidegate_model::Invite;
    "CreateInvite" => called tidegate_service::Invites::create;
    "ErrAlreadyMember" => variant tidegate_service::Error::Conflict;
    "ErrDuplicatePendingInvite" => variant tidegate_service::Error::Conflict;
    "AcceptInvite" => function tidegate_service::Invites::accept;
    "DeclineInvite" => function tidegate_service::Invites::decline;
    "RevokeInvite" => function tidegate_service::Invites::revoke;
    "ErrInviteNotPending" => variant tidegate_service::Error::Conflict;
    "ListPendingInvitesForUsername" => function tidegate_service::Invites::mine;
    "APIKey" => kind tidegate_model::ApiKey;
    "GeneratePlaintextKey" => function tidegate_service::generate_plaintext_key;
    "HashAPIKey" => function tidegate_service::hash_api_key;
    "KeyPrefix" => function tidegate_service::key_prefix;
    "VerifyAPIKey" => function tidegate_service::verify_api_key;
    "InsertAPIKey" => called tidegate_service::Keys::insert_api_key;
    "ListAPIKeysForOrg" => function tidegate_service::Keys::list_api_keys_for_org;
    "LookupAPIKey" => function tidegate_service::Keys::lookup_api_key;
    "RevokeAPIKey" => function tidegate_service::Keys::revoke_api_key;
    "DeviceCode" => kind tidegate_model::DeviceCode;
    "CreateDeviceCode" => function tidegate_service::Devices::create_device_code;
    "LookupDeviceCode" => function tidegate_service::Devices::lookup_device_code;
    "ApproveDeviceCode" => function tidegate_service::Devices::approve_device_code;
    "ConsumeDeviceCode" => function tidegate_service::Devices::consume_device_code;
    "ErrDeviceCodePending" => variant tidegate_service::DeviceError::Pending;
    "ErrDeviceCodeExpired" => variant tidegate_service::DeviceError::Expired;
    "OAuthToken" => kind tidegate_model::BearerToken;
    "IssueBearerToken" => function tidegate_persistence::bearer_token::insert;
    "LookupBearerToken" => function tidegate_service::BearerTokens::lookup_bearer_token;
    "Source" => kind tidegate_model::Source;
    "SourceKind" => kind tidegate_model::SourceKind;
    "IsAutoPipe" => function tidegate_model::Source::is_auto_pipe;
    "Pipes" => function tidegate_model::Source::pipes;
    "InsertSource" => function tidegate_persistence::source::insert;
    "GetSourceByHandle" => function tidegate_persistence::source::find_by_handle;
    "ListSourcesForOrg" => function tidegate_persistence::source::list;
    "DeleteSource" => function tidegate_persistence::source::delete;
    "ErrHandleTaken" => variant tidegate_persistence::Constraint::Handle;
    "UpdateLastBroadcast" => function tidegate_persistence::source::update_last_broadcast;
    "Pipe" => kind tidegate_model::Pipe;
    "InsertPipe" => function tidegate_persistence::pipe::insert;
    "GetPipeByName" => function tidegate_persistence::pipe::find_by_name;
    "DeletePipe" => function tidegate_persistence::pipe::delete;
    "ErrPipeNameTaken" => variant tidegate_persistence::Constraint::PipeName;
    "SetNATSAccount" => function tidegate_persistence::nats_account::set;
}

/// Follows the two that take closures.
#[expect(dead_code, reason = "a path to nothing does not compile")]
fn called(services: &tidegate_service::Services, scope: &tidegate_service::OrgScope) {
    let (invite, key): (tidegate_model::CreateInviteRequest, tidegate_model::NewApiKey) =
        (unmade(), unmade());
    drop(tidegate_service::Invites::create(&services.invites, scope, invite, None, |_| ().into()));
    drop(tidegate_service::Keys::insert_api_key(&services.keys, scope, &key, None, None, |_| ().into()));
}

fn unmade<T>() -> T {
    unreachable!("only the types matter")
}

/// Go name → Rust path, and the rest of the line, as the page says.
fn page() -> BTreeMap<String, (String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/seed-b.md");
    let text = fs::read_to_string(path).unwrap();
    let code = |cell: &str| cell.trim().strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
    let row = |line: &str| {
        let mut cells = line.strip_prefix('|')?.split('|');
        let (go, rust) = (code(cells.next()?)?, code(cells.next()?)?);
        Some((go, (rust, cells.next().unwrap_or_default().to_owned())))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn everything_of_seed_b_has_a_counterpart_that_is_there() {
    let page = page();
    for (name, parts) in SEED {
        let (path, _) = page.get(*name).unwrap_or_else(|| panic!("docs/seed-b.md says nothing of {name}"));
        assert_eq!(*path, parts.join("::"), "{name}: the page and what the compiler followed");
    }
    for name in page.keys() {
        let known = SEED.iter().any(|(known, _)| known == name);
        assert!(known, "docs/seed-b.md names {name}, which is not in seed B's list");
    }
}

#[test]
fn the_code_of_each_conflict_is_one_that_the_service_says() {
    let sources: Vec<String> = ["members.rs", "invites.rs", "error.rs"]
        .iter()
        .map(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let conflicts: Vec<_> =
        page().into_iter().filter(|(_, (path, _))| path == "tidegate_service::Error::Conflict").collect();
    assert_eq!(conflicts.len(), 4, "{conflicts:?}");
    for (name, (_, kept)) in conflicts {
        let code = kept.split('`').find(|part| part.starts_with("E_"));
        let code = code.unwrap_or_else(|| panic!("{name}: the page names no code"));
        let said = format!("\"{code}\"");
        assert!(sources.iter().any(|text| text.contains(&said)), "{name}: nobody says {code}");
    }
}
