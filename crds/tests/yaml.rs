//! The checked-in YAML is what the types generate, is small, and every example is valid.

use std::path::{Path, PathBuf};

use crds::{CacheCluster, schema};
use kube::CustomResourceExt;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn checked_in_crd_is_what_the_types_generate() {
    let generated = schema::crd_yaml().unwrap();
    // The chart can read no file outside of itself, so that it has a copy.
    for path in ["crds/cacheclusters.yaml", "charts/larder/files/cacheclusters.yaml"] {
        let checked_in = std::fs::read_to_string(root().join(path)).unwrap();
        assert!(checked_in == generated, "run: cargo run -p crds > {path}");
    }
}

#[test]
fn crd_is_small_and_survives_a_yaml_1_1_reader() {
    let yaml = schema::crd_yaml().unwrap();
    assert!(yaml.len() < schema::CRD_BYTES_MAX, "{} bytes", yaml.len());
    let read: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
    assert_eq!(read, serde_json::to_value(schema::crd()).unwrap());
    // kubectl reads YAML 1.1, in which a bare no is false: the enum of fsync holds that very word.
    assert!(yaml.contains("- \"no\"\n"), "the word no must be quoted");
}

#[test]
fn words_that_yaml_1_1_takes_for_something_else_are_quoted() {
    for word in ["no", "on", "yes", "off", "y", "n", "No", "ON", "true", "null", "1_000", "017"] {
        let yaml =
            serde_saphyr::to_string(&std::collections::BTreeMap::from([("k", word)])).unwrap();
        assert!(
            yaml.trim() == format!("k: \"{word}\"") || yaml.trim() == format!("k: '{word}'"),
            "{word} is printed as {yaml}"
        );
    }
}

#[test]
fn nothing_of_the_embedded_types_is_described_twice() {
    let crd = schema::crd();
    assert_eq!(crd.metadata.name.as_deref(), Some(CacheCluster::crd_name()));
    let json = serde_json::to_string(&crd).unwrap();
    for foreign in ["\"nullable\"", "\"uint16\"", "\"$ref\"", "requiredDuringScheduling"] {
        assert!(!json.contains(foreign), "{foreign}");
    }
}

#[test]
fn every_example_parses_and_passes_the_rules() {
    let schema = serde_json::to_value(
        schema::crd().spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref(),
    )
    .unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let object: CacheCluster = serde_json::from_value(value.clone()).unwrap();
        kube::core::cel::Validator::new()
            .validate(&schema, &value, None)
            .unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
        // What is written but not understood would be dropped in silence.
        let back = serde_json::to_value(&object.spec).unwrap();
        for field in value["spec"].as_object().unwrap().keys() {
            assert!(!back[field].is_null(), "{}: {field} is unknown", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 4, "{seen} examples");
}

#[test]
fn minimal_example_has_five_lines_and_the_defaults_of_the_crd() {
    let text = std::fs::read_to_string(root().join("examples/minimal.yaml")).unwrap();
    assert_eq!(text.lines().count(), 5);
    let object: CacheCluster = serde_yaml::from_str(&text).unwrap();
    assert_eq!(object.spec.replicas_per_shard, 1);
    assert_eq!(object.spec.memory, "256Mi");
    assert_eq!(object.spec.failure_timeout, "1s");
    assert_eq!(object.spec.persistence, None);
}

/// kstatus reads an object without conditions as one that is ready: the API server fills in this one.
#[test]
fn object_that_nobody_has_looked_at_is_not_ready() {
    let crd = serde_json::to_value(schema::crd()).unwrap();
    let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let first: crds::CacheClusterStatus =
        serde_json::from_value(status["default"].clone()).unwrap();
    assert_eq!(first.condition("Ready").unwrap().status, "Unknown");
    assert_eq!(first.observed_generation, None);
}
