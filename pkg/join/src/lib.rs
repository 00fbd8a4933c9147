//! Join tokens, CA pinning and TLS bootstrap.
