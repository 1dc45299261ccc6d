//! Documents that state facts about the code are held to them.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_tests::{read, repository};

/// The constants of a Rust file: name and expression.
fn constants(source: &str) -> BTreeMap<String, String> {
    let declarations = source.lines().filter_map(|line| line.strip_prefix("pub const "));
    declarations
        .map(|line| {
            let (name, rest) = line.split_once(':').unwrap();
            let value = rest.split_once(" = ").unwrap().1;
            (name.to_owned(), value.trim_end_matches(';').to_owned())
        })
        .collect()
}

/// Evaluates the few forms in which bounds are written: numbers, names, `a << b`, `a * b`, `a + b` and seconds.
fn evaluate(expression: &str, constants: &BTreeMap<String, String>) -> String {
    if let Some(seconds) = expression.strip_prefix("Duration::from_secs(") {
        return format!("{} s", evaluate(seconds.trim_end_matches(')'), constants));
    }
    let sides = |operator: &str| {
        let (left, right) = expression.split_once(operator)?;
        let number = |side: &str| evaluate(side.trim(), constants).parse::<u64>().unwrap();
        Some((number(left), number(right)))
    };
    // The operator that binds least comes first. Rust lets `<<` bind less than `+`.
    if let Some((left, right)) = sides("<<") {
        (left << right).to_string()
    } else if let Some((left, right)) = sides("+") {
        (left + right).to_string()
    } else if let Some((left, right)) = sides("*") {
        (left * right).to_string()
    } else if let Some(named) = constants.get(expression) {
        evaluate(named, constants)
    } else {
        expression.replace('_', "").parse::<u64>().unwrap_or_else(|_| panic!("cannot read {expression}")).to_string()
    }
}

#[test]
fn every_bound_stands_in_the_format_with_its_value() {
    let constants = constants(&read("core/src/limits.rs"));
    assert!(constants.len() > 30, "{constants:?}");
    let rows: BTreeMap<_, _> = read("docs/format.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            let is_constant = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            is_constant.then_some((name.to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    let stated: BTreeMap<_, _> =
        constants.iter().map(|(name, expression)| (name.clone(), evaluate(expression, &constants))).collect();
    let only_in = |left: &BTreeMap<String, String>, right: &BTreeMap<String, String>| -> Vec<String> {
        let entries = left.iter().filter(|(name, value)| right.get(*name) != Some(value));
        entries.map(|(name, value)| format!("| `{name}` | {value} |")).collect()
    };
    let (wrong, missing) = (only_in(&rows, &stated), only_in(&stated, &rows));
    assert!(
        wrong.is_empty() && missing.is_empty(),
        "docs/format.md differs from core/src/limits.rs: wrong {wrong:#?}, missing {missing:#?}"
    );
}

/// Every domain and every keyspace is a word of the format too.
#[test]
fn every_hash_domain_and_keyspace_stands_in_the_format() {
    let format = read("docs/format.md");
    let hash = read("core/src/hash.rs");
    let domains: Vec<_> = hash.split("b\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let domains: Vec<_> = domains.into_iter().filter(|text| text.starts_with("folkmoot/")).collect();
    assert!(domains.len() >= 9, "{domains:?}");
    for domain in domains {
        assert!(format.contains(&format!("`{domain}`")), "{domain} is missing");
    }
    for keyspace in folkmoot_core::store::Keyspace::ALL {
        assert!(format.contains(&format!("| `{}` |", keyspace.name())), "{keyspace} is missing");
    }
}

/// The first cells of the tables' rows, each name in code quotes.
fn names_in_tables(document: &str) -> BTreeSet<String> {
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_configuration_key_and_metric_stands_in_operations() {
    let document = read("docs/operations.md");
    let (before, metrics) = document.split_once("## Metrics").unwrap();
    let documented = names_in_tables(before.split_once("## Configuration").unwrap().1);
    let mut command = std::process::Command::new(folkmoot_tests::processes::program());
    let output = folkmoot_tests::processes::without_settings(&mut command)
        .args(["--json", "config", "show"])
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let shown: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(documented, shown.keys().cloned().collect(), "configuration keys");

    let documented = names_in_tables(metrics.split_once("## ").unwrap().0);
    let mut reported = BTreeSet::new();
    for folder in ["core", "net", "sdk", "server"] {
        let mut folders = vec![repository().join(folder).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let names = text.split("\"folkmoot_").skip(1).filter_map(|rest| rest.split_once('"'));
                    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                    reported
                        .extend(names.filter(|(name, _)| is_name(name)).map(|(name, _)| format!("folkmoot_{name}")));
                }
            }
        }
    }
    assert!(reported.len() > 40, "{reported:?}");
    let documented: BTreeSet<_> = documented.into_iter().filter(|name| name.starts_with("folkmoot_")).collect();
    let missing: Vec<_> = reported.difference(&documented).collect();
    let wrong: Vec<_> = documented.difference(&reported).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "docs/operations.md lacks {missing:?} and has {wrong:?}");
}

/// Links between the project's documents lead somewhere.
#[test]
fn links_in_documents_lead_to_files() {
    let mut folders = vec![repository(), repository().join("docs"), repository().join("docs/decisions")];
    folders.push(repository().join("examples/data"));
    let mut links = 0;
    for folder in folders {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                if !target.is_empty() && !target.contains("://") {
                    assert!(folder.join(target).exists(), "{}: {target} leads nowhere", path.display());
                    links += 1;
                }
            }
        }
    }
    assert!(links > 0);
}
