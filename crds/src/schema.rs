//! From types to the CRD's YAML: schemas of embedded Kubernetes types, and the clean-up of what derives leave.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::CacheCluster;
use crate::reasons::{condition, reason};

/// Largest CRD that is allowed, bytes of YAML: kubectl's client-side apply has to fit it into an
/// annotation (262,144 bytes), and users have to be able to read it.
pub const CRD_BYTES_MAX: usize = 100_000;

/// The CustomResourceDefinition of CacheCluster, as it is checked in and installed.
pub fn crd() -> CustomResourceDefinition {
    let mut value = serde_json::to_value(CacheCluster::crd()).unwrap_or_default();
    tidy(&mut value);
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/status";
    if let Some(status) = value.pointer_mut(schema) {
        status["default"] = first_status();
    }
    // Both directions are ours: a value that was a CRD a moment ago is still one.
    serde_json::from_value(value).unwrap_or_else(|_| CacheCluster::crd())
}

/// The CRD as YAML, printed by a writer that quotes what YAML 1.1 readers take for booleans.
pub fn crd_yaml() -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(&crd())
}

/// The status of a CacheCluster that the operator has not looked at yet. Without it kstatus, and with it
/// every tool that waits by it, would take an object without conditions for one that is ready.
fn first_status() -> Value {
    json!({"conditions": [{
        "type": condition::READY,
        "status": "Unknown",
        "reason": reason::FORMING,
        "message": "the operator has not looked yet",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]})
}

/// Takes out what the API server does not know or that says nothing: the formats of Rust's integers,
/// and `nullable` (without it the server prunes an explicit null, so that `has()` means "is there").
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let is_schema = map.contains_key("type") || map.contains_key("enum");
            if is_schema {
                if map.get("nullable").is_some_and(Value::is_boolean) {
                    map.shift_remove("nullable");
                }
                let foreign = |f: &str| !matches!(f, "int32" | "int64" | "date-time");
                if map.get("format").and_then(Value::as_str).is_some_and(foreign) {
                    map.shift_remove("format");
                }
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// An object of Kubernetes' own whose fields Kubernetes checks when the pod is made.
pub(crate) fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of such objects.
pub(crate) fn open_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}

/// Limits and requests, without the devices and claims that a cache has no use for.
pub(crate) fn resources(_: &mut SchemaGenerator) -> Schema {
    let quantities = || {
        serde_json::json!({
            "type": "object",
            "maxProperties": 16,
            "additionalProperties": {
                "x-kubernetes-int-or-string": true,
                "maxLength": 32,
                "pattern": crate::QUANTITY_PATTERN,
            },
        })
    };
    json_schema!({
        "type": "object",
        "properties": {"limits": quantities(), "requests": quantities()},
    })
}

/// Labels or annotations.
pub(crate) fn small_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
}

/// Directives of the engine.
pub(crate) fn directives(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 128,
        "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}
