//! The words about users, one's password and one's logins.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use tidegate_model::{LoginSessionId, OrgRole};

/// `users …`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// List the members of the chosen organization with everything that is known of them
    #[command(alias = "ls")]
    List {
        /// Only those with this in their username, name or e-mail address.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Show a user
    Show(UserArg),
    /// Make a local user whose home is the chosen organization
    Create(NewUserArgs),
    /// Change a user's name or e-mail address
    Update(UserChangeArgs),
    /// End a user's logins, keys, invites, sessions and open streams, and let them in no more
    Deactivate(UserArg),
    /// Let a user in again; nothing that ended comes back
    Activate(UserArg),
    /// Delete a user; the name stays taken
    #[command(alias = "rm")]
    Delete {
        #[command(flatten)]
        user: UserArg,
        /// The username again, because there is no way back.
        #[arg(long, value_name = "USERNAME")]
        confirm: String,
    },
}

/// A user.
#[derive(Debug, ClapArgs)]
pub(crate) struct UserArg {
    /// Username in any case, or id.
    pub(crate) user: String,
}

/// `users create`.
#[derive(Debug, ClapArgs)]
pub(crate) struct NewUserArgs {
    /// 3 to 32 of A-Z, a-z, 0-9, - and _.
    pub(crate) username: String,
    /// E-mail address.
    #[arg(long)]
    pub(crate) email: String,
    /// Display name; the username where absent.
    #[arg(long, value_name = "TEXT")]
    pub(crate) full_name: Option<String>,
    /// Role in the organization: `org_admin`, `maintainer`, `user` or `viewer`.
    #[arg(long, default_value = "user")]
    pub(crate) role: OrgRole,
    /// Read the password from the first line of this file, `-` is standard input; asked for where absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// `users update`.
#[derive(Debug, ClapArgs)]
pub(crate) struct UserChangeArgs {
    #[command(flatten)]
    pub(crate) user: UserArg,
    #[command(flatten)]
    pub(crate) changes: UserChanges,
    /// Read your own password, which another address of your own takes, from the first line of this file; asked for where absent.
    #[arg(long, value_name = "FILE", requires = "email")]
    pub(crate) current_file: Option<PathBuf>,
}

/// What changes of a user: at least one.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct UserChanges {
    /// E-mail address.
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// Display name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) full_name: Option<String>,
}

/// `passwd`.
#[derive(Debug, ClapArgs)]
pub(crate) struct PasswdArgs {
    /// Ask for a mail with a link that sets the password of this user, by username or e-mail address, without a login.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["current_file", "new_file"])]
    pub(crate) forgotten: Option<String>,
    /// Read the password in force from the first line of this file; asked for where absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) current_file: Option<PathBuf>,
    /// Read the new password from the first line of this file; asked for where absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_file: Option<PathBuf>,
}

/// `logins …`.
#[derive(Debug, Subcommand)]
pub(crate) enum LoginsVerb {
    /// List where you are logged in, the newest login first
    #[command(alias = "ls")]
    List,
    /// End a login of yours
    End {
        /// Its id.
        id: LoginSessionId,
    },
}
