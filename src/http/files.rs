//! Files, embedded in the binary or read from a directory.

use super::grammar::entity_tags;
use super::head::{Head, Method};
use super::request::Request;
use super::response::{Body, Response};
use super::status::{Refusal, Status};
use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Serves files to GET and HEAD, with `ETag`, `If-Match` and `If-None-Match`. `/` is `index.html`, in every folder.
///
/// ```
/// use newswire::http::{Files, Router};
///
/// let mut router = Router::new();
/// router.files(Files::embedded(&[("index.html", b"<!doctype html><title>It works</title>")]));
/// ```
#[derive(Debug)]
pub struct Files(Source);

#[derive(Debug)]
enum Source {
    Embedded(Vec<Embedded>),
    Directory(PathBuf),
}

struct Embedded {
    path: &'static str,
    folders: Vec<&'static str>,
    name: &'static str,
    content: &'static [u8],
    etag: String,
}

impl Embedded {
    fn is_named(&self, segments: &[Cow<str>]) -> bool {
        let named = folders_and_name(segments);
        named.is_some_and(|(folders, name)| self.name == name && self.folders == folders)
    }
}

/// The name of a file, and the folders that it is in.
fn folders_and_name<'s>(segments: &'s [Cow<str>]) -> Option<(&'s [Cow<'s, str>], &'s str)> {
    let (last, folders) = segments.split_last()?;
    Some((folders, if last.is_empty() { "index.html" } else { last }))
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.path, self.content.len())
    }
}

/// The page in the binary loads nothing from elsewhere, and cannot be made to (CSP 3). It reads streams of any server that
/// lets it. A directory sets its own policy with a `meta` element.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                                       connect-src http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that a path names.
pub(crate) enum Named {
    Embedded(&'static [u8]),
    File(PathBuf),
}

impl Named {
    /// Reads it from the start.
    pub(crate) fn open(&self) -> io::Result<Box<dyn BufRead + Send>> {
        Ok(match self {
            Named::Embedded(content) => Box::new(*content),
            Named::File(path) => Box::new(BufReader::new(open(path)?)),
        })
    }
}

impl Files {
    /// The methods that files have, besides OPTIONS.
    pub(crate) const METHODS: &'static [Method] = &[Method::Get];

    /// The file with this ending that the path names, with or without the ending. Without it, a file of the very path
    /// comes first.
    pub(crate) fn with_ending(&self, head: &Head, ending: &str) -> Result<Option<Named>, Refusal> {
        let mut segments = head.segments();
        if !segments.last().is_some_and(|last| last.ends_with(ending)) {
            if self.find(&segments)?.is_some() {
                return Ok(None);
            }
            segments.last_mut().into_iter().for_each(|last| *last += ending);
        }
        self.find(&segments)
    }

    fn find(&self, segments: &[Cow<str>]) -> Result<Option<Named>, Refusal> {
        match &self.0 {
            Source::Embedded(files) => {
                let found = files.iter().find(|file| file.is_named(segments));
                Ok(found.map(|file| Named::Embedded(file.content)))
            }
            Source::Directory(root) => match locate(root, segments) {
                Ok(path) => Ok(Some(Named::File(path))),
                Err(error) if is_for_now(&error) => Err(UNREADABLE),
                Err(_) => Ok(None),
            },
        }
    }

    /// Files that are part of the program: pairs of a path without a leading slash and a content.
    pub fn embedded(files: &[(&'static str, &'static [u8])]) -> Files {
        let embed = |&(path, content): &(&'static str, &'static [u8])| {
            let mut folders: Vec<&str> = path.split('/').collect();
            let name = folders.pop().unwrap_or_default();
            let etag = format!("\"{:016x}\"", fnv1a(content));
            Embedded { path, folders, name, content, etag }
        };
        Files(Source::Embedded(files.iter().map(embed).collect()))
    }

    /// The files below a directory, as they are at the time of a request. A name that begins with a dot is not served,
    /// nor is a file outside to which a symbolic link leads. A file that is being sent needs a descriptor beside that of
    /// its connection.
    ///
    /// # Errors
    /// When the directory does not exist, or is not a directory.
    pub fn directory(path: impl AsRef<Path>) -> io::Result<Files> {
        let root = fs::canonicalize(path)?;
        if !fs::metadata(&root)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
        }
        Ok(Files(Source::Directory(root)))
    }

    /// The file that the request's path names; `304` or `412` as its preconditions ask; `404` without a file; `405` for
    /// another method.
    pub fn respond(&self, request: &mut Request<'_>) -> Response {
        self.find_response(request).unwrap_or_else(|| Refusal::NOTHING_HERE.into())
    }

    /// As [`respond`](Files::respond); `None` without a file.
    pub(crate) fn find_response(&self, request: &Request<'_>) -> Option<Response> {
        let found = match &self.0 {
            Source::Embedded(files) => find_embedded(files, request).ok_or(io::ErrorKind::NotFound.into()),
            Source::Directory(root) => find_file(root, request),
        };
        match (found, request.method()) {
            (Ok(response), Method::Get | Method::Head) => Some(response),
            (Ok(_), method) => Some(Response::for_other_method(method, "GET, HEAD, OPTIONS")),
            (Err(error), _) => is_for_now(&error).then(|| UNREADABLE.into()),
        }
    }
}

/// A cache, or a person, must not believe that a file is gone because the server has no descriptor left.
const UNREADABLE: Refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, "The file cannot be read now; try again.");

fn find_embedded(files: &[Embedded], head: &Head) -> Option<Response> {
    let file = files.iter().find(|file| file.is_named(&head.segments()))?;
    let response = check_preconditions(head, &file.etag)
        .unwrap_or_else(|| content_of(file.path, Body::Bytes(file.content.into())));
    Some(
        with_validator(response, file.etag.clone())
            .literal("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            .literal("Referrer-Policy", "no-referrer"),
    )
}

/// The file that the segments of a path name.
fn locate(root: &Path, segments: &[Cow<str>]) -> io::Result<PathBuf> {
    let path = path_below(root, segments).ok_or(io::ErrorKind::NotFound)?;
    let path = fs::canonicalize(path)?;
    // This is checked before the file is opened: opening a named pipe would wait for its writer.
    let is_found = path.starts_with(root) && fs::metadata(&path)?.is_file();
    if is_found { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn find_file(root: &Path, head: &Head) -> io::Result<Response> {
    let path = locate(root, &head.segments())?;
    let file = open(&path)?;
    let metadata = file.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let etag = format!("\"{:x}-{:x}\"", metadata.len(), modified.as_nanos());
    let response = check_preconditions(head, &etag)
        .unwrap_or_else(|| content_of(&path.to_string_lossy(), Body::File(file, metadata.len())));
    Ok(with_validator(response, etag))
}

/// When a connection is evicted for this one, its thread takes a moment to give its descriptors back.
fn open(path: &Path) -> io::Result<File> {
    let deadline = Instant::now() + OPEN_DEADLINE;
    loop {
        match File::open(path) {
            Err(error) if is_for_now(&error) && Instant::now() < deadline => {
                thread::sleep(OPEN_INTERVAL);
            }
            opened => return opened,
        }
    }
}

const OPEN_DEADLINE: Duration = Duration::from_secs(1);
const OPEN_INTERVAL: Duration = Duration::from_millis(10);

/// Whether the machine lacks something for now: then the file may well exist.
fn is_for_now(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    let is_of_the_path =
        matches!(error.kind(), NotFound | NotADirectory | PermissionDenied | InvalidInput | InvalidFilename);
    // A loop of symbolic links has no stable kind.
    !is_of_the_path && error.raw_os_error() != Some(40)
}

/// Each segment was decoded by itself, once. A segment that could mean anything but a name in its folder is not found:
/// `..`, an empty segment, a separator of any system, a drive, a hidden name.
fn path_below(root: &Path, segments: &[Cow<str>]) -> Option<PathBuf> {
    let mut path = root.to_path_buf();
    let (folders, name) = folders_and_name(segments)?;
    for segment in folders.iter().map(Cow::as_ref).chain([name]) {
        let is_no_name = segment.is_empty() || segment.starts_with('.') || segment.contains(['/', '\\', ':']);
        path.push(Some(segment).filter(|_| !is_no_name)?);
    }
    Some(path)
}

/// `no-cache` lets a browser keep the file, and makes it ask each time, which costs a `304`.
fn with_validator(response: Response, etag: String) -> Response {
    response.literal("ETag", etag).literal("Cache-Control", "no-cache")
}

/// The response when a precondition says that the file is not to be sent. "If-Match ... if false, respond 412", and
/// after that "If-None-Match ... if false for GET/HEAD, respond 304" (RFC 9110, 13.2.2). `If-Match` compares strongly, so
/// that a weak tag never matches, and `If-None-Match` weakly (13.1).
fn check_preconditions(head: &Head, etag: &str) -> Option<Response> {
    let mut expected = head.values("if-match").flat_map(entity_tags);
    let is_expected = |(is_weak, tag): (bool, &str)| tag == "*" || (tag == etag && !is_weak);
    if head.field("if-match").is_some() && !expected.any(is_expected) {
        let sentence = "The file has changed: it is not the one that If-Match names.\n";
        return Some(Response::text(Status::PRECONDITION_FAILED, sentence));
    }
    let mut known = head.values("if-none-match").flat_map(entity_tags);
    let is_known = |(_, tag): (bool, &str)| tag == "*" || tag == etag;
    known.any(is_known).then(|| Response::empty(Status::NOT_MODIFIED))
}

/// The ending of its name says what the media type of a file is.
fn content_of(path: &str, body: Body) -> Response {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    let content_type = match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    };
    Response::typed(Status::OK, content_type, body)
}

/// FNV-1a, 64 bits. A validator changes with the content; it need not withstand an attack.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
