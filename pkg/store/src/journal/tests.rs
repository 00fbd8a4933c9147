#![allow(clippy::unwrap_used)]

use super::*;

fn event(key: &str, value: Option<&str>, revision: Revision) -> Event {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let value = value.map(|value| KeyValue {
        key: key.clone(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        create_revision: 1,
        mod_revision: revision,
        version: 2,
    });
    Event { key, value, previous: None, revision, origin: None }
}

fn revisions(records: &[Record]) -> Vec<(Revision, Revision)> {
    records.iter().map(|r| (r.before, r.after)).collect()
}

#[test]
fn records_are_read_back_up_to_the_first_torn_one() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows");
    let (mut journal, records) = Journal::open(&rows).unwrap();
    assert!(records.is_empty());
    let long = "x".repeat(3 * BLOCK);
    for (revision, value) in [(2, Some("a")), (3, None), (4, Some(long.as_str())), (5, Some("b"))] {
        journal.append(revision - 1, revision, &[event("k", value, revision)]).unwrap();
    }
    let (_, records) = Journal::open(&rows).unwrap();
    assert_eq!(revisions(&records), [(1, 2), (2, 3), (3, 4), (4, 5)]);
    assert_eq!(records[1].changes, [(Bytes::from("k"), None)]);
    assert_eq!(records[2].changes[0].1, event("k", Some(&long), 4).value);
    // A byte in the middle of the third record.
    let file = OpenOptions::new().write(true).open(path(&rows, 0)).unwrap();
    file.write_all_at(b"y", 3 * BLOCK as u64).unwrap();
    assert_eq!(revisions(&Journal::open(&rows).unwrap().1), [(1, 2), (2, 3)]);
}

#[test]
fn a_failed_commit_that_reached_the_disk_hides_nothing_after_it() {
    for turned in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let rows = dir.path().join("rows");
        let (mut journal, _) = Journal::open(&rows).unwrap();
        journal.append(1, 2, &[event("a", Some("1"), 2)]).unwrap();
        let whole = journal.offset;
        journal.append(2, 5, &[event("a", Some("never acknowledged"), 5)]).unwrap();
        // As if only the last step of that had failed.
        (journal.offset, journal.failed) = (whole, true);
        if turned {
            journal.turn().unwrap();
        }
        journal.append(2, 3, &[event("a", Some("2"), 3)]).unwrap();
        assert_eq!(revisions(&Journal::open(&rows).unwrap().1), [(1, 2), (2, 3)]);
    }
}

#[test]
fn a_file_that_is_used_again_does_not_show_its_older_records() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows");
    let (mut journal, _) = Journal::open(&rows).unwrap();
    journal.append(1, 2, &[event("a", Some("1"), 2)]).unwrap();
    journal.append(2, 3, &[event("a", Some("2"), 3)]).unwrap();
    journal.turn().unwrap();
    journal.append(3, 4, &[event("a", Some("3"), 4)]).unwrap();
    assert_eq!(revisions(&Journal::open(&rows).unwrap().1), [(1, 2), (2, 3), (3, 4)]);
    journal.turn().unwrap();
    journal.append(4, 5, &[event("a", Some("4"), 5)]).unwrap();
    assert_eq!(revisions(&Journal::open(&rows).unwrap().1), [(3, 4), (4, 5)]);
    let full = event("b", Some(&"x".repeat(SEGMENT as usize)), 6);
    assert!(!journal.has_room(std::slice::from_ref(&full)));
    journal.turn().unwrap();
    assert!(journal.has_room(std::slice::from_ref(&full)));
    journal.append(5, 6, &[full]).unwrap();
    assert_eq!(revisions(&Journal::open(&rows).unwrap().1), [(4, 5), (5, 6)]);
}
