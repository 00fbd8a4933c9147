//! Metrics that the whole process counts together: those of clients, work queues and components, of which a process
//! has many and its readers want one sum.

use std::fmt;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use super::family::Registrar;

type Look = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
struct Shared {
    registrar: Registrar,
    looks: Vec<Look>,
}

static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);

/// Takes metrics in, each once in a process: to be called from a `LazyLock`.
pub fn shared<T>(register: impl FnOnce(&mut Registrar) -> T) -> T {
    register(&mut SHARED.lock().registrar)
}

/// Calls `look` before each time that the metrics are read, until it returns false: for what is cheaper to look up than to
/// keep up to date.
pub fn look_when_read(look: impl Fn() -> bool + Send + Sync + 'static) {
    SHARED.lock().looks.push(Arc::new(look));
}

/// The text that Prometheus reads, in its classic format.
pub fn render_shared() -> Result<String, fmt::Error> {
    let looks = SHARED.lock().looks.clone();
    let ended: Vec<*const ()> = looks.iter().filter(|look| !look()).map(|look| Arc::as_ptr(look).cast()).collect();
    let mut shared = SHARED.lock();
    shared.looks.retain(|look| !ended.contains(&Arc::as_ptr(look).cast()));
    shared.registrar.render()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_is_looked_up_is_up_to_date_when_read() {
        let gauges = shared(|r| r.gauges("test_looked_up", "Looked up.", &["name"]));
        let goes_on = Arc::new(AtomicBool::new(true));
        let (seen, told) = (goes_on.clone(), gauges.clone());
        look_when_read(move || {
            told.add(&["a"], 1.0);
            seen.load(Ordering::Relaxed)
        });
        for expected in ["1", "2"] {
            assert!(render_shared().is_ok_and(|t| t.contains(&format!("test_looked_up{{name=\"a\"}} {expected}"))));
        }
        goes_on.store(false, Ordering::Relaxed);
        assert!(render_shared().is_ok() && render_shared().is_ok());
        assert_eq!(gauges.at(&["a"]).get(), 3.0, "it was not called after it said no");
    }
}
