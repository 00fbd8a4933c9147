//! Typed Kubernetes client over HTTPS or in process, shared informers, work queues and event recorder.
