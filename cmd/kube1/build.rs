//! Tells the program which commit it is built from, and by which compiler: the same for every build of a commit.

use std::path::Path;
use std::process::Command;

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn main() {
    let compiler = std::env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"])).unwrap_or_default();
    println!("cargo::rustc-env=KUBE1_COMPILER={}", compiler.split(' ').nth(1).unwrap_or("unknown"));
    // Sources that come without their history are told by the environment what they are.
    for variable in ["KUBE1_GIT_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let given = std::env::var("KUBE1_GIT_COMMIT").ok();
    let commit = given.clone().or_else(|| output("git", &["rev-parse", "HEAD"])).unwrap_or_default();
    let dirty =
        || output("git", &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    let tree = match (commit.is_empty(), given) {
        (true, _) => "archive",
        (false, None) if dirty() => "dirty",
        (false, _) => "clean",
    };
    let date = std::env::var("SOURCE_DATE_EPOCH").ok().or_else(|| output("git", &["log", "-1", "--format=%ct"]));
    println!("cargo::rustc-env=KUBE1_GIT_COMMIT={commit}");
    println!("cargo::rustc-env=KUBE1_GIT_TREE_STATE={tree}");
    println!("cargo::rustc-env=KUBE1_BUILD_EPOCH={}", date.unwrap_or_else(|| "0".into()));
    // HEAD names a branch, whose file changes with each commit.
    for name in ["HEAD".to_owned(), output("git", &["symbolic-ref", "HEAD"]).unwrap_or_default()] {
        let path = output("git", &["rev-parse", "--git-path", &name]).filter(|path| Path::new(path).is_file());
        if let Some(path) = path {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}
