//! What a session is to run, wherever that was said: in a built-in template with its request, in a template of the catalog,
//! or in an application. Later ones win: the template, then the application's configuration, then the request.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tidegate_model::{
    AccessLevel, ApplicationId, BuiltInTemplate, FieldErrors, Hibernation, InstallStatus, NewSession,
    Operation, Platform, ResourceRequest, Resources, StreamKind, TemplateManifest, TemplatePlatform,
    TimeLimit, declared_options, option_variable,
};
use tidegate_persistence::{
    OrgScope, OrgTx,
    application::{self, Found, Looking},
    organization::Locked,
};

use crate::{
    Core, Error, Result, error::Named, options_schema::OptionsSchema, organizations::conflict,
    permissions::standing,
};

/// Bytes of one variable or argument, and of all variables, at most.
const LONGEST: usize = 64 * 1_024;
const ALL: usize = 192 * 1_024;
/// Bytes of all that an agent is told to run, as JSON, at most: it takes no frame above 512 KiB.
const TOLD: usize = 384 * 1_024;
/// Labels of a session at most.
const TAGS: usize = 32;

/// What a session is to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blueprint {
    /// The template's name.
    pub(crate) template: String,
    /// The application that it is of.
    pub(crate) application: Option<ApplicationId>,
    /// How it is watched.
    pub(crate) protocol: StreamKind,
    /// Whose agents run it.
    pub(crate) platform: Platform,
    /// The image of its container.
    pub(crate) image: Option<String>,
    /// Program and arguments.
    pub(crate) command: Option<Vec<String>>,
    /// The container's port that is streamed.
    pub(crate) port: Option<u16>,
    /// What becomes of the container asleep.
    pub(crate) hibernation: Option<Hibernation>,
    /// Its variables.
    pub(crate) environment: BTreeMap<String, String>,
    /// What it gets.
    pub(crate) resources: Resources,
    /// The idle timeout and the longest duration that its template suggests.
    pub(crate) suggested: (Option<TimeLimit>, Option<TimeLimit>),
    /// Labels.
    pub(crate) tags: Vec<String>,
    /// What agents are told of the catalog's template.
    pub(crate) manifest: Option<Value>,
}

/// What a request asks for, as far as that can be said outside of its transaction.
#[derive(Debug, Clone)]
pub(crate) enum Plan {
    /// It is known.
    Ready(Box<Blueprint>),
    /// It is the application's to say, and whether the caller may launch it, when the session is made.
    Of(ApplicationId),
}

/// Finds out what a request asks for.
pub(crate) async fn plan(core: &Core, scope: &OrgScope, new: &NewSession) -> Result<Plan> {
    if let Some(id) = new.application_id {
        return Ok(Plan::Of(id));
    }
    let name = new.template.as_deref().unwrap_or_default();
    if let Ok(template) = name.parse() {
        return Ok(Plan::Ready(Box::new(built_in(template, new))));
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    let (repository, plain) = match name.rsplit_once('/') {
        Some((repository, plain)) => (Some(repository), plain),
        None => (None, name),
    };
    let (found, served) = core
        .db
        .in_org(scope, async |tx| {
            let mut found = application::offered_named(tx, repository, plain).await?;
            if found.len() > 1 {
                return Err(several(&shown, &found));
            }
            let found = found.pop().ok_or_else(|| Error::not_found(format_args!("template {shown}")))?;
            let served = application::first_served(tx, &runnable(&found.manifest)).await?;
            Ok((found, served))
        })
        .await?;
    let manifest = found.manifest;
    refuse_foreign(new)?;
    let platform = default_platform(&manifest, served)?;
    let configuration = settle(&manifest, &Map::new()).map_err(|_| {
        let complaint = "has options that need a value: install it as an application, with its configuration";
        Error::Invalid(FieldErrors::one("template", complaint))
    })?;
    let source = Source { manifest: &manifest, configuration: &configuration, platform, application: None };
    Ok(Plan::Ready(Box::new(of_catalog(&source, new)?)))
}

fn several(name: &str, found: &[application::Offered]) -> Error {
    let names: Vec<String> =
        found.iter().map(|it| format!("{}/{}", it.repository, it.manifest.name)).collect();
    let message = format!("template {name} is in several repositories, say which: {}", names.join(", "));
    conflict("E_TEMPLATE_AMBIGUOUS", &message)
}

/// What a template of the catalog says itself.
fn refuse_foreign(new: &NewSession) -> Result<()> {
    let mut errors = FieldErrors::new();
    let asked = [
        ("command", new.command.is_some()),
        ("image", new.image.is_some()),
        ("platform", new.platform.is_some()),
        ("port", new.port.is_some()),
    ];
    for (field, _) in asked.into_iter().filter(|(_, there)| *there) {
        errors.add(field, "is the template's to say, and no part of this request");
    }
    errors.into_result().map_err(Error::Invalid)
}

/// What an application says, if the caller may launch it at this moment.
pub(crate) async fn of_application_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    locked: &Locked,
    id: ApplicationId,
    new: &NewSession,
) -> Result<Blueprint> {
    let manages = Operation::ManageApplications.allows(standing(scope, locked.role));
    let looking = Looking { user: scope.user_id(), manages };
    let found = application::find(tx, id, looking).await.named(format_args!("application {id}"))?;
    may_launch(&found)?;
    let Found { application, manifest, configuration } = found;
    let source = Source {
        manifest: &manifest,
        configuration: &configuration,
        platform: application.platform,
        application: Some(id),
    };
    of_catalog(&source, new)
}

fn may_launch(found: &Found) -> Result<()> {
    let application = &found.application;
    let name = &application.display_name;
    let ready = application.enabled && application.install_status == InstallStatus::Installed;
    if application.access < AccessLevel::Launch {
        // Nobody is told of what they are not shown.
        return Err(if ready {
            Error::Forbidden(format!(
                "you may see application {name} and not start it: ask an org_admin or maintainer for access to launch it"
            ))
        } else {
            Error::not_found(format_args!("application {}", application.id))
        });
    }
    match (application.install_status, application.enabled) {
        (InstallStatus::Installed, true) => Ok(()),
        (InstallStatus::Installed, false) => {
            let message = format!("application {name} is disabled: no session of it can be started");
            Err(conflict("E_APPLICATION_DISABLED", &message))
        }
        (status, _) => {
            // Why is for those who can do something about it.
            let changes = application.access == AccessLevel::Admin;
            let why = application.install_message.as_deref().filter(|_| changes);
            let why = why.map(|why| format!(", {why}")).unwrap_or_default();
            let message = format!("application {name} is not installed: its installation is {status}{why}");
            Err(conflict("E_APPLICATION_NOT_INSTALLED", &message))
        }
    }
}

/// What one of the built-in templates says, with its request.
pub(crate) fn built_in(template: BuiltInTemplate, new: &NewSession) -> Blueprint {
    Blueprint {
        template: template.to_string(),
        application: None,
        protocol: template.protocol(),
        // Those that were asked for, else those that fit the template.
        platform: new.platform.unwrap_or_else(|| template.platform(new.image.is_some())),
        image: new.image.clone(),
        command: new.command.clone(),
        port: new.port,
        hibernation: new.hibernation,
        environment: new.environment.clone(),
        resources: template.resources(new.resources.unwrap_or_default(), new.persistent_home),
        suggested: (None, None),
        tags: new.tags.clone(),
        manifest: None,
    }
}

/// A template of the catalog with what its options are set to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) manifest: &'a TemplateManifest,
    pub(crate) configuration: &'a Map<String, Value>,
    pub(crate) platform: TemplatePlatform,
    pub(crate) application: Option<ApplicationId>,
}

/// What a template of the catalog says, with its configuration and the request.
pub(crate) fn of_catalog(source: &Source<'_>, new: &NewSession) -> Result<Blueprint> {
    let Source { manifest, platform, .. } = *source;
    let image = manifest.image.clone().filter(|_| platform.runs_images());
    if new.hibernation == Some(Hibernation::Pause) && image.is_none() {
        let complaint = "must be `stop`: it runs in no container, and only containers can be paused";
        return Err(Error::Invalid(FieldErrors::one("hibernation", complaint)));
    }
    let (command, mut environment) = resolved(source)?;
    environment.extend(new.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    let told = told(manifest, image.as_deref());
    if !is_tellable(command.as_deref(), &environment, &told) {
        let complaint = "makes all that an agent is told longer than it takes: shorten its values";
        return Err(Error::Invalid(FieldErrors::one("environment", complaint)));
    }
    let streams = manifest.protocol != StreamKind::Terminal && image.is_some();
    Ok(Blueprint {
        template: manifest.name.clone(),
        application: source.application,
        protocol: manifest.protocol,
        platform: platform.agents(),
        command,
        port: manifest.streamed_port().filter(|_| streams),
        hibernation: new.hibernation,
        environment,
        resources: resources(manifest, new),
        suggested: (manifest.idle_timeout, manifest.max_session_duration),
        tags: tags(&manifest.tags, &new.tags),
        manifest: Some(told),
        image,
    })
}

fn resources(manifest: &TemplateManifest, new: &NewSession) -> Resources {
    let asked = new.resources.unwrap_or_default();
    let own = manifest.resources;
    let wanted = ResourceRequest {
        cpu: asked.cpu.or(own.cpu),
        memory: asked.memory.or(own.memory),
        storage: asked.storage.or(own.storage),
    };
    // Where both are silent, what something that is watched alike gets.
    let alike = match manifest.protocol {
        StreamKind::Terminal => BuiltInTemplate::Command,
        StreamKind::Vnc => BuiltInTemplate::Desktop,
        StreamKind::Http => BuiltInTemplate::Web,
    };
    alike.resources(wanted, new.persistent_home)
}

fn tags(own: &[String], asked: &[String]) -> Vec<String> {
    let mut tags = asked.to_vec();
    for tag in own {
        // Those that were asked for are kept in any case.
        if tags.len() < TAGS && !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    tags
}

/// The template as agents are told of it: what they need to run it, in the form of its file.
fn told(manifest: &TemplateManifest, image: Option<&str>) -> Value {
    json!({
        "apiVersion": "stream.space/v1alpha1", "kind": "Template", "metadata": {"name": manifest.name},
        "spec": {
            "displayName": manifest.display_name, "appType": manifest.app_type, "image": image, "baseImage": image,
            "command": manifest.command, "ports": manifest.ports, "protocol": manifest.protocol,
        },
    })
}

/// The options of a template as they hold with what was given; every complaint has its path below `configuration`.
pub(crate) fn settle(manifest: &TemplateManifest, given: &Map<String, Value>) -> Result<Map<String, Value>> {
    let schema = OptionsSchema::read("options", &manifest.options, &Map::new()).map_err(|errors| {
        let message = format!("template {} has options that cannot be read: {errors}", manifest.name);
        conflict("E_TEMPLATE_BROKEN", &message)
    })?;
    schema.settle("configuration", given).map_err(Error::Invalid)
}

/// Program, arguments and variables, with the options put in.
fn resolved(source: &Source<'_>) -> Result<(Option<Vec<String>>, BTreeMap<String, String>)> {
    let Source { manifest, configuration, .. } = *source;
    let declared = declared(&manifest.options);
    let put = |text: &String| expand(text, &declared, configuration);
    let command = manifest.command.as_ref().map(|argv| arguments(argv, put)).transpose()?;
    let mut environment = BTreeMap::new();
    for (name, value) in &manifest.env {
        environment.insert(name.clone(), put(value)?);
    }
    for (name, value) in configuration {
        environment.insert(option_variable(name), text_of(value));
    }
    let bytes: usize = environment.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ALL {
        return Err(too_long("the variables"));
    }
    Ok((command, environment))
}

/// Program and arguments, as long as they are not too long together.
fn arguments(argv: &[String], put: impl Fn(&String) -> Result<String>) -> Result<Vec<String>> {
    let mut bytes = 0;
    let mut whole = Vec::with_capacity(argv.len());
    for argument in argv {
        let argument = put(argument)?;
        bytes += argument.len();
        if bytes > ALL {
            return Err(too_long("the arguments"));
        }
        whole.push(argument);
    }
    Ok(whole)
}

/// Whether an agent takes it all in one frame.
fn is_tellable(command: Option<&[String]>, environment: &BTreeMap<String, String>, told: &Value) -> bool {
    json!({"command": command, "environment": environment, "templateManifest": told}).to_string().len()
        <= TOLD
}

/// Checks that what a template runs can be told with this configuration.
pub(crate) fn check(source: &Source<'_>) -> Result<()> {
    let (command, environment) = resolved(source)?;
    let told = told(source.manifest, source.manifest.image.as_deref());
    if is_tellable(command.as_deref(), &environment, &told) {
        Ok(())
    } else {
        Err(too_long("arguments and variables"))
    }
}

fn too_long(what: &str) -> Error {
    let complaint = format!("makes {what} of the program longer than an agent is told: shorten its values");
    Error::Invalid(FieldErrors::one("configuration", complaint))
}

/// The names of a template's options.
fn declared(options: &Map<String, Value>) -> BTreeSet<&str> {
    declared_options(options).keys().map(String::as_str).collect()
}

/// An option's value as a program reads it: a text as it is, nothing for `null`, everything else as JSON.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Puts options in where `${option}` stands. `$${` is a plain `${`; names that are no options are left as they are, they may
/// mean something to a shell. What was put in is not looked at again.
fn expand(text: &str, declared: &BTreeSet<&str>, options: &Map<String, Value>) -> Result<String> {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, found) = rest.split_at(at);
        let name = found.find('}').map(|end| (&found[2..end], &found[end + 1..]));
        if let Some(plain) = before.strip_suffix('$') {
            whole.push_str(plain);
            whole.push_str("${");
            rest = &found[2..];
        } else if let Some((name, after)) = name.filter(|(name, _)| declared.contains(name)) {
            whole.push_str(before);
            whole.push_str(&options.get(name).map(text_of).unwrap_or_default());
            rest = after;
        } else {
            whole.push_str(before);
            whole.push_str("${");
            rest = &found[2..];
        }
        if whole.len() > LONGEST {
            return Err(too_long("an argument or a variable"));
        }
    }
    whole.push_str(rest);
    Ok(whole)
}

/// The platforms of a template on which it can run, the best first.
pub(crate) fn runnable(manifest: &TemplateManifest) -> Vec<TemplatePlatform> {
    let fits = |platform: &&TemplatePlatform| why_not(manifest, **platform).is_none();
    manifest.platforms.iter().filter(fits).copied().collect()
}

/// The platform of a template where none is named: the first one that has an approved agent, else the first.
pub(crate) fn default_platform(
    manifest: &TemplateManifest,
    served: Option<TemplatePlatform>,
) -> Result<TemplatePlatform> {
    served.or_else(|| runnable(manifest).first().copied()).ok_or_else(|| {
        let message = format!("template {} names no platform on which it can run", manifest.name);
        conflict("E_TEMPLATE_BROKEN", &message)
    })
}

/// Why a template cannot run on a platform.
pub(crate) fn why_not(manifest: &TemplateManifest, platform: TemplatePlatform) -> Option<String> {
    if !manifest.platforms.contains(&platform) {
        let names: Vec<&str> = manifest.platforms.iter().map(|it| it.as_str()).collect();
        return Some(format!("must be one of those of template {}: {}", manifest.name, names.join(", ")));
    }
    let command = manifest.command.as_ref().is_some_and(|argv| !argv.is_empty());
    match (platform.runs_images(), manifest.protocol) {
        (true, _) if manifest.image.is_none() => {
            Some(format!("needs an image, which template {} does not name", manifest.name))
        }
        (false, StreamKind::Http) if !command => {
            Some(format!("needs a command, which template {} does not name", manifest.name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::FromFields;

    use super::*;

    fn manifest(body: Value) -> TemplateManifest {
        TemplateManifest::from_json(body).unwrap()
    }

    fn browser() -> TemplateManifest {
        manifest(json!({
            "name": "browser", "appType": "desktop", "platforms": ["docker", "vm"], "image": "browser:1",
            "command": ["browse", "--home", "${homepage}", "--keep", "${HOME}"], "ports": [{"containerPort": 5901}],
            "env": {"LANG": "C", "START": "<${homepage}>", "RAW": "$${homepage}"}, "resources": {"cpu": "2", "memory": "1Gi"},
            "idleTimeout": "30m", "tags": ["web", "x11"],
            "options": {"homepage": {"type": "string", "default": "about:blank"}, "tabs": {"type": "integer"}},
        }))
    }

    fn of(
        manifest: &TemplateManifest,
        platform: TemplatePlatform,
        given: &Value,
        new: &NewSession,
    ) -> Blueprint {
        let configuration = settle(manifest, given.as_object().unwrap()).unwrap();
        of_catalog(&Source { manifest, configuration: &configuration, platform, application: None }, new)
            .unwrap()
    }

    #[test]
    fn the_request_wins_over_the_configuration_and_that_over_the_template() {
        let manifest = browser();
        let new = NewSession {
            environment: BTreeMap::from([("LANG".into(), "de".into()), ("MORE".into(), "1".into())]),
            resources: Some(ResourceRequest { cpu: "500m".parse().ok(), ..Default::default() }),
            tags: vec!["mine".into(), "web".into()],
            ..NewSession::of("browser")
        };
        let blueprint = of(&manifest, TemplatePlatform::Docker, &json!({"tabs": 3}), &new);
        assert_eq!(
            blueprint.environment,
            BTreeMap::from(
                [
                    ("LANG", "de"),
                    ("MORE", "1"),
                    ("RAW", "${homepage}"),
                    ("START", "<about:blank>"),
                    ("TIDEGATE_OPTION_HOMEPAGE", "about:blank"),
                    ("TIDEGATE_OPTION_TABS", "3"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
            )
        );
        let argv = ["browse", "--home", "about:blank", "--keep", "${HOME}"].map(str::to_owned);
        assert_eq!(blueprint.command.as_deref(), Some(&argv[..]));
        assert_eq!(blueprint.resources.cpu, "500m".parse().unwrap());
        assert_eq!(blueprint.resources.memory, "1Gi".parse().unwrap());
        assert_eq!(blueprint.tags, ["mine", "web", "x11"]);
        assert_eq!(blueprint.suggested.0.map(|limit| limit.to_string()).as_deref(), Some("30m"));
        assert_eq!((blueprint.platform, blueprint.port), (Platform::Docker, Some(5901)));
        assert_eq!(blueprint.image.as_deref(), Some("browser:1"));
    }

    #[test]
    fn a_machine_gets_no_image_and_chooses_its_own_port() {
        let blueprint = of(&browser(), TemplatePlatform::Vm, &json!({}), &NewSession::of("browser"));
        assert_eq!((blueprint.platform, blueprint.image, blueprint.port), (Platform::Vm, None, None));
        let told = blueprint.manifest.unwrap();
        assert_eq!((&told["metadata"]["name"], &told["spec"]["image"]), (&json!("browser"), &Value::Null));
        let paused = NewSession { hibernation: Some(Hibernation::Pause), ..NewSession::of("browser") };
        let (manifest, configuration) = (browser(), Map::new());
        let source = Source {
            manifest: &manifest,
            configuration: &configuration,
            platform: TemplatePlatform::Vm,
            application: None,
        };
        assert!(matches!(of_catalog(&source, &paused), Err(Error::Invalid(_))));
    }

    #[test]
    fn what_an_option_says_is_not_read_as_a_placeholder_again() {
        let declared = BTreeSet::from(["a", "b"]);
        let options = json!({"a": "${b}", "b": [1, "x"]});
        let put = |text: &str| expand(text, &declared, options.as_object().unwrap()).unwrap();
        assert_eq!(put("${a}-${b}-${c}-$${a}-${"), "${b}-[1,\"x\"]-${c}-${a}-${");
        assert_eq!(put("${${a}}"), "${${b}}");
        assert_eq!(put("$ { } ${} é"), "$ { } ${} é");
    }

    #[test]
    fn a_small_template_does_not_swell_beyond_all_bounds() {
        let text = "${a}".repeat(10_000);
        let options = json!({"a": "x".repeat(1_000)});
        let swollen = expand(&text, &BTreeSet::from(["a"]), options.as_object().unwrap());
        assert!(matches!(swollen, Err(Error::Invalid(_))), "{swollen:?}");
    }

    #[test]
    fn every_complaint_about_a_configuration_has_its_path() {
        let given = json!({"homepage": 7, "tabs": "many", "colour": "red"});
        let Err(Error::Invalid(errors)) = settle(&browser(), given.as_object().unwrap()) else { panic!() };
        let paths: Vec<&str> = errors.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["configuration.colour", "configuration.homepage", "configuration.tabs"]);
    }

    #[test]
    fn a_template_runs_where_it_says_what_runs() {
        let image =
            manifest(json!({"name": "a", "image": "x:1", "platforms": ["docker", "vm"], "protocol": "http"}));
        assert_eq!(runnable(&image), [TemplatePlatform::Docker], "a machine does not know what serves");
        assert!(why_not(&image, TemplatePlatform::Kubernetes).unwrap().contains("docker, vm"));
        assert_eq!(default_platform(&image, None).unwrap(), TemplatePlatform::Docker);
        let shell = manifest(json!({"name": "a", "appType": "terminal", "platforms": ["hyperv"]}));
        assert_eq!(default_platform(&shell, None).unwrap(), TemplatePlatform::HyperV, "it has a login shell");
    }
}
