use super::*;

#[test]
fn names_get_registry_and_tag() {
    let cases = [
        ("busybox", "docker.io/library/busybox:latest"),
        ("library/x:1", "docker.io/library/x:1"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("kube1.local/pause:1", "kube1.local/pause:1"),
        ("r.example/a@sha256:00", "r.example/a@sha256:00"),
    ];
    for (given, wanted) in cases {
        assert_eq!(normalize(given), wanted);
    }
}

#[test]
fn an_index_that_contains_itself_is_followed_once_and_a_deep_one_is_refused() {
    let index = |child: &str| {
        format!(
            r#"{{"manifests":[{{"mediaType":"x.image.index.v1+json","digest":"sha256:{child}","size":1,"annotations":{{"io.containerd.image.name":"x"}}}}]}}"#
        )
    };
    let images = |files: Vec<(String, String)>| {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append_data(&mut header, name, content.as_bytes()).expect("memory takes it");
        }
        Archive::from_bytes(archive.into_inner().expect("memory takes it")).and_then(|archive| archive.images())
    };
    let itself = vec![("index.json".to_owned(), index("a")), ("blobs/sha256/a".to_owned(), index("a"))];
    assert_eq!(images(itself).expect("an image").iter().map(|image| image.blobs.len()).collect::<Vec<_>>(), [1]);
    let level = |n: usize| (format!("blobs/sha256/{n}"), index(&(n + 1).to_string()));
    let deep = std::iter::once(("index.json".to_owned(), index("0"))).chain((0..10_000).map(level)).collect();
    let error = images(deep).map(|images| images.len()).expect_err("too deep");
    assert!(error.to_string().contains("nested too deeply"), "{error}");
}

#[test]
fn a_damaged_archive_is_an_error_that_names_it() {
    let error = Archive::from_bytes(b"no tar at all, but longer than nothing".to_vec())
        .and_then(|a| a.images().map(drop))
        .expect_err("no archive");
    assert!(error.to_string().contains("built-in archive"), "{error}");
}
