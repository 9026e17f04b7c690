//! The reference of the manifest, out of the CRD's own schema.

use std::fmt::Write as _;

use serde_json::Value;

/// Depth at which an embedded object of Kubernetes is only named.
const DEPTH_MAX: usize = 4;

/// The page `docs/manifest.md`. A test compares it with what is checked in.
pub(super) fn markdown() -> String {
    let schema = super::manifest::schema();
    let mut out = String::from(
        "# The manifest\n\n\
         Generated from the types by `larder reference`; a test compares it with them.\n\n\
         `apiVersion: larder.dev/v1alpha1`, `kind: CacheCluster`, short name `cc`. The name has at \
         most 40 characters.\n\n",
    );
    for (part, title) in [("spec", "What is wanted: spec"), ("status", "What is: status")] {
        let _ =
            writeln!(out, "## {title}\n\n| field | type | default | meaning |\n|---|---|---|---|");
        rows(&mut out, part, &schema["properties"][part], 0);
        out.push('\n');
    }
    out.push_str("## Rules\n\nChecked by the API server when the manifest is applied:\n\n");
    rules(&mut out, "spec", &schema);
    out.push_str("\n## What the plan does\n\nThe rules of the plan, the most urgent first:\n\n");
    for (at, rule) in crate::plan::RULES.iter().enumerate() {
        let _ = writeln!(out, "{}. **{}**: {}", at + 1, rule.name, rule.doc);
    }
    out
}

fn rows(out: &mut String, path: &str, schema: &Value, depth: usize) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, field) in properties {
        let inner = format!("{path}.{name}");
        let default = match field.get("default") {
            Some(value) => format!("`{}`", plain(value)),
            None if required.contains(&name.as_str()) && path == "spec" => "required".into(),
            None => String::new(),
        };
        let text = field["description"].as_str().unwrap_or_default();
        let text = text.replace('\n', " ").replace('|', "\\|");
        let _ =
            writeln!(out, "| `{inner}` | {} | {default} | {text}{} |", kind(field), bounds(field));
        if depth < DEPTH_MAX {
            rows(out, &inner, field, depth + 1);
            if field["items"].get("properties").is_some() {
                rows(out, &format!("{inner}[]"), &field["items"], depth + 1);
            }
        }
    }
}

fn kind(field: &Value) -> String {
    match field["type"].as_str() {
        Some("array") => format!("list of {}", kind(&field["items"])),
        Some("object") if field.get("additionalProperties").is_some() => "map".into(),
        Some(kind) => kind.into(),
        None => "string or integer".into(),
    }
}

fn bounds(field: &Value) -> String {
    let mut out = String::new();
    if let Some(values) = field["enum"].as_array() {
        let names: Vec<String> = values.iter().map(|v| format!("`{}`", plain(v))).collect();
        let _ = write!(out, " One of {}.", names.join(", "));
    }
    match (field["minimum"].as_f64(), field["maximum"].as_f64()) {
        (Some(min), Some(max)) => {
            let _ = write!(out, " From {min} to {max}.");
        }
        (Some(min), None) => {
            let _ = write!(out, " At least {min}.");
        }
        _ => {}
    }
    out
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToString::to_string)
}

/// Messages of the CEL rules, in the order of the fields.
fn rules(out: &mut String, path: &str, schema: &Value) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if let Some(message) = rule["message"].as_str() {
            let _ = writeln!(out, "- {message}");
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if name != "status" {
            rules(out, &format!("{path}.{name}"), inner);
        }
    }
    if let Some(items) = schema.get("items") {
        rules(out, path, items);
    }
}

#[cfg(test)]
mod tests {
    /// `UPDATE=1` writes the page.
    #[test]
    fn the_page_is_what_the_types_say() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/manifest.md");
        let fresh = super::markdown();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(page, &fresh).unwrap();
        }
        assert_eq!(std::fs::read_to_string(page).unwrap(), fresh, "UPDATE=1 writes it");
    }
}
