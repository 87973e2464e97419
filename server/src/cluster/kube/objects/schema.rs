//! Schemas of values whose grammar the domain's types hold: the API server checks
//! what OpenAPI can say, and the conversion checks the rest.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A moment, RFC 3339 in UTC, to the millisecond.
pub(super) fn moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// A moment that may be absent.
pub(super) fn maybe_moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "nullable": true })
}

/// Moments.
pub(super) fn moments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 10_000, "items": { "type": "string", "format": "date-time" } })
}

/// A SHA-256 digest in hexadecimal.
pub(super) fn digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64 })
}

/// A digest that may be absent.
pub(super) fn maybe_digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64, "nullable": true })
}

/// The public part of a Berth token.
pub(super) fn token_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^([a-z2-7]{10}|[a-z0-9]{6})$", "maxLength": 10 })
}

/// The id of a join.
pub(super) fn join_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^j-[a-z2-7]{16}$", "maxLength": 18 })
}

/// The id of a join, where it may be absent.
pub(super) fn maybe_join_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^j-[a-z2-7]{16}$", "maxLength": 18, "nullable": true })
}

/// A node's or pool's name.
pub(super) fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253 })
}

/// A node's name, where it may be absent.
pub(super) fn maybe_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253, "nullable": true
    })
}

/// A pattern of names, `*` standing for any run of characters.
pub(super) fn name_pattern(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[-a-z0-9.*]+$", "maxLength": 253, "default": "*" })
}

/// A pool, `default` where none is said.
pub(super) fn pool(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 63, "default": "default"
    })
}

/// Networks in CIDR notation.
pub(super) fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 32, "items": { "type": "string", "maxLength": 49 } })
}

/// Labels of a Node.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 64, "additionalProperties": { "type": "string", "maxLength": 63 }
    })
}

/// Who makes the network of pods.
pub(super) fn pod_network(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["None", "Bridge"] })
}

/// One of the five phases.
pub(super) fn phase(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": ["initialization", "authentication", "authorization", "configuration", "registration"]
    })
}

/// An object whose form the program alone knows.
pub(super) fn open(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Such an object in a status, where it may be absent. It is owned as a whole: an
/// entry in `managedFields` for each of its leaves would cost every write.
pub(super) fn maybe_open(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// Events, a line of JSON each.
pub(super) fn events(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 1_048_576 })
}

/// A value in a form that no schema sees into, where it may be absent.
pub(super) fn maybe_packed(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 1_048_576, "nullable": true })
}

/// When each phase was reached.
pub(super) fn reached(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": { "type": "string", "format": "date-time" }
    })
}

/// Where a join comes from.
pub(super) fn maybe_origin(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "required": ["token", "source", "agentVersion"],
        "properties": {
            "token": { "type": "string", "pattern": "^([a-z2-7]{10}|[a-z0-9]{6})$", "maxLength": 10 },
            "source": { "type": "string", "maxLength": 128 },
            "agentVersion": { "type": "string", "maxLength": 512 },
            "traceId": { "type": "string", "maxLength": 64, "nullable": true }
        }
    })
}

/// A certificate as it was authorized.
pub(super) fn certificate(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["notBefore", "notAfter"],
        "properties": {
            "serial": { "type": "string", "maxLength": 40, "nullable": true },
            "notBefore": { "type": "string", "format": "date-time" },
            "notAfter": { "type": "string", "format": "date-time" }
        }
    })
}

/// Who took a token back, and when.
pub(super) fn maybe_revocation(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "required": ["at", "by"],
        "properties": {
            "at": { "type": "string", "format": "date-time" },
            "by": { "type": "string", "maxLength": 512 }
        }
    })
}

/// Conditions in the Kubernetes manner. The list is one value to server-side apply:
/// Berth alone writes it, and the owner of each field would be kept beside it.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "maxLength": 316 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024 },
                "message": { "type": "string", "maxLength": 32768 }
            }
        }
    })
}
