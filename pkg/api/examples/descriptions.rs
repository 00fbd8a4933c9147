//! Makes `src/data/descriptions.json.gz` from the sources of the k8s-openapi crate:
//! `cargo run -p kube1-api --example descriptions -- FOLDER`, with the folder of its newest version (`src/v1_36`).
//!
//! The crate's own JSON schemas are read as text, because building it with them takes minutes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

type BoxError = Box<dyn std::error::Error>;

/// A type's description and those of its fields.
type Descriptions = BTreeMap<String, (String, BTreeMap<String, String>)>;

fn main() -> Result<(), BoxError> {
    let sources = PathBuf::from(std::env::args().nth(1).ok_or("usage: descriptions FOLDER")?);
    let mut all = Descriptions::new();
    visit(&sources, &mut all)?;
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/descriptions.json.gz");
    // No time and no name in the header: the same input gives the same bytes.
    let mut gzip = GzBuilder::new().write(std::fs::File::create(out)?, Compression::best());
    gzip.write_all(&serde_json::to_vec(&all)?)?;
    gzip.finish()?;
    println!("{} types", all.len());
    Ok(())
}

fn visit(folder: &Path, all: &mut Descriptions) -> Result<(), BoxError> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, all)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            read(&std::fs::read_to_string(path)?, all)?;
        }
    }
    Ok(())
}

/// Takes the descriptions out of the schemas in a source file, by the indentation that generated code keeps.
fn read(source: &str, all: &mut Descriptions) -> Result<(), BoxError> {
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if !line.contains("fn schema_name()") {
            continue;
        }
        let name = lines.next().and_then(|l| literal(l.trim())).ok_or("a schema without name")?;
        if name.contains("alpha") || name.contains("beta") {
            continue;
        }
        let mut own = String::new();
        let mut fields = BTreeMap::new();
        let mut field = None;
        for line in lines.by_ref().take_while(|line| *line != "}") {
            let indent = line.len() - line.trim_start().len();
            let text = line.trim();
            if indent == 16 && text.starts_with('"') {
                field = literal(text);
            }
            let description = text
                .strip_prefix("\"description\": ")
                .or_else(|| text.split_once(".insert(\"description\".into(), ").map(|(_, rest)| rest))
                .and_then(literal);
            match (description, indent, &field) {
                (Some(description), 12, _) => own = description,
                (Some(description), 20, Some(field)) => {
                    fields.insert(field.clone(), description);
                }
                _ => {}
            }
        }
        all.insert(name, (own, fields));
    }
    Ok(())
}

/// The string literal that the text begins with.
fn literal(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                'u' => {
                    let code: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    value.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}
