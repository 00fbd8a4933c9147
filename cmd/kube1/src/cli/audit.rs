//! Flags of auditing, under the names that kube-apiserver has for them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use kube1_apiserver::audit::{AuditOptions, BatchOptions, Format, LogOptions, Mode, Truncation, WebhookOptions};

use super::front::duration;

/// How requests and the writing of audit events wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditMode {
    Batch,
    Blocking,
    BlockingStrict,
}

impl From<AuditMode> for Mode {
    fn from(mode: AuditMode) -> Self {
        match mode {
            AuditMode::Batch => Self::Batch,
            AuditMode::Blocking => Self::Blocking,
            AuditMode::BlockingStrict => Self::BlockingStrict,
        }
    }
}

/// How the log tells events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditFormat {
    Json,
    Legacy,
}

impl From<AuditFormat> for Format {
    fn from(format: AuditFormat) -> Self {
        match format {
            AuditFormat::Json => Self::Json,
            AuditFormat::Legacy => Self::Legacy,
        }
    }
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Auditing")]
pub struct AuditArgs {
    /// Policy (audit.k8s.io/v1) that says how much of which requests is audited; nothing without
    #[arg(long, env = "KUBE1_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// File that audit events are appended to, a line each; - for standard output
    #[arg(long, env = "KUBE1_AUDIT_LOG_PATH", value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Whole events as JSON, or what matters most of them as text
    #[arg(long, env = "KUBE1_AUDIT_LOG_FORMAT", value_enum, default_value_t = AuditFormat::Json)]
    pub audit_log_format: AuditFormat,
    /// Version of the events in the log
    #[arg(long, env = "KUBE1_AUDIT_LOG_VERSION", default_value = "audit.k8s.io/v1", value_parser = ["audit.k8s.io/v1"])]
    pub audit_log_version: String,
    /// Days that old audit logs are kept; 0 for no limit
    #[arg(long, env = "KUBE1_AUDIT_LOG_MAXAGE", default_value_t = 0, value_name = "DAYS")]
    pub audit_log_maxage: u64,
    /// Old audit logs that are kept; 0 for no limit
    #[arg(long, env = "KUBE1_AUDIT_LOG_MAXBACKUP", default_value_t = 0, value_name = "COUNT")]
    pub audit_log_maxbackup: usize,
    /// Megabytes after which a new audit log is begun
    #[arg(long, env = "KUBE1_AUDIT_LOG_MAXSIZE", default_value_t = 100, value_name = "MB")]
    pub audit_log_maxsize: u64,
    /// Compress old audit logs with gzip
    #[arg(long, env = "KUBE1_AUDIT_LOG_COMPRESS")]
    pub audit_log_compress: bool,
    /// Whether requests wait until their events are written
    #[arg(long, env = "KUBE1_AUDIT_LOG_MODE", value_enum, default_value_t = AuditMode::Blocking)]
    pub audit_log_mode: AuditMode,
    /// In batch mode: events that may wait to be written; more are dropped and counted
    #[arg(long, env = "KUBE1_AUDIT_LOG_BATCH_BUFFER_SIZE", default_value_t = 10_000, value_name = "COUNT")]
    pub audit_log_batch_buffer_size: usize,
    /// In batch mode: events that are waited for before some are written
    #[arg(long, env = "KUBE1_AUDIT_LOG_BATCH_MAX_SIZE", default_value_t = 1, value_name = "COUNT")]
    pub audit_log_batch_max_size: usize,
    /// In batch mode: longest wait before fewer events are written
    #[arg(long, env = "KUBE1_AUDIT_LOG_BATCH_MAX_WAIT", value_parser = duration, default_value = "0s", value_name = "TIME")]
    pub audit_log_batch_max_wait: Duration,
    /// In batch mode: limit how often events are written
    #[arg(long, env = "KUBE1_AUDIT_LOG_BATCH_THROTTLE_ENABLE", default_value_t = false, action = ArgAction::Set, value_name = "BOOL")]
    pub audit_log_batch_throttle_enable: bool,
    /// Batches a second
    #[arg(long, env = "KUBE1_AUDIT_LOG_BATCH_THROTTLE_QPS", default_value_t = 0.0, value_parser = rate, value_name = "RATE")]
    pub audit_log_batch_throttle_qps: f64,
    /// Batches written at once after a pause
    #[arg(long, env = "KUBE1_AUDIT_LOG_BATCH_THROTTLE_BURST", default_value_t = 0, value_name = "COUNT")]
    pub audit_log_batch_throttle_burst: u32,
    /// Leave the bodies of requests and answers out of events that are too long
    #[arg(long, env = "KUBE1_AUDIT_LOG_TRUNCATE_ENABLED")]
    pub audit_log_truncate_enabled: bool,
    /// Longest batch in bytes
    #[arg(long, env = "KUBE1_AUDIT_LOG_TRUNCATE_MAX_BATCH_SIZE", default_value_t = 10_485_760, value_name = "BYTES")]
    pub audit_log_truncate_max_batch_size: usize,
    /// Longest event in bytes; one that is longer even without bodies is dropped and counted
    #[arg(long, env = "KUBE1_AUDIT_LOG_TRUNCATE_MAX_EVENT_SIZE", default_value_t = 102_400, value_name = "BYTES")]
    pub audit_log_truncate_max_event_size: usize,
    /// Kubeconfig of a server that audit events are sent to
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Version of the events sent
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_VERSION", default_value = "audit.k8s.io/v1", value_parser = ["audit.k8s.io/v1"])]
    pub audit_webhook_version: String,
    /// Whether requests wait until their events are sent
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_MODE", value_enum, default_value_t = AuditMode::Batch)]
    pub audit_webhook_mode: AuditMode,
    /// Pause before a failed sending is tried again; it grows
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_INITIAL_BACKOFF", value_parser = duration, default_value = "10s", value_name = "TIME")]
    pub audit_webhook_initial_backoff: Duration,
    /// Events that may wait to be sent; more are dropped and counted
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE", default_value_t = 10_000, value_name = "COUNT")]
    pub audit_webhook_batch_buffer_size: usize,
    /// Most events sent at once
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_MAX_SIZE", default_value_t = 400, value_name = "COUNT")]
    pub audit_webhook_batch_max_size: usize,
    /// Longest wait before fewer events are sent
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_MAX_WAIT", value_parser = duration, default_value = "30s", value_name = "TIME")]
    pub audit_webhook_batch_max_wait: Duration,
    /// Limit how often events are sent
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_THROTTLE_ENABLE", default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub audit_webhook_batch_throttle_enable: bool,
    /// Batches a second
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_THROTTLE_QPS", default_value_t = 10.0, value_parser = rate, value_name = "RATE")]
    pub audit_webhook_batch_throttle_qps: f64,
    /// Batches sent at once after a pause
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_BATCH_THROTTLE_BURST", default_value_t = 15, value_name = "COUNT")]
    pub audit_webhook_batch_throttle_burst: u32,
    /// Leave the bodies of requests and answers out of events that are too long
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_TRUNCATE_ENABLED")]
    pub audit_webhook_truncate_enabled: bool,
    /// Longest batch in bytes
    #[arg(
        long,
        env = "KUBE1_AUDIT_WEBHOOK_TRUNCATE_MAX_BATCH_SIZE",
        default_value_t = 10_485_760,
        value_name = "BYTES"
    )]
    pub audit_webhook_truncate_max_batch_size: usize,
    /// Longest event in bytes; one that is longer even without bodies is dropped and counted
    #[arg(long, env = "KUBE1_AUDIT_WEBHOOK_TRUNCATE_MAX_EVENT_SIZE", default_value_t = 102_400, value_name = "BYTES")]
    pub audit_webhook_truncate_max_event_size: usize,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    if rate.is_finite() && rate >= 0.0 { Ok(rate) } else { Err("must not be negative".to_owned()) }
}

impl AuditArgs {
    pub(super) fn options(&self) -> AuditOptions {
        // Without a rate there is no limit.
        let throttle = |on: bool, rate: f64, burst| (on && rate > 0.0).then_some((rate, burst));
        AuditOptions {
            policy_file: self.audit_policy_file.clone(),
            log: self.audit_log_path.as_ref().map(|path| LogOptions {
                path: path.clone(),
                max_age: self.audit_log_maxage,
                max_backups: self.audit_log_maxbackup,
                max_size: self.audit_log_maxsize,
                compress: self.audit_log_compress,
                format: self.audit_log_format.into(),
            }),
            log_mode: self.audit_log_mode.into(),
            log_batch: BatchOptions {
                buffer: self.audit_log_batch_buffer_size,
                max_size: self.audit_log_batch_max_size,
                max_wait: self.audit_log_batch_max_wait,
                throttle: throttle(
                    self.audit_log_batch_throttle_enable,
                    self.audit_log_batch_throttle_qps,
                    self.audit_log_batch_throttle_burst,
                ),
            },
            log_truncation: self.audit_log_truncate_enabled.then_some(Truncation {
                max_batch: self.audit_log_truncate_max_batch_size,
                max_event: self.audit_log_truncate_max_event_size,
            }),
            webhook: self.audit_webhook_config_file.as_ref().map(|file| WebhookOptions {
                config_file: file.clone(),
                mode: self.audit_webhook_mode.into(),
                batch: BatchOptions {
                    buffer: self.audit_webhook_batch_buffer_size,
                    max_size: self.audit_webhook_batch_max_size,
                    max_wait: self.audit_webhook_batch_max_wait,
                    throttle: throttle(
                        self.audit_webhook_batch_throttle_enable,
                        self.audit_webhook_batch_throttle_qps,
                        self.audit_webhook_batch_throttle_burst,
                    ),
                },
                truncation: self.audit_webhook_truncate_enabled.then_some(Truncation {
                    max_batch: self.audit_webhook_truncate_max_batch_size,
                    max_event: self.audit_webhook_truncate_max_event_size,
                }),
                initial_backoff: self.audit_webhook_initial_backoff,
            }),
        }
    }
}
