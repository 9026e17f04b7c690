//! The house rules that a machine can check, over every file that is part of the project.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that must not stand in source. Each is written in two halves, so that this file keeps the rule too.
const BANNED: &[(&str, &str)] = &[
    (concat!("to", "do!("), "say what cannot be done by an error"),
    (concat!("TO", "DO"), "do it, or do not mention it"),
    (concat!("FIX", "ME"), "do it, or do not mention it"),
    (concat!("db", "g!("), "take it out"),
    (concat!("unimple", "mented!("), "say what cannot be done by an error"),
    (concat!("\"/wo", "rk/"), "a path of one machine"),
    (concat!("`/wo", "rk/"), "a path of one machine"),
    (concat!(" /wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/ho", "me/"), "a path of one machine"),
];

/// Longer than this, a file holds more than one idea.
const LINES_MAX: usize = 1000;

const SOURCE: &[&str] =
    &["rs", "go", "toml", "yaml", "yml", "json", "md", "tpl", "txt", "sh", "mod"];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files of the project: what is built, fetched or written by a run is none of them.
fn files() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    walk(&project(), &mut paths);
    paths.sort();
    let is_source = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        SOURCE.contains(&extension.as_str()) || path.file_name().is_some_and(|name| name == "run")
    };
    paths.retain(is_source);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(project()).unwrap().to_owned(), text)
    };
    paths.into_iter().map(read).collect()
}

/// Folders that are nobody's work: `.larder` is what `larder run` leaves where it was started.
const OTHERS: [&str; 5] = ["target", ".git", ".larder", "node_modules", "fixtures"];

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !entry.file_type().unwrap().is_dir() {
            out.push(path);
        } else if !OTHERS.contains(&name.as_str()) {
            walk(&path, out);
        }
    }
}

fn rust() -> impl Iterator<Item = (PathBuf, String)> {
    files().into_iter().filter(|(path, _)| path.extension().is_some_and(|found| found == "rs"))
}

fn none(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn source_is_ascii() {
    let mut broken = Vec::new();
    for (path, text) in rust() {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_ascii()) {
            broken.push(format!("{}:{}: {line}", path.display(), number + 1));
        }
    }
    none(broken);
}

#[test]
fn banned_words_are_absent() {
    let mut broken = Vec::new();
    for (path, text) in files() {
        for (number, line) in text.lines().enumerate() {
            for (word, why) in BANNED.iter().filter(|(word, _)| line.contains(word)) {
                broken.push(format!("{}:{}: {word}: {why}", path.display(), number + 1));
            }
        }
    }
    none(broken);
}

#[test]
fn no_file_is_too_long() {
    let lengths = rust().map(|(path, text)| (path, text.lines().count()));
    let too_long = lengths.filter(|(_, count)| *count > LINES_MAX);
    none(too_long.map(|(path, count)| format!("{}: {count} lines", path.display())).collect());
}

#[test]
fn every_module_says_what_it_is() {
    // Tests that stand in a file beside their module are told by it.
    let is_tests = |path: &Path| path.file_name().is_some_and(|name| name == "tests.rs");
    let silent =
        rust().filter(|(path, text)| !is_tests(path) && !text.trim_start().starts_with("//!"));
    none(silent.map(|(path, _)| format!("{}: no //! sentence", path.display())).collect());
}

#[test]
fn unsafe_stays_in_the_engine() {
    let word = concat!("uns", "afe {");
    let broken = rust().filter(|(path, text)| !path.starts_with("engine") && text.contains(word));
    none(broken.map(|(path, _)| format!("{}: {word}", path.display())).collect());
}

/// The crates that are linked into one of ours.
fn dependencies(name: &str) -> Vec<String> {
    let text = fs::read_to_string(project().join(name).join("Cargo.toml")).unwrap();
    let mut within = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            let other = line.contains("dev-") || line.contains("build-");
            within = line.ends_with("dependencies]") && !other;
        } else if within && line.starts_with(|first: char| first.is_ascii_alphabetic()) {
            found.push(line.split(['.', ' ', '=']).next().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn engine_knows_no_kubernetes() {
    let all = dependencies("engine");
    for absent in ["kube", "k8s-openapi", "crds", "operator", "e2e"] {
        assert!(!all.iter().any(|name| name == absent), "engine depends on {absent}");
    }
}

#[test]
fn crds_have_no_runtime() {
    let all = dependencies("crds");
    for absent in ["tokio", "hyper", "rustls", "engine", "operator"] {
        assert!(!all.iter().any(|name| name == absent), "crds depends on {absent}");
    }
    let text = fs::read_to_string(project().join("crds/Cargo.toml")).unwrap();
    let is_kube = |line: &&str| line.starts_with("kube ") || line.starts_with("kube.");
    let kube = text.lines().find(is_kube).unwrap_or_default();
    for absent in ["client", "runtime"] {
        assert!(!kube.contains(&format!("\"{absent}\"")), "crds takes {absent} of kube");
    }
}

#[test]
fn plan_knows_no_kubernetes_and_no_runtime() {
    let is_plan = |path: &Path| {
        path.starts_with("operator/src/plan") || path == Path::new("operator/src/plan.rs")
    };
    let mut broken = Vec::new();
    for (path, text) in rust().filter(|(path, _)| is_plan(path)) {
        for (number, line) in text.lines().enumerate() {
            for word in ["kube::", "k8s_openapi::", "tokio::", "HashMap", "HashSet"] {
                if line.contains(word) && !line.trim_start().starts_with("//") {
                    broken.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    none(broken);
}
