//! A small store that speaks as much of S3 as is needed here, and fails as it is told.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Keys that one page of a listing has.
const PAGE: usize = 2;

/// A store with one bucket, `meters`, and one user, `reader`, who may write, too.
pub struct Store {
    /// Its address.
    pub address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    /// Keys of objects that were asked for.
    given: Vec<String>,
}

/// What goes wrong with objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// They are listed, and gone.
    Gone,
    /// They are not what was listed.
    Changed,
    /// So many answers end half-way.
    Cut(usize),
    /// So many answers are that the store is overloaded.
    Overloaded(usize),
}

impl Fault {
    /// Whether it happens now, when it happens so many times.
    fn counts(n: &mut usize) -> bool {
        let is_left = *n > 0;
        *n = n.saturating_sub(1);
        is_left
    }
}

impl Store {
    /// An empty one, on a port of its own. It ends with the process.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Who has closed the connection wants no answer.
                let _ = stream.and_then(|stream| answer(stream, &shared));
            }
        });
        Self { address, state }
    }

    /// Puts an object.
    pub fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().objects.insert(key.to_owned(), bytes.into());
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    /// From now on this goes wrong.
    pub fn fail(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    /// The keys of the objects that were asked for since this was asked.
    pub fn given(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().given)
    }
}

/// One request on one connection.
fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = reader.by_ref().lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut headers = BTreeMap::new();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut state = state.lock().unwrap();
    if !headers.get("authorization").is_some_and(|line| line.contains("Credential=reader/")) {
        return refuse(&mut stream, "403 Forbidden", "InvalidAccessKeyId", "There is no such key");
    }
    if let Fault::Overloaded(n) = &mut state.fault
        && Fault::counts(n)
    {
        return refuse(&mut stream, "503 Slow Down", "SlowDown", "Later");
    }
    match path.strip_prefix("/meters").map(|key| key.trim_start_matches('/')) {
        None => refuse(&mut stream, "404 Not Found", "NoSuchBucket", "There is no such bucket"),
        Some("") if method == "POST" => delete(&mut stream, &mut state, &String::from_utf8_lossy(&body)),
        Some("") => list(&mut stream, &state, query),
        Some(key) if method == "PUT" => {
            let headers = [("ETag", tag(&body))];
            state.objects.insert(plain(key), body);
            respond(&mut stream, "200 OK", &headers, &[], 0)
        }
        Some(key) => {
            let key = plain(key);
            if method == "GET" {
                state.given.push(key.clone());
            }
            give(&mut stream, &mut state, &key, method, headers.get("range"))
        }
    }
}

/// A part of a listing.
fn list(stream: &mut TcpStream, state: &State, query: &str) -> std::io::Result<()> {
    let of = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| plain(&value.replace('+', " "))).unwrap_or_default()
    };
    let (prefix, after) = (of("prefix"), of("continuation-token"));
    let mut keys = state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
    let mut text = String::from("<ListBucketResult>");
    let mut last = "";
    for (key, bytes) in keys.by_ref().take(PAGE) {
        text.push_str(&format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2025-03-01T00:00:00.000Z</LastModified>\
             <ETag>{}</ETag></Contents>",
            bytes.len(),
            tag(bytes)
        ));
        last = key;
    }
    if keys.next().is_some() {
        text.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
    }
    text.push_str("</ListBucketResult>");
    respond(stream, "200 OK", &[], text.as_bytes(), text.len())
}

/// Deletes the objects that a document names.
fn delete(stream: &mut TcpStream, state: &mut State, body: &str) -> std::io::Result<()> {
    let mut text = String::from("<DeleteResult>");
    for key in body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
        state.objects.remove(key);
        text.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
    }
    text.push_str("</DeleteResult>");
    respond(stream, "200 OK", &[], text.as_bytes(), text.len())
}

/// An object, or from some byte on.
fn give(
    stream: &mut TcpStream,
    state: &mut State,
    key: &str,
    method: &str,
    range: Option<&String>,
) -> std::io::Result<()> {
    let Some(bytes) = state.objects.get(key).filter(|_| state.fault != Fault::Gone || method == "HEAD") else {
        return refuse(stream, "404 Not Found", "NoSuchKey", "There is no such key");
    };
    let mut tag = tag(bytes);
    if state.fault == Fault::Changed && method == "GET" {
        tag = "\"another\"".to_owned();
    }
    let start: usize =
        range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok()).unwrap_or(0);
    let mut headers = vec![("ETag", tag), ("Last-Modified", "Sat, 01 Mar 2025 00:00:00 GMT".to_owned())];
    if range.is_some() {
        headers.push(("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())));
    }
    let is_cut = match &mut state.fault {
        Fault::Cut(n) if method == "GET" => Fault::counts(n),
        _ => false,
    };
    let body = &bytes[start..];
    let sent = match method {
        "HEAD" => &[],
        _ if is_cut => &body[..body.len() / 2],
        _ => body,
    };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    respond(stream, status, &headers, sent, body.len())
}

fn refuse(stream: &mut TcpStream, status: &str, code: &str, message: &str) -> std::io::Result<()> {
    let text = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    respond(stream, status, &[], text.as_bytes(), text.len())
}

/// Announces a body and sends what is given of it.
fn respond(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, String)],
    body: &[u8],
    length: usize,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)
}

fn tag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:x}\"", hasher.finish())
}

/// What stands in an address, without its `%…`.
fn plain(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}
