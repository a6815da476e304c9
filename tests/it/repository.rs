//! The rules of the repository.

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
    // Pictures are searched, too.
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
                // These hold no text of ours.
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

#[test]
fn there_is_no_dependency_at_run_time_and_one_for_tests() {
    let manifest = read("Cargo.toml");
    assert_eq!(table(&manifest, "[dependencies]"), [""; 0]);
    let dev = table(&manifest, "[dev-dependencies]");
    assert!(dev.len() == 1 && dev[0].starts_with("ureq = "), "{dev:?}");
    let tables = manifest.lines().filter(|line| line.starts_with('['));
    for table in tables.filter(|table| table.contains("dependencies")) {
        let is_known = ["[dependencies]", "[dev-dependencies]"].contains(&table);
        assert!(is_known, "a table of dependencies that this test does not know: {table}");
    }
    assert!(!root().join("build.rs").exists() && !manifest.contains("build ="));
}

#[test]
fn the_top_level_has_no_file_that_is_not_listed_here() {
    let kept = [
        "Cargo.toml",
        "src",
        "www",
        "tests",
        "Makefile",
        // As in every repository
        "README.md",
        "README.zh-CN.md",
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

/// The addresses in a line that a browser might load from another server, without their scheme. A link that a person
/// follows is harmless, and so is the name of a namespace. The server's own address is in text to copy.
fn foreign_addresses(line: &str) -> Vec<&str> {
    let places = line.match_indices("//").map(|(at, _)| line.split_at(at));
    places
        .filter_map(|(before, address)| {
            let rest = &address[2..];
            let without_scheme =
                before.strip_suffix("http:").or(before.strip_suffix("https:")).or(before.strip_suffix("wss:"));
            let before = without_scheme.unwrap_or(before);
            let is_address = rest.starts_with(|c: char| c.is_ascii_alphanumeric())
                && (without_scheme.is_some() || before.ends_with(['"', '\'', '(', '=', '`']));
            let is_own = ["127.0.0.1:", "localhost:"].iter().any(|own| rest.starts_with(own));
            let is_harmless = before.ends_with("<a href=\"") || before.ends_with("xmlns=\"");
            (is_address && !is_own && !is_harmless).then_some(rest)
        })
        .collect()
}

#[test]
fn the_page_needs_no_other_server() {
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
fn there_is_no_todo_and_no_unsafe_code_in_the_source() {
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

/// The folders of `src`, and the folders that each may use beside itself.
const ROOMS: [(&str, &[&str]); 7] = [
    ("http", &[]),
    ("sse", &["http"]),
    // Of http only the lock, which is of no protocol; of sse only the format.
    ("redis", &["http", "sse"]),
    ("channel", &["http", "sse", "redis"]),
    ("lab", &["http", "sse"]),
    ("app", &["http", "sse", "channel", "lab"]),
    // The command uses the library as any program does.
    ("cli", &[]),
];

/// The source without its comments.
fn code(source: &str) -> String {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The first names behind a path such as `crate::`, also where several stand in braces.
fn names_behind(path: &str, code: &str) -> BTreeSet<String> {
    let first_name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(path) {
        let rest = &code[at + path.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(first_name(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    names.insert(first_name(&group[start..at]));
                    start = at + 1;
                }
                '}' => depth -= 1,
                _ => {}
            }
            if c == '}' && depth == 0 && start == at + 1 {
                break;
            }
        }
    }
    names
}

#[test]
fn names_behind_a_path_are_found_in_each_form() {
    let code = "use super::one::One; use super::{two, three::{Three, four}, self};\n super::five()";
    let expected = ["five", "one", "self", "three", "two"].map(str::to_owned);
    assert_eq!(names_behind("super::", code), expected.into());
}

#[test]
fn each_folder_uses_only_the_folders_that_it_may() {
    let folders: BTreeSet<String> = fs::read_dir(root().join("src"))
        .expect("it is a directory")
        .map(|entry| entry.expect("it can be read"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("it is UTF-8"))
        .collect();
    let known: BTreeSet<String> = ROOMS.iter().map(|(room, _)| room.to_string()).collect();
    assert_eq!(folders, known);
    for (room, may_use) in ROOMS {
        for path in files_below(&format!("src/{room}")) {
            let source = code(&read(&path));
            for used in names_behind("crate::", &source) {
                let is_folder = known.contains(&used) && used != room;
                let is_allowed = !is_folder || may_use.contains(&used.as_str());
                assert!(is_allowed, "{} uses {used}", path.display());
            }
            // What is public at the root would hide the folder.
            let is_root = |name: &String| name.starts_with(|c: char| c.is_ascii_uppercase());
            let at_root: Vec<_> = names_behind("crate::", &source).into_iter().filter(is_root).collect();
            assert!(at_root.is_empty(), "{}: name the folder of {at_root:?}", path.display());
            assert!(room != "http" || !source.contains("text/event-stream"), "{} has heard of events", path.display());
        }
    }
}

/// The `mod.rs` of a folder says in which order to read its files.
#[test]
fn each_file_uses_only_files_that_stand_before_it() {
    let mut wrong = Vec::new();
    for (room, _) in ROOMS {
        let description = read(format!("src/{room}/mod.rs"));
        let description: String = description.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let Some((_, order)) = description.split_once("Read it in this order") else {
            panic!("src/{room}/mod.rs names no order");
        };
        // The files stand between backticks, up to the end of the sentence.
        let order = order.split_once(". ").map_or(order, |(sentence, _)| sentence);
        let order: Vec<&str> = order.split('`').skip(1).step_by(2).collect();
        // A folder in the room says its own order in the file of its name.
        let in_room = |path: &&PathBuf| path.components().count() == 3;
        let files: BTreeSet<String> = files_below(&format!("src/{room}"))
            .iter()
            .filter(in_room)
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .filter(|name| name != "mod")
            .collect();
        let named: BTreeSet<String> = order.iter().map(|name| name.to_string()).collect();
        assert_eq!(named, files, "the order names every file of src/{room}");
        for (at, name) in order.iter().enumerate() {
            let used = names_behind("super::", &code(&read(format!("src/{room}/{name}.rs"))));
            let later = order[at + 1..].iter().filter(|later| used.contains(**later));
            wrong.extend(later.map(|later| format!("src/{room}/{name}.rs uses {later}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_source_file_is_short_enough_to_be_read_from_top_to_bottom() {
    let lines = |path: &PathBuf| read(path).lines().count();
    let long: Vec<_> = files_below("src").into_iter().filter(|path| lines(path) > 350).collect();
    assert!(long.is_empty(), "longer than 350 lines: {long:?}");
}

/// A comment has a subject that can be found in the code: a connection, a client, a thread.
#[test]
fn no_comment_speaks_of_persons_that_are_parts_of_the_program() {
    const PERSONS: [&str; 12] = [
        "who",
        "whom",
        "whose",
        "whoever",
        "he",
        "him",
        "his",
        "somebody",
        "someone",
        "nobody",
        "anybody",
        "everybody",
    ];
    let mut wrong = Vec::new();
    for path in files_below("src") {
        for (number, line) in read(&path).lines().enumerate() {
            let line = line.trim_start().replacen("///", "//", 1);
            let Some((_, comment)) = line.split_once("// ").or(line.split_once("//! ")) else {
                continue;
            };
            let words = comment.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_lowercase);
            let persons = words.filter(|word| PERSONS.contains(&word.as_str()));
            let place = format!("{}:{}", path.display(), number + 1);
            wrong.extend(persons.map(|word| format!("{place}: {word:?} in: {comment}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
    let commands = [
        &["--help"][..],
        &["watch", "--help"],
        &["publish", "--help"],
        &["check", "--help"],
        &["drain", "--help"],
        &["journal", "--help"],
    ];
    let helps = commands.map(|arguments| {
        let output = Command::new(env!("CARGO_BIN_EXE_newswire")).args(arguments).output();
        let help = output.expect("the binary under test starts").stdout;
        String::from_utf8(help).expect("it is UTF-8")
    });
    let readme = read("README.md");
    // A line with another program has that program's options.
    let of_others = ["cargo ", "curl ", "docker ", "git ", "nginx "];
    let own: String = readme
        .lines()
        .filter(|line| !of_others.iter().any(|program| line.contains(program)))
        .flat_map(|line| [line, "\n"])
        .collect();
    let of_server = options(&helps[0]);
    assert!(of_server.len() > 10);
    assert!(of_server.is_subset(&options(&own)));
    assert!(options(&own).is_subset(&options(&helps.concat())));
    // It says the same of each option of the server. The other commands have `--help`.
    let (_, described) = helps[0].split_once("OPTIONS\n").expect("it has options");
    for line in described.lines().map(str::trim) {
        let has_line = readme.lines().any(|found| found.trim() == line);
        assert!(has_line, "{line:?} is not in README.md");
    }
}

#[test]
fn the_readme_has_every_folder_of_the_source_and_is_short() {
    let readme = read("README.md");
    for (room, _) in ROOMS {
        let has_room = readme.lines().any(|line| line.starts_with(&format!("src/{room}/ ")));
        assert!(has_room, "src/{room} is not in README.md");
    }
    assert!(readme.lines().count() <= 345);
}

#[test]
fn the_changelog_and_the_license_are_those_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let heading = format!("## {version}");
    assert!(read("CHANGELOG.md").lines().any(|line| line.starts_with(&heading)));
    assert!(read("LICENSE").contains("Permission is hereby granted, free of charge"));
    assert!(read("Cargo.toml").contains("license = \"MIT\""));
}

#[test]
fn no_file_has_a_path_of_the_machine_that_it_was_written_on() {
    let everywhere = ["src", "www", "tests/it", ".ci"].map(files_below).concat();
    let single = ["README.md", "README.zh-CN.md", "CHANGELOG.md", "Makefile", "Cargo.toml"].map(PathBuf::from);
    for path in everywhere.into_iter().chain(single) {
        // In pieces, so that this file has no such path itself
        for start in ["work", "home", "farm"].map(|name| format!("/{name}/")) {
            let text = read(&path);
            assert!(!text.contains(&start), "{} has {start}", path.display());
        }
    }
}
