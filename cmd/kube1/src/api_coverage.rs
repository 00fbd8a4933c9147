//! `kube1 api-coverage`: which operations of an OpenAPI document are served.

use std::io::Write;

use anyhow::Context;
use http::Request;
use kube::client::Body;
use kube1_api::openapi::coverage::{self, Coverage, Probe, Route};
use kube1_api::resource::ResourceTable;
use serde_json::Value;

use crate::cli::ApiCoverageArgs;

/// Prints both lists; fails if anything is missing that is on by default.
pub async fn run(args: &ApiCoverageArgs) -> anyhow::Result<()> {
    let table = ResourceTable::builtin();
    let routes = match &args.document {
        Some(file) => {
            let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let document: Value =
                serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", file.display()))?;
            coverage::routes(&document)
                .with_context(|| format!("{} is no OpenAPI document: it has no paths", file.display()))?
        }
        None => coverage::own_routes(&table),
    };
    let found = match &args.server {
        Some(kubeconfig) => ask(&kube1_client::from_kubeconfig(kubeconfig).await?, routes).await?,
        None => coverage::coverage_by_table(routes, &table),
    };
    print(&found).context("cannot print the report")?;
    anyhow::ensure!(found.missing.is_empty(), "{} operations are not served", found.missing.len());
    Ok(())
}

/// Sends a harmless request for each operation.
async fn ask(client: &kube::Client, routes: Vec<Route>) -> anyhow::Result<Coverage> {
    let mut served = std::collections::BTreeSet::new();
    for route in &routes {
        let probe = route.probe();
        let request = request(&probe).with_context(|| format!("cannot ask for {}", route.path))?;
        let response = client.send(request).await.with_context(|| format!("cannot ask for {}", probe.target))?;
        let code = response.status().as_u16();
        // Other bodies may be watches without end.
        let body = if code == 404 { response.into_body().collect_bytes().await? } else { Default::default() };
        if probe.is_served(code, &body) {
            served.insert(route.clone());
        }
    }
    Ok(coverage::coverage(routes, |route| served.contains(route)))
}

fn request(probe: &Probe) -> Result<Request<Body>, http::Error> {
    let request = Request::builder().method(probe.method.as_str()).uri(&probe.target);
    match probe.content_type {
        Some(media) => request.header(http::header::CONTENT_TYPE, media).body(Body::from(b"{}".to_vec())),
        None => request.body(Body::empty()),
    }
}

fn print(found: &Coverage) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let lists = [
        ("served", &found.served),
        ("not served", &found.missing),
        ("not served, as alpha and beta versions are off by default", &found.off),
    ];
    for (title, routes) in lists {
        writeln!(out, "{title}: {}", routes.len())?;
        for route in routes.iter() {
            writeln!(out, "  {:<7} {:<17} {}", route.method.to_uppercase(), route.action, route.path)?;
        }
    }
    Ok(())
}
