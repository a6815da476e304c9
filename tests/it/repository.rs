//! The repository's own rules, so that nobody has to remember them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Pictures are among what is searched.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All files below a directory, as paths from the root.
fn files_below(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it is a directory") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                // What is built or found there is nobody's text.
                let is_made = ["target", "corpus", "artifacts"].map(|name| path.ends_with(name));
                directories.extend(Some(path).filter(|_| !is_made.contains(&true)));
            } else {
                let from_root = path.strip_prefix(root()).expect("it is below");
                found.push(from_root.to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The lines below the header of a table, without comments.
fn table<'t>(toml: &'t str, header: &str) -> Vec<&'t str> {
    let lines = toml.lines().skip_while(|line| line.trim() != header).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// No crate at run time, and one when testing.
#[test]
fn it_depends_on_nothing() {
    let manifest = read("Cargo.toml");
    assert_eq!(table(&manifest, "[dependencies]"), [""; 0]);
    let dev = table(&manifest, "[dev-dependencies]");
    assert!(dev.len() == 1 && dev[0].starts_with("ureq = "), "{dev:?}");
    let tables = manifest.lines().filter(|line| line.starts_with('['));
    for table in tables.filter(|table| table.contains("dependencies")) {
        let is_known = ["[dependencies]", "[dev-dependencies]"].contains(&table);
        assert!(is_known, "another way to depend on something: {table}");
    }
    assert!(!root().join("build.rs").exists() && !manifest.contains("build ="));
}

#[test]
fn the_top_level_has_what_it_is_meant_to_have_and_nothing_else() {
    let kept = [
        "Cargo.toml",
        "src",
        "www",
        "tests",
        "Makefile",
        // What every repository has
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "Cargo.lock",
        ".gitignore",
        ".rustfmt.toml",
        ".ci",
    ];
    let unkept = [".git", "target"];
    let found: BTreeSet<String> = fs::read_dir(root())
        .expect("it is a directory")
        .map(|entry| entry.expect("it can be read").file_name())
        .map(|name| name.into_string().expect("it is UTF-8"))
        .filter(|name| !unkept.contains(&name.as_str()))
        .collect();
    let kept: BTreeSet<String> = kept.map(str::to_owned).into();
    assert_eq!(found, kept);
}

/// The addresses in a line that a browser might load from elsewhere, without their scheme. An
/// address may stand in a link that a person follows, and name a namespace; the server's own is in
/// text that is to be copied.
fn foreign_addresses(line: &str) -> Vec<&str> {
    let places = line.match_indices("//").map(|(at, _)| line.split_at(at));
    places
        .filter_map(|(before, address)| {
            let rest = &address[2..];
            let without_scheme = before
                .strip_suffix("http:")
                .or(before.strip_suffix("https:"))
                .or(before.strip_suffix("wss:"));
            let before = without_scheme.unwrap_or(before);
            let is_address = rest.starts_with(|c: char| c.is_ascii_alphanumeric())
                && (without_scheme.is_some() || before.ends_with(['"', '\'', '(', '=', '`']));
            let is_own = ["127.0.0.1:", "localhost:"].iter().any(|own| rest.starts_with(own));
            let is_harmless = before.ends_with("<a href=\"") || before.ends_with("xmlns=\"");
            (is_address && !is_own && !is_harmless).then_some(rest)
        })
        .collect()
}

/// The page works with the cable pulled out.
#[test]
fn the_page_loads_nothing_from_elsewhere() {
    for loads in [
        "<script src=\"https://cdn.example/x.js\">",
        "<link rel=stylesheet href=//cdn.example/x.css>",
        "@font-face { src: url(http://cdn.example/x.woff2) }",
        "import x from 'https://cdn.example/x.js'",
        "fetch(`https://cdn.example/${x}`)",
    ] {
        assert_eq!(foreign_addresses(loads).len(), 1, "{loads}");
    }
    for loads_nothing in [
        "<a href=\"https://html.spec.whatwg.org/\">the standard</a>",
        "<svg xmlns=\"http://www.w3.org/2000/svg\">",
        "<code>curl -N http://127.0.0.1:8080/sse/mvc/words</code>",
        "// a comment",
    ] {
        assert!(foreign_addresses(loads_nothing).is_empty(), "{loads_nothing}");
    }
    for path in files_below("www") {
        for line in read(&path).lines() {
            let addresses = foreign_addresses(line);
            assert!(addresses.is_empty(), "{}: {addresses:?}", path.display());
            assert!(!line.contains("@import"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn nothing_is_left_undone_in_the_source() {
    for path in files_below("src").into_iter().chain(files_below("tests/it")) {
        let is_this = path.ends_with("repository.rs");
        for (number, line) in read(&path).lines().enumerate() {
            for macro_name in ["todo!", "unimplemented!", "dbg!"] {
                let place = format!("{}:{}", path.display(), number + 1);
                assert!(is_this || !line.contains(macro_name), "{place}: {line}");
            }
        }
    }
    for crate_root in ["src/lib.rs", "src/main.rs"] {
        assert!(read(crate_root).contains("#![forbid(unsafe_code)]"), "{crate_root}");
    }
}

/// `http` has never heard of Server-Sent Events, and in each of the two directories a file uses
/// only those that stand before it in the order that its `mod.rs` says.
#[test]
fn each_file_uses_only_what_stands_before_it() {
    for directory in ["src/http", "src/sse"] {
        let description = read(format!("{directory}/mod.rs"));
        let description: String =
            description.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let (_, order) = description.split_once("Read it in this order").expect("it says so");
        // What stands between backticks
        let order: Vec<&str> = order.split('`').skip(1).step_by(2).collect();
        let modules: BTreeSet<String> = files_below(directory)
            .iter()
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .filter(|name| name != "mod")
            .collect();
        let named: BTreeSet<String> = order.iter().map(|name| name.to_string()).collect();
        assert_eq!(named, modules, "the order names every file of {directory}");

        for (at, name) in order.iter().enumerate() {
            let source = read(format!("{directory}/{name}.rs"));
            for later in &order[at..] {
                let used = format!("super::{later}::");
                // Tests may use what they test.
                let is_own = later == name;
                assert!(is_own || !source.contains(&used), "{directory}/{name}.rs uses {used}");
            }
        }
    }
    for path in files_below("src/http") {
        let source = read(&path);
        for word in ["crate::sse", "crate::app", "crate::words", "text/event-stream"] {
            let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                assert!(!line.contains(word), "{}: {line}", path.display());
            }
        }
    }
}

/// Words that begin with two hyphens and a letter.
fn options(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| {
            let name = word.strip_prefix("--").unwrap_or_default();
            name.starts_with(|c: char| c.is_ascii_lowercase())
        })
        .collect()
}

#[test]
fn the_readme_has_every_option_of_the_command_line_and_no_other() {
    let helps = [&["--help"][..], &["check", "--help"]].map(|arguments| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        let output = command.args(arguments).output().expect("the binary under test starts");
        String::from_utf8(output.stdout).expect("it is UTF-8")
    });
    let help = helps.concat();
    let readme = read("README.md");
    // Other programs have options of their own.
    let of_others = ["cargo ", "curl ", "docker ", "git ", "nginx "];
    let own: String = readme
        .lines()
        .filter(|line| !of_others.iter().any(|program| line.contains(program)))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(options(&help).len() > 10);
    assert_eq!(options(&own), options(&help));
    // And says the same of each.
    let described = helps.iter().flat_map(|help| help.split("OPTIONS\n").nth(1));
    for line in described.flat_map(|described| described.lines()) {
        let line = line.trim();
        assert!(readme.lines().any(|found| found.trim() == line), "{line:?} is not in README.md");
    }
}

/// The map of the sources in the README is how a newcomer finds the way.
#[test]
fn the_readme_has_every_source_file() {
    let readme = read("README.md");
    for path in files_below("src") {
        let name = path.file_name().expect("it has one").to_string_lossy();
        let mapped = readme
            .lines()
            .any(|line| line.split_whitespace().next().is_some_and(|word| word.ends_with(&*name)));
        assert!(mapped || name == "mod.rs", "{} is not in README.md", path.display());
    }
}

#[test]
fn the_changelog_and_the_license_are_those_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let heading = format!("## {version}");
    assert!(read("CHANGELOG.md").lines().any(|line| line.starts_with(&heading)));
    assert!(read("LICENSE").contains("Permission is hereby granted, free of charge"));
    assert!(read("Cargo.toml").contains("license = \"MIT\""));
}

/// No line of the project leads to the machine that it was written on.
#[test]
fn no_path_of_one_machine_is_in_it() {
    let everywhere = ["src", "www", "tests/it", ".ci"].map(files_below).concat();
    let single = ["README.md", "CHANGELOG.md", "Makefile", "Cargo.toml"].map(PathBuf::from);
    for path in everywhere.into_iter().chain(single) {
        // Said so that this file is no such place itself
        for start in ["work", "home", "farm"].map(|name| format!("/{name}/")) {
            let text = read(&path);
            assert!(!text.contains(&start), "{} has {start}", path.display());
        }
    }
}
