//! The Kubernetes API as data: resource table, schemas, codecs, defaulting, validation, patches, selectors, tables and OpenAPI. No I/O, no async.
