//! Settings: defaults, then the file, then the environment.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::path::Path;

use tidegate_control_plane::{Config, Error, LogFormat, chain};

fn refused(toml: &str, variables: &[(&str, &str)]) -> String {
    let error: Error = Config::from_parts(toml, variables).unwrap_err();
    chain(&error)
}

#[test]
fn without_anything_it_serves_loopback_with_a_database_of_its_own() {
    let config = Config::from_parts("", &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert!(config.is_embedded());
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn the_environment_wins_over_the_file() {
    let toml = "listen = \"127.0.0.1:1\"\n[log]\nformat = \"json\"\n[service]\ntoken_minutes = 7\n";
    let variables = [
        ("TIDEGATE__LISTEN", "0.0.0.0:9"),
        ("TIDEGATE__LIMITS__BODY_BYTES", "1000"),
        ("TIDEGATE__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
        ("TIDEGATE__DATABASE__URL", "postgres://app@db/tidegate"),
    ];
    let config = Config::from_parts(toml, &variables).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:9");
    assert_eq!(config.limits.body_bytes, 1_000);
    assert_eq!((config.log.format, config.service.token_minutes), (LogFormat::Json, 7));
    let proxies: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "::1/128"]);
    assert!(!config.is_embedded());
}

#[test]
fn a_secret_of_digits_alone_is_kept_as_it_is() {
    let config = Config::from_parts("", &[("TIDEGATE__METRICS__TOKEN", "00123")]).unwrap();
    assert_eq!(config.metrics.token.unwrap().expose(), "00123");
}

#[test]
fn an_unknown_setting_is_refused_wherever_it_stands() {
    for toml in ["colour = 1", "[log]\ncolour = 1", "[database]\npassword = \"x\"", "[hub]\nnothing = 1"] {
        assert!(refused(toml, &[]).contains("unknown field"), "{toml}");
    }
    assert!(refused("", &[("TIDEGATE__LOG__COLOUR", "1")]).contains("unknown field"));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert!(refused("public_url = \"tidegate.example\"", &[]).contains("public_url"));
    assert!(refused("[database]\nmigrate_url = \"postgres://x\"", &[]).contains("migrate_url"));
    assert!(refused("trusted_proxies = [\"10.0.0.0/40\"]", &[]).contains("10.0.0.0/40"));
    assert!(refused("listen = \"localhost\"", &[]).contains("listen"));
}

#[test]
fn no_secret_is_printed() {
    let toml = "[database]\nurl = \"postgres://app:hunter2@db/x\"\nmigrate_url = \"postgres://m:hunter2@db/x\"\n\
                [metrics]\ntoken = \"hunter2\"\n[service]\nagent_bootstrap_key = \"hunter2\"";
    let printed = format!("{:#?}", Config::from_parts(toml, &[]).unwrap());
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("[redacted]"));
}

#[test]
fn the_socket_stands_beside_the_data_unless_it_is_said_where() {
    let config = Config::from_parts("data_dir = \"/srv/tide\"", &[]).unwrap();
    assert_eq!(config.run_dir(), Path::new("/srv/tide/run"));
    let config = Config::from_parts("data_dir = \"/srv/tide\"\nrun_dir = \"/run/t\"", &[]).unwrap();
    assert_eq!(config.run_dir(), Path::new("/run/t"));
}

#[test]
fn the_ca_file_is_part_of_both_addresses_of_the_database() {
    let toml = "[database]\nurl = \"postgres://app@db/tidegate\"\nmigrate_url = \"postgres://migrator@db/tidegate?sslmode=require\"\nca_file = \"/etc/ca.pem\"";
    let database = Config::from_parts(toml, &[]).unwrap().database;
    for url in [database.url, database.migrate_url] {
        let url = url.unwrap();
        assert!(url.expose().contains("sslrootcert=%2Fetc%2Fca%2Epem"), "{}", url.expose());
    }
}

#[test]
fn retention_is_set_per_table_and_never_below_its_least() {
    let config = Config::from_parts("[retention]\naudit_days = 30\nsessions_days = 5\n", &[]).unwrap();
    let kept = &config.service.retention;
    assert_eq!((kept.audit_days, kept.sessions_days, kept.keys_days), (30, 5, 365));
    let complaint = refused("[retention]\naudit_days = 1\n", &[("TIDEGATE__RETENTION__TICKETS_DAYS", "0")]);
    for name in ["retention.audit_days", "retention.tickets_days"] {
        assert!(complaint.contains(name), "{complaint}");
    }
}

const SIGN_IN: &str = "[auth.github]\nclient_id = \"id\"\nclient_secret = \"hunter2\"\nallow_signup = false\n\
                       [[auth.oidc]]\nname = \"corp\"\nissuer = \"https://id.example\"\nclient_id = \"id\"\n\
                       client_secret = \"hunter2\"\nallow_signup = true\nallowed_domains = [\"example.org\"]\n";

#[test]
fn providers_of_sign_in_are_checked_at_the_start_and_their_secrets_are_not_printed() {
    let config = Config::from_parts(SIGN_IN, &[]).unwrap();
    assert_eq!(config.auth.github.as_ref().unwrap().base_url, "https://github.com");
    assert_eq!(config.auth.oidc[0].scopes, ["openid", "email", "profile"]);
    assert!(!format!("{config:?}").contains("hunter2"));
    for (from, to, complaint) in [
        ("https://id.example", "http://id.example", "`issuer` of the provider `corp`"),
        ("allow_signup = true\n", "", "allow_signup"),
        (
            "client_secret = \"hunter2\"\nallow_signup = false",
            "allow_signup = false",
            "`auth.github` has no secret",
        ),
        ("client_secret = ", "client_secret_file = ", "cannot be read"),
        ("name = \"corp\"", "name = \"Corp!\"", "auth.oidc.name"),
        ("name = \"corp\"", "name = \"corp\"\ncolour = 1", "unknown field"),
    ] {
        let refused = refused(&SIGN_IN.replacen(from, to, 1), &[]);
        assert!(refused.contains(complaint), "{complaint}: {refused}");
    }
}

#[test]
fn mail_goes_to_a_server_only_with_all_that_it_takes() {
    let server = "[mail]\nfrom = \"Tidegate <a@example.org>\"\n[mail.smtp]\nhost = \"mail.example.org\"\n";
    let complaint = refused(server, &[]);
    assert!(complaint.contains("public_url"), "{complaint}");
    let url = ("TIDEGATE__PUBLIC_URL", "https://tidegate.example");
    let config = Config::from_parts(server, &[url, ("TIDEGATE__MAIL__SMTP__TLS", "starttls")]).unwrap();
    assert_eq!(config.mail.smtp.host, "mail.example.org");
    assert!(refused(server, &[url, ("TIDEGATE__MAIL__SMTP__TLS", "none")]).contains("mail.smtp.tls"));
    assert!(refused("[mail]\nserver = \"x\"", &[]).contains("unknown field"));
    assert!(refused("[mail.smtp]\ncolour = 1", &[]).contains("unknown field"));
    let secret = ("TIDEGATE__MAIL__SMTP__PASSWORD", "hunter2");
    let complaint = refused(server, &[url, secret]);
    assert!(complaint.contains("mail.smtp.username") && !complaint.contains("hunter2"), "{complaint}");
}

#[test]
fn limits_of_sessions_are_set_by_file_and_environment_and_no_default_is_above_its_maximum() {
    let toml = "[service.session_policy]\nidle_timeout = { default = \"30m\", maximum = \"8h\" }";
    let variables = [("TIDEGATE__SERVICE__SESSION_POLICY__MAX_SESSION_DURATION__MAXIMUM", "24h")];
    let policy = Config::from_parts(toml, &variables).unwrap().service.session_policy;
    assert_eq!(policy.idle_timeout.default.unwrap().to_string(), "30m");
    // In its largest whole unit.
    assert_eq!(policy.max_session_duration.maximum.unwrap().to_string(), "1d");
    let toml = "[service.session_policy.idle_timeout]\ndefault = \"9h\"\nmaximum = \"8h\"";
    let said = refused(toml, &[]);
    assert!(said.contains("session_policy") && said.contains("must not be more than 8h"), "{said}");
    assert!(refused("[service.session_policy]\nidle = 1", &[]).contains("unknown field"));
}
