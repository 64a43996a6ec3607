//! What lies in a repository: templates and plugins, and what is wrong with the files that are none. One bad file never
//! spoils another.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};
use tidegate_model::{FieldErrors, FromFields, PluginManifest, TemplateManifest};

use crate::{
    Error, Snapshot, Step,
    fetch::Tell,
    snapshot::{Kind, Problems},
    yaml,
};

/// Bytes of a manifest at most.
const LARGEST_MANIFEST: u64 = 256 * 1024;
/// Templates and plugins of one repository at most.
const ENTRIES: usize = 10_000;
/// Changes with the way that entries are read: it makes every one of them new.
const READER: &[u8] = b"tidegate catalog entry 1";
/// How a template names the rules it is written by.
const VERSIONS: [&str; 2] = ["stream.space/v1alpha1", "tidegate.dev/v1"];

/// What lies in a repository.
#[derive(Debug, Default)]
pub struct Found {
    /// Its templates, by name.
    pub templates: Vec<FoundTemplate>,
    /// Its plugins, by name.
    pub plugins: Vec<FoundPlugin>,
    /// What is wrong with other files.
    pub problems: Problems,
}

/// A template in a repository.
#[derive(Debug, Clone)]
pub struct FoundTemplate {
    /// What it says.
    pub manifest: TemplateManifest,
    /// Two templates with the same one are the same, icon included.
    pub digest: [u8; 32],
    /// Its icon's path.
    pub(crate) icon: Option<String>,
}

/// A plugin in a repository.
#[derive(Debug, Clone)]
pub struct FoundPlugin {
    /// What it says.
    pub manifest: PluginManifest,
    /// Two plugins with the same one are the same, file by file.
    pub digest: [u8; 32],
    /// Its folder, with a `/` at its end; empty for the repository itself.
    pub(crate) folder: String,
    /// Its files.
    pub(crate) files: Vec<String>,
    /// Its icon's path.
    pub(crate) icon: Option<String>,
}

impl Snapshot {
    /// Reads every manifest.
    pub async fn catalog(&mut self, tell: &Tell) -> Result<Found, Error> {
        let mut reader = Reader { problems: std::mem::take(&mut self.problems), ..Reader::default() };
        let manifests = self.manifests();
        for (done, (path, kind)) in manifests.iter().enumerate() {
            if done % 100 == 0 {
                tell(Step::Reading { done, of: manifests.len() });
            }
            if reader.templates.len() + reader.plugins.len() >= ENTRIES {
                reader.problems.add(
                    path,
                    None,
                    format!("only the first {ENTRIES} entries of a repository are read"),
                );
                break;
            }
            match self.read(path, LARGEST_MANIFEST).await? {
                Ok(content) => reader.manifest(path, *kind, &content),
                // Somebody's large YAML is nobody's concern; what is called as a plugin's manifest is meant as one.
                Err(reason) if *kind == Manifest::Plugin => reader.problems.add(path, None, reason),
                Err(_) => {}
            }
        }
        tell(Step::Reading { done: manifests.len(), of: manifests.len() });
        Ok(self.finish(reader))
    }

    /// Every file that may be a manifest, in the order of paths: the first of two with one name is the one that counts.
    fn manifests(&self) -> Vec<(String, Manifest)> {
        let plugins: BTreeSet<&str> = self
            .files
            .iter()
            .filter(|(path, file)| file_name(path) == "plugin.json" && file.kind == Kind::Regular)
            .map(|(path, _)| folder_of(path))
            // A repository that is a plugin itself may have templates beside it.
            .filter(|folder| !folder.is_empty())
            .collect();
        let within_plugin = |path: &str| ancestors(folder_of(path)).any(|folder| plugins.contains(folder));
        let kind = |path: &str| match file_name(path) {
            "plugin.json" => Some(Manifest::Plugin),
            "manifest.json" if !within_plugin(path) => Some(Manifest::MaybePlugin),
            _ if hidden(path) || within_plugin(path) => None,
            name => match name.rsplit_once('.') {
                Some((_, "yaml" | "yml")) => Some(Manifest::MaybeTemplate),
                _ => None,
            },
        };
        self.files.keys().filter_map(|path| Some((path.clone(), kind(path)?))).collect()
    }

    fn finish(&self, reader: Reader) -> Found {
        let Reader { templates, plugins, mut problems } = reader;
        let templates = templates
            .into_values()
            .map(|(path, manifest)| {
                let icon = self.icon_of(&path, manifest.icon_path(), &mut problems);
                let digest = self.template_digest(&manifest, icon.as_deref());
                FoundTemplate { manifest, digest, icon }
            })
            .collect();
        let folders: BTreeSet<String> =
            plugins.values().map(|(path, _)| folder_of(path).to_owned()).collect();
        let plugins = plugins
            .into_values()
            .map(|(path, manifest)| {
                let icon = self.icon_of(&path, manifest.icon_path(), &mut problems);
                let folder = folder_of(&path).to_owned();
                let files = self.files_of(&folder, &folders);
                let digest = self.plugin_digest(&folder, &files);
                FoundPlugin { manifest, digest, folder, files, icon }
            })
            .collect();
        Found { templates, plugins, problems }
    }

    fn icon_of(&self, manifest: &str, icon: Option<&str>, problems: &mut Problems) -> Option<String> {
        let path = format!("{}{}", folder_of(manifest), icon?);
        match self.files.get(&path) {
            Some(file) if file.kind == Kind::Regular => Some(path),
            Some(_) => {
                problems.add(manifest, None, "its icon is a symbolic link, which is not followed");
                None
            }
            None => {
                problems.add(manifest, None, format!("there is no file at its icon's path `{path}`"));
                None
            }
        }
    }

    /// A plugin's files: what lies below its folder, other plugins' files and hidden ones left out.
    fn files_of(&self, folder: &str, plugins: &BTreeSet<String>) -> Vec<String> {
        let others = |path: &str| {
            ancestors(folder_of(path)).take_while(|it| it.len() > folder.len()).any(|it| plugins.contains(it))
        };
        self.files
            .range(folder.to_owned()..)
            .take_while(|(path, _)| path.starts_with(folder))
            .filter(|(path, file)| {
                file.kind == Kind::Regular && !hidden(&path[folder.len()..]) && !others(path)
            })
            .map(|(path, _)| path.clone())
            .collect()
    }

    fn template_digest(&self, manifest: &TemplateManifest, icon: Option<&str>) -> [u8; 32] {
        // Maps are ordered in it: the same manifest is the same text.
        let said = serde_json::to_vec(manifest).unwrap_or_default();
        let icon = icon.and_then(|path| self.files.get(path)).map(|file| file.identity.as_bytes());
        digest([READER, b"template", &said, icon.unwrap_or_default()])
    }

    fn plugin_digest(&self, folder: &str, files: &[String]) -> [u8; 32] {
        let parts = files.iter().flat_map(|path| {
            let identity = self.files.get(path).map(|file| file.identity.as_str()).unwrap_or_default();
            [&path.as_bytes()[folder.len()..], identity.as_bytes()]
        });
        digest([READER, b"plugin".as_slice()].into_iter().chain(parts))
    }
}

/// What a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manifest {
    /// `plugin.json`.
    Plugin,
    /// `manifest.json`, as other things are called, too.
    MaybePlugin,
    /// Some YAML.
    MaybeTemplate,
}

/// What was read so far, by name, with its path.
#[derive(Debug, Default)]
struct Reader {
    templates: BTreeMap<String, (String, TemplateManifest)>,
    plugins: BTreeMap<String, (String, PluginManifest)>,
    problems: Problems,
}

impl Reader {
    fn manifest(&mut self, path: &str, kind: Manifest, content: &[u8]) {
        match kind {
            Manifest::Plugin => self.plugin(path, content),
            Manifest::MaybePlugin => {
                // A web application's, a browser extension's, or a plugin's: only the last has one of these types.
                if looks_like_a_plugin(content) {
                    self.plugin(path, content);
                }
            }
            Manifest::MaybeTemplate => self.templates(path, content),
        }
    }

    fn plugin(&mut self, path: &str, content: &[u8]) {
        let text = match std::str::from_utf8(content) {
            Ok(text) => text,
            Err(error) => return self.not_utf8(path, content, error),
        };
        let value: Value = match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
            Ok(value) => value,
            Err(error) => return self.problems.add(path, Some(error.line() as u64), plain_json(&error)),
        };
        let manifest = match PluginManifest::from_json(value) {
            Ok(manifest) => manifest,
            Err(errors) => return self.fields(path, text, 1, &errors),
        };
        let taken = self.plugins.get(&manifest.name).map(|(first, _)| first.clone());
        match taken {
            Some(first) => self.taken(path, text, 1, "plugin", &manifest.name, &first),
            None => drop(self.plugins.insert(manifest.name.clone(), (path.to_owned(), manifest))),
        }
    }

    fn templates(&mut self, path: &str, content: &[u8]) {
        let text = match std::str::from_utf8(content) {
            Ok(text) => text,
            Err(error) if mentions_template(&String::from_utf8_lossy(content)) => {
                return self.not_utf8(path, content, error);
            }
            Err(_) => return,
        };
        if !mentions_template(text) {
            return;
        }
        let documents = match yaml::documents(text) {
            Ok(documents) => documents,
            Err(refused) => {
                return self.problems.add(path, refused.line, format!("it is no YAML: {}", refused.reason));
            }
        };
        let starts = document_starts(text);
        for (index, document) in documents.into_iter().enumerate() {
            let from = starts.get(index).copied().unwrap_or(1);
            if let Some(template) = as_template(document) {
                self.template(path, text, from, template);
            }
        }
    }

    fn template(&mut self, path: &str, text: &str, from: usize, template: Template) {
        if !VERSIONS.contains(&template.version.as_str()) {
            let line = yaml::line_of(text, from, "apiVersion");
            let reason = format!("apiVersion must be {} or {}", VERSIONS[0], VERSIONS[1]);
            return self.problems.add(path, line, reason);
        }
        let manifest = match TemplateManifest::from_json(Value::Object(template.fields)) {
            Ok(manifest) => manifest,
            Err(errors) => return self.fields(path, text, from, &errors),
        };
        let taken = self.templates.get(&manifest.name).map(|(first, _)| first.clone());
        match taken {
            Some(first) => self.taken(path, text, from, "template", &manifest.name, &first),
            None => drop(self.templates.insert(manifest.name.clone(), (path.to_owned(), manifest))),
        }
    }

    fn fields(&mut self, path: &str, text: &str, from: usize, errors: &FieldErrors) {
        for (field, complaint) in errors.iter() {
            self.problems.add(path, yaml::line_of(text, from, field), format!("{field}: {complaint}"));
        }
    }

    fn taken(&mut self, path: &str, text: &str, from: usize, what: &str, name: &str, first: &str) {
        let line = yaml::line_of(text, from, "name");
        self.problems.add(path, line, format!("the {what} `{name}` is already in `{first}`"));
    }

    fn not_utf8(&mut self, path: &str, content: &[u8], error: std::str::Utf8Error) {
        let line = content[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        self.problems.add(path, Some(line as u64), "it is not UTF-8");
    }
}

/// What a file says of a template, brought to one level.
struct Template {
    version: String,
    fields: Map<String, Value>,
}

/// `kind: Template` with its fields under `metadata` and `spec`, or all at the top.
fn as_template(document: Value) -> Option<Template> {
    let Value::Object(mut top) = document else { return None };
    if top.get("kind").and_then(Value::as_str) != Some("Template") {
        return None;
    }
    let version = match top.remove("apiVersion") {
        Some(Value::String(version)) => version,
        _ => String::new(),
    };
    let name = match top.remove("metadata") {
        Some(Value::Object(mut metadata)) => metadata.remove("name"),
        _ => None,
    };
    top.remove("kind");
    let mut fields = match top.remove("spec") {
        Some(Value::Object(spec)) => spec,
        Some(other) => Map::from_iter([("spec".to_owned(), other)]),
        None => Map::new(),
    };
    for (key, value) in top {
        fields.entry(key).or_insert(value);
    }
    if let Some(name) = name {
        fields.insert("name".to_owned(), name);
    }
    Some(Template { version, fields })
}

/// Whether a text means to be a template: much YAML is something else, and not even YAML to us.
fn mentions_template(text: &str) -> bool {
    text.lines().any(|line| {
        let kind = line.trim().trim_start_matches(['{', '"', '\'', ' ']).strip_prefix("kind");
        kind.is_some_and(|rest| {
            rest.trim_start_matches(['"', '\'', ' ']).strip_prefix(':').is_some_and(|value| {
                let word = value.trim().trim_start_matches(['"', '\'']);
                word.strip_prefix("Template").is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            })
        }) || (line.contains("apiVersion") && VERSIONS.iter().any(|version| line.contains(version)))
    })
}

/// The line that each document begins at.
fn document_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![1];
    let mut begun = false;
    for (index, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            if begun {
                starts.push(index + 1);
            }
            begun = true;
        } else if !line.trim().is_empty() && !line.starts_with(['#', '%']) {
            begun = true;
        }
    }
    starts
}

fn looks_like_a_plugin(content: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        _kind: tidegate_model::PluginType,
    }
    match serde_json::from_slice::<Typed>(content) {
        Ok(_) => true,
        // Broken, and with a word that only a plugin's manifest has.
        Err(error) => error.is_syntax() && content.windows(13).any(|part| part == b"\"entrypoints\""),
    }
}

fn plain_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let said = text.split(" at line ").next().unwrap_or_default();
    match said {
        "recursion limit exceeded" => "it is no JSON that is read: it is nested too deep".to_owned(),
        said => format!("it is no JSON: {said}"),
    }
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The folder of a path, with a `/` at its end; empty at the top.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..=at])
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// A folder and those around it, the nearest first.
fn ancestors(folder: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(folder), |folder| {
        (!folder.is_empty()).then(|| folder_of(folder.strip_suffix('/').unwrap_or(folder)))
    })
}

fn hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Reader {
        let mut reader = Reader::default();
        for (path, content) in files {
            let kind = if path.ends_with("plugin.json") { Manifest::Plugin } else { Manifest::MaybeTemplate };
            reader.manifest(path, kind, content.as_bytes());
        }
        reader
    }

    fn problems(files: &[(&str, &str)]) -> Vec<(String, Option<u32>, String)> {
        read(files).problems.into_list().into_iter().map(|it| (it.path, it.line, it.reason)).collect()
    }

    #[test]
    fn a_template_is_read_from_either_form() {
        let nested = "apiVersion: stream.space/v1alpha1\nkind: Template\nmetadata:\n  name: a\nspec:\n  displayName: A\n  \
                      appType: terminal\n  command: [bash]\n";
        let flat =
            "apiVersion: tidegate.dev/v1\nkind: Template\nname: b\nappType: terminal\ncommand: [bash]\n";
        let reader = read(&[("a.yaml", nested), ("b.yml", flat)]);
        assert_eq!(reader.templates.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(reader.templates["a"].1.display_name, "A");
        assert!(reader.problems.into_list().is_empty());
    }

    #[test]
    fn other_yaml_is_nobodys_concern() {
        let helm = "{{- if .Values.x }}\nkind: Deployment\n{{- end }}\n";
        let workflow = "on: push\njobs: {a: {}}\n";
        let template_set = "kind: TemplateSet\napiVersion: other/v1\n";
        assert_eq!(problems(&[("h.yaml", helm), ("w.yml", workflow), ("t.yml", template_set)]), []);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let wrong =
            "apiVersion: tidegate.dev/v1\nkind: Template\nmetadata: {name: ../up}\nspec:\n  appType: game\n";
        let old = "kind: Template\napiVersion: stream.space/v9\nmetadata: {name: a}\n";
        let broken = "kind: Template\nspec: [\n";
        let told = problems(&[("a.yaml", wrong), ("b.yaml", old), ("c.yaml", broken)]);
        let lines: Vec<(&str, Option<u32>)> =
            told.iter().map(|(path, line, _)| (path.as_str(), *line)).collect();
        assert_eq!(lines[..3], [("a.yaml", Some(5)), ("a.yaml", None), ("b.yaml", Some(2))], "{told:?}");
        assert!(told[0].2.starts_with("appType: ") && told[1].2.starts_with("name: "), "{told:?}");
        assert!(told[3].2.starts_with("it is no YAML: "), "{told:?}");
    }

    #[test]
    fn the_first_of_two_with_one_name_counts() {
        let text = "apiVersion: tidegate.dev/v1\nkind: Template\nname: a\nappType: terminal\n";
        let told = problems(&[("a.yaml", text), ("b.yaml", text)]);
        assert_eq!(
            told,
            [("b.yaml".to_owned(), Some(3), "the template `a` is already in `a.yaml`".to_owned())]
        );
    }

    #[test]
    fn json_of_any_depth_is_refused_and_not_fallen_over() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let told = problems(&[("x/plugin.json", &deep)]);
        assert_eq!(told[0].2, "it is no JSON that is read: it is nested too deep");
        let told = problems(&[("x/plugin.json", "{\n\"name\": \"a\",\n}")]);
        assert_eq!(told[0].1, Some(3), "{told:?}");
    }

    #[test]
    fn other_manifests_are_no_plugins() {
        assert!(!looks_like_a_plugin(br#"{"name": "App", "start_url": "/"}"#));
        assert!(!looks_like_a_plugin(br#"{"type": "module"}"#));
        assert!(looks_like_a_plugin(br#"{"type": "webhook"}"#));
        assert!(looks_like_a_plugin(br#"{"entrypoints": {}, "type": }"#));
    }

    #[test]
    fn documents_begin_where_their_lines_say() {
        assert_eq!(document_starts("a: 1\n---\nb: 2\n"), [1, 2]);
        assert_eq!(document_starts("# x\n---\na: 1\n---\nb: 2\n"), [1, 4]);
    }
}
