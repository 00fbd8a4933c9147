//! Cron jobs.

use super::job_spec;
use crate::validate::at::{At, same};
use crate::validate::{Errors, schedule};

pub(in crate::validate) fn cron_job(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (schedule, zone) = (spec.get("schedule"), spec.get("timeZone"));
    if schedule.need(errors) {
        if let Err(problem) = schedule::check(schedule.text()) {
            schedule.invalid(errors, problem);
        }
        let has_zone = schedule.text().contains("TZ");
        let had_zone = old.is_some_and(|old| old.str("spec.schedule").contains("TZ"));
        if has_zone && had_zone && zone.is_set() {
            schedule.invalid(errors, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        } else if has_zone && !had_zone {
            schedule.invalid(errors, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    spec.get("startingDeadlineSeconds").not_negative(errors);
    if old.is_none_or(|old| !same(old.get("spec.timeZone").value, zone.value)) {
        time_zone(&zone, errors);
    }
    spec.get("concurrencyPolicy").need(errors);
    let job = spec.get("jobTemplate.spec");
    job_spec(&job, old.map(|o| &o.value["spec"]["jobTemplate"]["spec"]), errors);
    if job.get("selector").is_set() {
        job.get("selector").invalid(errors, "`selector` will be auto-generated");
    }
    if job.get("manualSelector").is_true() {
        job.get("manualSelector").not_supported(errors, &["nil", "false"]);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.get(field).not_negative(errors);
    }
}

fn time_zone(zone: &At, errors: &mut Errors) {
    let name = zone.text();
    if !zone.is_set() {
        return;
    }
    if name.is_empty() {
        return zone.invalid(errors, "timeZone must be nil or non-empty string");
    }
    let byte = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
    let part = |part: &str| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part.bytes().all(byte)
    };
    if !name.split('/').all(part) {
        return zone.invalid(errors, format!("unknown time zone {name}"));
    }
    if name.eq_ignore_ascii_case("local") {
        zone.invalid(errors, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    }
    // Go knows UTC and Local by these names without looking for them.
    if !matches!(name, "UTC" | "Local") && jiff::tz::TimeZone::get(name).is_err() {
        zone.invalid(errors, format!("unknown time zone {name}"));
    }
}
