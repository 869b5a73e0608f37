//! A browser without a window, driven through its debugging pipe (Chrome DevTools Protocol).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for an answer, and for what a page is to show.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command that starts a browser without a window.
pub fn chromium() -> Command {
    let mut command = Command::new(program());
    command.args(FLAGS);
    command
}

fn program() -> &'static str {
    let found = ["/usr/bin/chromium", "/usr/bin/google-chrome"].into_iter().find(|path| Path::new(path).exists());
    found.expect("./run test installs Chromium")
}

const FLAGS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one page. It ends when it is dropped.
pub struct Browser {
    process: Child,
    requests: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    n_requests: u64,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with a window of so many pixels.
    pub fn open(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The browser reads requests from descriptor 3 and writes to 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>&2", "sh", program()]).args(FLAGS);
        command.args(["--remote-debugging-pipe", &format!("--window-size={width},{height}")]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let requests = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (send, messages) = channel();
        thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                if send.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        let (session, complaints) = (None, vec![]);
        let mut browser = Self { process, requests, messages, session, n_requests: 0, complaints, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens an address, and waits until it and all that it loads are there.
    pub fn visit(&mut self, address: &str) {
        let answer = self.call("Page.navigate", json!({"url": address}));
        assert_eq!(answer["errorText"], Value::Null, "{address}");
        self.wait_for(&format!("location.href === {} && document.readyState === 'complete'", json!(address)));
    }

    /// The value of an expression of JavaScript.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", parameters);
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true; pages may come and go meanwhile.
    pub fn wait_for(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        // What is not there yet is not an error. A page that goes away takes its answer with it, and the next one is asked.
        let met = format!(
            "new Promise((resolve) => {{
                 const until = performance.now() + 1000;
                 const look = () => {{
                     let met = false;
                     try {{ met = Boolean({expression}) }} catch {{}}
                     if (met || performance.now() > until) resolve(met);
                     else setTimeout(look, 20);
                 }};
                 look();
             }})"
        );
        while self.evaluate(&met) != true {
            if Instant::now() > until {
                let page = self.evaluate("location.href + '\\n' + document.body.innerText");
                panic!("never: {expression}\n{}\n{:?}", page.as_str().unwrap_or_default(), self.complaints);
            }
        }
    }

    /// The text that an element shows.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({}).innerText", json!(selector)));
        text.as_str().unwrap().to_owned()
    }

    /// Clicks on the element of a selector that has a text.
    pub fn click(&mut self, selector: &str, text: &str) {
        self.wait_for("document.readyState === 'complete'");
        let find = format!(
            "[...document.querySelectorAll({})].find((element) => element.textContent.includes({}))",
            json!(selector),
            json!(text)
        );
        self.wait_for(&find);
        self.evaluate(&format!("{find}.click()"));
    }

    /// Fills in a field, as if it had been typed and left.
    pub fn fill(&mut self, selector: &str, value: &str) {
        let field = format!("document.querySelector({})", json!(selector));
        self.wait_for(&format!("document.readyState === 'complete' && {field}"));
        self.evaluate(&format!(
            "{field}.value = {}; {field}.dispatchEvent(new Event('change', {{ bubbles: true }}))",
            json!(value)
        ));
    }

    /// Errors that pages have met since the last call.
    pub fn complaints(&mut self) -> Vec<String> {
        self.evaluate("0");
        std::mem::take(&mut self.complaints)
    }

    /// Makes a request of the protocol, and waits for its answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.send(method, parameters);
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {method}"));
            if message["id"] == id {
                // A page that goes away while it is asked something has nothing to say.
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn send(&mut self, method: &str, parameters: Value) -> u64 {
        self.n_requests += 1;
        let mut request = json!({"id": self.n_requests, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.requests.write_all(format!("{request}\0").as_bytes()).unwrap();
        self.n_requests
    }

    /// Keeps what a page complains of, and answers its questions with yes.
    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Page.javascriptDialogOpening") => {
                self.send("Page.handleJavaScriptDialog", json!({"accept": true}));
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                self.complaints.push(parameters["args"].to_string());
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
