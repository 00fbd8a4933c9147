//! How fast objects are written as protobuf and read from it: `cargo run --release -p kube1-api --example transcode_rate FILE.json`
//! with an object of any kind, or several of one kind: of all of them a list is made over and over.

use std::hint::black_box;
use std::time::Instant;

use kube1_api::codec::encode_canonical;
use kube1_api::codec::protobuf::{self, ListEncoder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut objects = Vec::new();
    for file in std::env::args().skip(1) {
        objects.push(serde_json::from_slice::<serde_json::Value>(&std::fs::read(file)?)?);
    }
    let value = objects.first().ok_or("name files with objects of one kind in JSON")?;
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let (api_version, kind, json) = (text("apiVersion"), text("kind"), encode_canonical(value));
    let bytes = protobuf::encode_text(&api_version, &kind, &json).ok_or("the kind has no protobuf form")?;
    println!("json: {} bytes, protobuf: {} bytes", json.len(), bytes.len());
    rate("to protobuf", json.len(), || protobuf::encode_text(&api_version, &kind, black_box(&json)).is_some());
    let mut list = ListEncoder::new(&api_version, &format!("{kind}List")).ok_or("the kind has no list")?;
    let items: Vec<_> = objects.iter().map(encode_canonical).collect();
    let (mut out, mut next) = (Vec::new(), 0);
    rate("to a list in protobuf", items.iter().map(Vec::len).sum::<usize>() / items.len(), || {
        out.clear();
        list.item(&mut out, black_box(&items[next % items.len()]));
        next += 1;
        !out.is_empty()
    });
    rate("from protobuf", bytes.len(), || protobuf::decode_object(black_box(&bytes)).is_ok());
    Ok(())
}

fn rate(name: &str, size: usize, mut once: impl FnMut() -> bool) {
    let (mut times, began) = (0_u32, Instant::now());
    while began.elapsed().as_secs() < 2 {
        for _ in 0..1000 {
            assert!(once());
        }
        times += 1000;
    }
    let each = began.elapsed().as_secs_f64() / f64::from(times);
    println!("{name}: {:.2} us, {:.0} MB/s", each * 1e6, size as f64 / each / 1e6);
}
