//! What a container's lifecycle hooks do.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use kube1_cri::Runtime;

use crate::probe::{HttpTarget, Target, get};

/// Runs a hook to its end. The error is what the hook's failed event shows.
pub async fn run(runtime: &Runtime, target: &Target, hook: &LifecycleHandler, limit: Duration) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        let answer = runtime.exec_sync(&target.container_id, command, limit).await.map_err(|e| e.to_string())?;
        if answer.exit_code == 0 {
            return Ok(());
        }
        let output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
        return Err(format!("command '{shown}' exited with {}: {output}", answer.exit_code));
    }
    if let Some(action) = &hook.http_get {
        let http = HttpTarget::new(action, target).ok_or("the hook's port has no number")?;
        // Any answer will do: upstream takes only a failed connection for a failed hook.
        return match tokio::time::timeout(limit.max(Duration::from_secs(1)), get(&http)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("Get \"{}\": {error}", http.url())),
            Err(_) => Err(format!("Get \"{}\": context deadline exceeded", http.url())),
        };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("the hook has no handler".to_owned())
}
