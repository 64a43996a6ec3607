//! `docs/seed-b.md` names a Rust counterpart for everything of seed B, and each of them is there.

use std::{collections::BTreeMap, fs, path::Path};

/// Everything in seed B, in its index and below it, but what stands in [`LATER`].
const SEED: &[&str] = &[
    "AcceptInvite",
    "AddMember",
    "ApproveDeviceCode",
    "ConsumeDeviceCode",
    "CreateDeviceCode",
    "CreateInvite",
    "DeclineInvite",
    "FirstOwnedAccountFor",
    "GeneratePlaintextKey",
    "GetAccount",
    "GetAccountByName",
    "GetUser",
    "GetUserByUsername",
    "HashAPIKey",
    "InsertAPIKey",
    "InsertAccount",
    "InsertUser",
    "IsMemberOrOwner",
    "IssueBearerToken",
    "KeyPrefix",
    "ListAPIKeysForOrg",
    "ListAccounts",
    "ListAccountsForUser",
    "ListMembers",
    "ListPendingInvitesForUsername",
    "LookupAPIKey",
    "LookupBearerToken",
    "LookupDeviceCode",
    "Migrate",
    "RemoveMember",
    "RevokeAPIKey",
    "RevokeInvite",
    "UpsertUserByGitHubID",
    "UsernamesByIDs",
    "VerifyAPIKey",
    "ErrAlreadyMember",
    "ErrCannotRemoveOwner",
    "ErrDeviceCodeExpired",
    "ErrDeviceCodePending",
    "ErrDuplicatePendingInvite",
    "ErrInvalidUserMode",
    "ErrInviteNotPending",
    "ErrNotFound",
    "APIKey",
    "Account",
    "DeviceCode",
    "Invite",
    "InviteStatus",
    "InviteWithAccount",
    "Member",
    "OAuthToken",
    "Pool",
    "User",
    "UserMode",
];

/// What comes with sources, pipes and NATS.
const LATER: &[&str] = &[
    "DeletePipe",
    "DeleteSource",
    "ErrHandleTaken",
    "ErrPipeNameTaken",
    "GetPipeByName",
    "GetSourceByHandle",
    "InsertPipe",
    "InsertSource",
    "IsAutoPipe",
    "ListSourcesForOrg",
    "Pipe",
    "Pipes",
    "SetNATSAccount",
    "Source",
    "SourceKind",
    "UpdateLastBroadcast",
];

/// Go name → Rust path, as the page says.
fn page() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/seed-b.md");
    let text = fs::read_to_string(path).unwrap();
    let code = |cell: &str| cell.trim().strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
    let row = |line: &str| {
        let mut cells = line.strip_prefix('|')?.split('|');
        Some((code(cells.next()?)?, code(cells.next()?)?))
    };
    text.lines().filter_map(row).collect()
}

/// Every file of a folder, read.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    all
}

/// Whether a path like `tidegate_service::Invites::accept` leads to something public.
fn leads_somewhere(path: &str) -> bool {
    let segments: Vec<&str> = path.split("::").collect();
    let [krate, within @ .., item] = &segments[..] else { return false };
    let Some(krate) = krate.strip_prefix("tidegate_") else { return false };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(krate.replace('_', "-")).join("src");
    let defines = |text: &str| {
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
        let public = ["pub fn ", "pub async fn ", "pub const fn ", "pub struct ", "pub enum ", "pub type "];
        public.iter().any(|kind| text.split(&format!("{kind}{item}")).skip(1).any(ends))
    };
    sources(&folder).iter().any(|(file, text)| match within.last() {
        None => defines(text) || (text.contains("text_enum! {") && text.contains(&format!("    {item}, \""))),
        Some(owner) if owner.starts_with(char::is_uppercase) => {
            let of_owner = text.contains(&format!("impl {owner} {{")) && defines(text);
            let variant = [" {", ",", "("].iter().any(|end| text.contains(&format!("    {item}{end}")));
            of_owner || (text.contains(&format!("pub enum {owner} {{")) && variant)
        }
        Some(module) => {
            let module = module.to_string();
            let there = file.ends_with(&format!("/{module}.rs")) || file.contains(&format!("/{module}/"));
            there && defines(text)
        }
    })
}

#[test]
fn everything_of_seed_b_has_a_counterpart_that_is_there() {
    let page = page();
    for name in SEED {
        let path = page.get(*name).unwrap_or_else(|| panic!("docs/seed-b.md says nothing of {name}"));
        assert!(leads_somewhere(path), "{name} → {path}, which is not there");
    }
    for name in page.keys() {
        assert!(SEED.contains(&name.as_str()), "docs/seed-b.md names {name}, which is not in seed B's list");
        assert!(!LATER.contains(&name.as_str()), "{name} came: take it off the list of what comes later");
    }
}

#[test]
fn a_path_to_nothing_is_noticed() {
    assert!(leads_somewhere("tidegate_service::Invites::accept"));
    assert!(leads_somewhere("tidegate_model::InviteStatus"));
    assert!(leads_somewhere("tidegate_persistence::migrate::run"));
    for nothing in ["tidegate_service::Invites::accep", "tidegate_service::Nobody", "tidegate_none::X", "x"] {
        assert!(!std::panic::catch_unwind(|| leads_somewhere(nothing)).unwrap_or(false), "{nothing}");
    }
}
