//! The manifest from a file, checked without an API server: against the CRD's schema, field by field.

use std::path::Path;

use crds::CacheCluster;
use serde::Deserialize as _;
use serde_json::Value;

use crate::Error;
use crate::desired::Desired;

/// A manifest that was understood.
pub(super) struct Manifest {
    pub(super) cluster: CacheCluster,
    pub(super) desired: Desired,
}

/// Reads the first CacheCluster of a file.
pub(super) fn read(file: &Path) -> Result<Manifest, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::world(format!("read {}", file.display()), e))?;
    parse(&text).map_err(|e| match e {
        Error::Invalid { field, message } => {
            Error::Invalid { field: format!("{}: {field}", file.display()), message }
        }
        world @ Error::World { .. } => world,
    })
}

fn parse(text: &str) -> Result<Manifest, Error> {
    let invalid = |field: &str, message: String| Error::Invalid { field: field.into(), message };
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|e| invalid("YAML", e.to_string()))?;
        if value.get("kind").and_then(Value::as_str) != Some("CacheCluster") {
            continue;
        }
        let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if version != "larder.dev/v1alpha1" {
            let message = format!("must be larder.dev/v1alpha1, and is {version:?}");
            return Err(invalid("apiVersion", message));
        }
        let schema = schema();
        let spec = value.get("spec").unwrap_or(&Value::Null);
        check("spec", spec, &schema["properties"]["spec"])?;
        let cluster: CacheCluster =
            serde_json::from_value(value).map_err(|e| invalid("spec", e.to_string()))?;
        let desired = Desired::of(&cluster)?;
        // Here the engine's version is ours, so that its table can be asked.
        crate::desired::check_config(&cluster.spec)?;
        return Ok(Manifest { cluster, desired });
    }
    Err(invalid("kind", "no CacheCluster is in this file".into()))
}

/// The schema of the kind, as the API server has it.
pub(super) fn schema() -> Value {
    let crd = serde_json::to_value(crds::schema::crd()).unwrap_or_default();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Types, enumerations, bounds, required and unknown fields. What a pattern or a CEL rule says is
/// said by `Desired::of`, in better words.
fn check(field: &str, value: &Value, schema: &Value) -> Result<(), Error> {
    let refuse =
        |field: &str, message: String| Err(Error::Invalid { field: field.to_string(), message });
    let preserved = schema["x-kubernetes-preserve-unknown-fields"] == true
        || schema["x-kubernetes-int-or-string"] == true;
    let (is, fits) = match value {
        Value::Null => ("nothing", false),
        Value::Bool(_) => ("true or false", schema["type"] == "boolean"),
        Value::Number(n) => {
            let whole = n.is_i64() || n.is_u64();
            ("a number", schema["type"] == "number" || schema["type"] == "integer" && whole)
        }
        Value::String(_) => ("a string", schema["type"] == "string"),
        Value::Array(_) => ("a list", schema["type"] == "array"),
        Value::Object(_) => ("an object", schema["type"] == "object"),
    };
    if !fits && !preserved {
        let wanted = schema["type"].as_str().unwrap_or("something else");
        return refuse(field, format!("must be of type {wanted}, and is {is}"));
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|a| !a.contains(value)) {
        let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        return refuse(field, format!("must be one of {}, and is {value}", names.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        let (min, max) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        if min.is_some_and(|m| number < m) || max.is_some_and(|m| number > m) {
            let min = min.map_or(String::new(), |m| format!(" at least {m}"));
            let max = max.map_or(String::new(), |m| format!(" at most {m}"));
            return refuse(field, format!("must be{min}{max}, and is {value}"));
        }
    }
    match value {
        Value::Object(map) => {
            for required in schema["required"].as_array().into_iter().flatten() {
                let name = required.as_str().unwrap_or_default();
                if !map.contains_key(name) {
                    return refuse(&format!("{field}.{name}"), "is missing".into());
                }
            }
            for (name, inner) in map {
                let path = format!("{field}.{name}");
                match (schema["properties"].get(name), schema.get("additionalProperties")) {
                    (Some(known), _) => check(&path, inner, known)?,
                    (None, Some(any)) => check(&path, inner, any)?,
                    (None, None) if preserved => {}
                    (None, None) => return refuse(&path, "is not a field of CacheCluster".into()),
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                check(&format!("{field}[{at}]"), item, &schema["items"])?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(spec: &str) -> String {
        let head = "apiVersion: larder.dev/v1alpha1\nkind: CacheCluster\nmetadata: {name: demo}\n";
        match parse(&format!("{head}spec: {spec}\n")) {
            Ok(_) => "taken".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_wrong_field_is_named() {
        let cases = [
            ("{shards: 3}", "taken"),
            ("{}", "spec.shards: is missing"),
            ("{shards: 0}", "spec.shards: must be at least 1 at most 500, and is 0"),
            ("{shards: three}", "spec.shards: must be of type integer, and is a string"),
            ("{shards: 3, replica: 1}", "spec.replica: is not a field of CacheCluster"),
            ("{shards: 1, memory: 1Mi}", "spec.memory: must be a quantity of at least 16Mi"),
            (
                "{shards: 1, persistence: {volume: {size: 1Gi}}}",
                "spec.persistence.volume: needs aof or rdb: without them nothing is written to it",
            ),
            (
                "{shards: 1, config: {requirepass: x}}",
                "spec.config.requirepass: is set by Larder; use memory, eviction, persistence, auth, tls, memcached",
            ),
            (
                "{shards: 1, config: {no-such: x}}",
                "spec.config.no-such: is not a directive of the engine",
            ),
        ];
        for (spec, said) in cases {
            assert_eq!(refusal(spec), said, "{spec}");
        }
        assert!(refusal("{shards: 1, eviction: Lru}").starts_with("spec.eviction: must be one of"));
    }

    #[test]
    fn the_first_cache_cluster_of_a_file_counts() {
        let text = "kind: Secret\n---\napiVersion: larder.dev/v1alpha1\nkind: CacheCluster\n\
                    metadata: {name: two}\nspec: {shards: 2}\n";
        assert_eq!(parse(text).unwrap().desired.name, "two");
        assert!(parse("kind: Secret\n").is_err());
    }
}
