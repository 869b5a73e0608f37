//! The private Postgres: who starts it, who stops it, and that nothing is lost whoever dies.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::support::plumecast;

/// A folder that every user can enter.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// `plumecast dev-db --data-dir DIR`, running until it is told to stop.
pub struct Running {
    child: Child,
    /// Where to connect to it.
    pub url: String,
}

impl Running {
    /// Starts it and waits until the database is there.
    pub fn start(data_dir: &Path) -> Self {
        // The command ends when its input does: when we close it, or die.
        let mut child = Command::new(plumecast())
            .args(["dev-db", "--data-dir"])
            .arg(data_dir)
            .args(["--", "sh", "-c", "echo $DATABASE_URL; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("postgres://"), "no database: {url:?}");
        Self { child, url: url.trim().to_owned() }
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.url).await
    }

    async fn rows(&self) -> Vec<i32> {
        let mut connection = self.connect().await.unwrap();
        sqlx::query_scalar("select n from kept order by n").fetch_all(&mut connection).await.unwrap()
    }

    async fn insert(&self, n: i32) {
        let mut connection = self.connect().await.unwrap();
        sqlx::query("create table if not exists kept (n integer)").execute(&mut connection).await.unwrap();
        sqlx::query("insert into kept (n) values ($1)").bind(n).execute(&mut connection).await.unwrap();
    }

    /// Lets it end in order.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends it without a chance to tidy up.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Runs it with a command that does nothing; the status and what it complains about.
fn try_start(data_dir: &Path) -> (ExitStatus, String) {
    let output =
        Command::new(plumecast()).args(["dev-db", "--data-dir"]).arg(data_dir).args(["--", "true"]).output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn an_orderly_stop_and_a_new_start_find_everything() {
    let folder = folder();
    let first = Running::start(folder.path());
    first.insert(1).await;
    first.stop();

    let second = Running::start(folder.path());
    assert_eq!(second.rows().await, [1]);
    let log = fs::read_to_string(folder.path().join("postgres/log")).unwrap();
    assert!(!log.contains("automatic recovery in progress"), "{log}");
    second.stop();
}

#[tokio::test]
async fn a_second_command_attaches_and_stops_nothing() {
    let folder = folder();
    let owner = Running::start(folder.path());
    let guest = Running::start(folder.path());
    assert_eq!(owner.url, guest.url);
    guest.insert(1).await;
    guest.stop();

    assert_eq!(owner.rows().await, [1]);
    let url = owner.url.clone();
    owner.stop();
    assert!(PgConnection::connect(&url).await.is_err(), "the owner stops it");
}

#[tokio::test]
async fn a_killed_owner_takes_the_server_along_and_the_next_finds_everything() {
    let folder = folder();
    let owner = Running::start(folder.path());
    owner.insert(1).await;
    owner.kill();

    // At once, while the old server may still be stopping.
    let next = Running::start(folder.path());
    assert_eq!(next.rows().await, [1]);
    next.insert(2).await;
    next.kill();

    let last = Running::start(folder.path());
    assert_eq!(last.rows().await, [1, 2]);
    last.stop();
    // The kernel told each server to stop, which it did in order.
    let log = fs::read_to_string(folder.path().join("postgres/log")).unwrap();
    assert_eq!(log.matches("received fast shutdown request").count(), 3, "{log}");
    assert!(!log.contains("automatic recovery in progress"), "{log}");
}

#[tokio::test]
async fn a_guest_survives_its_owner_only_as_a_new_owner() {
    let folder = folder();
    let owner = Running::start(folder.path());
    owner.insert(1).await;
    let guest = Running::start(folder.path());
    owner.kill();

    let next = Running::start(folder.path());
    assert_eq!(next.rows().await, [1]);
    guest.stop();
    assert_eq!(next.rows().await, [1], "the former guest owns nothing");
    next.stop();
}

#[tokio::test]
async fn commands_that_start_together_agree_on_one_owner() {
    let folder = folder();
    let start = || {
        let path = folder.path().to_owned();
        tokio::task::spawn_blocking(move || Running::start(&path))
    };
    let (a, b, c) = tokio::join!(start(), start(), start());
    let all = [a.unwrap(), b.unwrap(), c.unwrap()];
    for running in &all {
        assert_eq!(running.url, all[0].url);
        assert!(running.connect().await.is_ok());
    }
    let log = fs::read_to_string(folder.path().join("postgres/log")).unwrap();
    assert_eq!(log.matches("ready to accept connections").count(), 1, "{log}");
    // Guests first is the polite order; any other works, too.
    for running in all {
        drop(running.child.stdin);
    }
}

#[test]
fn data_of_another_version_are_refused_and_left_alone() {
    let folder = folder();
    Running::start(folder.path()).stop();
    let version = folder.path().join("postgres/data/PG_VERSION");
    let right = fs::read_to_string(&version).unwrap();
    fs::write(&version, "9\n").unwrap();

    let (status, message) = try_start(folder.path());
    assert!(!status.success());
    assert!(message.contains("was made by PostgreSQL 9"), "{message}");

    fs::write(&version, right).unwrap();
    assert!(try_start(folder.path()).0.success());
}

/// A program that is no server, run by the user that the server runs as.
fn bystander(data_dir: &Path, current_dir: &Path) -> Child {
    let owner = fs::metadata(data_dir.join("postgres")).unwrap().uid();
    Command::new("cat").uid(owner).current_dir(current_dir).stdin(Stdio::piped()).spawn().unwrap()
}

fn write_pid_file(data_dir: &Path, pid: u32) {
    let data = data_dir.join("postgres/data");
    let text = format!("{pid}\n{}\n1700000000\n5432\n/somewhere/else\n\n  1 2\nready   \n", data.display());
    fs::write(data.join("postmaster.pid"), text).unwrap();
}

#[test]
fn a_pid_file_left_behind_does_not_matter() {
    let folder = folder();
    Running::start(folder.path()).stop();

    let mut ended = bystander(folder.path(), Path::new("/"));
    let pid = ended.id();
    drop(ended.stdin.take());
    ended.wait().unwrap();
    write_pid_file(folder.path(), pid);
    let (status, message) = try_start(folder.path());
    assert!(status.success(), "its number belongs to nobody: {message}");

    let mut alive = bystander(folder.path(), Path::new("/"));
    write_pid_file(folder.path(), alive.id());
    let (status, message) = try_start(folder.path());
    assert!(status.success(), "its number belongs to another program: {message}");
    drop(alive.stdin.take());
    alive.wait().unwrap();
}

#[test]
fn a_server_that_somebody_else_started_is_left_alone() {
    let folder = folder();
    Running::start(folder.path()).stop();
    let data = folder.path().join("postgres/data");
    // By what can be seen from outside, a process that works in the data folder is a server.
    let mut server = Command::new("cat").current_dir(&data).stdin(Stdio::piped()).spawn().unwrap();
    write_pid_file(folder.path(), server.id());

    let (status, message) = try_start(folder.path());
    assert!(!status.success());
    assert!(message.contains("another PostgreSQL server"), "{message}");
    assert_eq!(server.try_wait().unwrap(), None);
    drop(server.stdin.take());
    server.wait().unwrap();
}

#[test]
fn an_interrupted_first_start_is_made_up_for() {
    let folder = folder();
    Running::start(folder.path()).stop();
    let postgres = folder.path().join("postgres");
    fs::rename(postgres.join("data"), postgres.join("data.incomplete")).unwrap();
    fs::remove_dir_all(postgres.join("data.incomplete/base")).unwrap();

    let (status, message) = try_start(folder.path());
    assert!(status.success(), "{message}");
    assert!(!postgres.join("data.incomplete").exists());
}

#[test]
fn what_the_server_said_is_shown_when_it_does_not_start() {
    let folder = folder();
    Running::start(folder.path()).stop();
    let configuration = folder.path().join("postgres/data/postgresql.conf");
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, text + "\nno_such_setting = 1\n").unwrap();

    let (status, message) = try_start(folder.path());
    assert!(!status.success());
    assert!(message.contains("no_such_setting"), "{message}");
}

#[test]
fn a_data_folder_with_a_very_long_path_works() {
    let folder = folder();
    let long = folder.path().join("x".repeat(120));
    let running = Running::start(&long);
    let (_, host) = running.url.split_once("host=").unwrap();
    let socket_dir = PathBuf::from(host.split('&').next().unwrap());
    assert!(socket_dir.starts_with("/tmp"), "{}", running.url);
    running.stop();
    fs::remove_dir(socket_dir).unwrap();
}

#[test]
fn nobody_else_can_enter_the_folders() {
    let folder = folder();
    Running::start(folder.path()).stop();
    for name in ["postgres", "postgres/data", "postgres/run"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The binary where every user can run it, since the folder that it was built in may be closed to others.
fn plumecast_for_all(folder: &Path) -> PathBuf {
    let copy = folder.join("plumecast");
    fs::copy(plumecast(), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    copy
}

/// Runs `dev-db` as another user, with a data folder of that user.
fn try_start_as(binary: &Path, uid: u32, data_dir: &Path) -> (ExitStatus, String) {
    fs::create_dir(data_dir).unwrap();
    std::os::unix::fs::chown(data_dir, Some(uid), Some(uid)).unwrap();
    let output = Command::new(binary)
        .uid(uid)
        .gid(uid)
        .current_dir("/")
        .args(["dev-db", "--data-dir"])
        .arg(data_dir)
        .args(["--", "true"])
        .output()
        .unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_ordinary_user_needs_an_entry_in_passwd() {
    if !is_root() {
        // The other tests run as an ordinary user then, and we cannot become another.
        return;
    }
    const NOBODY: u32 = 65_534;
    const NOT_IN_PASSWD: u32 = 1_234_567;
    let folder = folder();
    let binary = plumecast_for_all(folder.path());

    let (status, message) = try_start_as(&binary, NOBODY, &folder.path().join("nobody"));
    assert!(status.success(), "{message}");
    let (status, message) = try_start_as(&binary, NOT_IN_PASSWD, &folder.path().join("nameless"));
    assert!(!status.success());
    assert!(message.contains("user 1234567 has no entry in /etc/passwd"), "{message}");
}

#[test]
fn a_folder_that_the_server_cannot_reach_is_named() {
    if !is_root() {
        // An ordinary user runs the server as itself.
        return;
    }
    let closed = folder();
    fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
    let (status, message) = try_start(&closed.path().join("data"));
    assert!(!status.success());
    assert!(message.contains(&format!("who may not enter {}", closed.path().display())), "{message}");
}

#[test]
fn a_database_for_a_command_goes_with_it() {
    let temporary = folder();
    let mut command = Command::new(plumecast());
    command.env("TMPDIR", temporary.path()).args(["dev-db", "--"]);

    let status = command.args(["sh", "-c", "test -n \"$DATABASE_URL\" && exit 7"]).status().unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn a_signal_is_passed_on_to_the_command() {
    let temporary = folder();
    let mut child = Command::new(plumecast())
        .env("TMPDIR", temporary.path())
        .args(["dev-db", "--", "sh", "-c", "echo ready; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();

    // `wait` would close the pipe, and `cat` could end by that before the signal reaches it.
    let open_input = child.stdin.take();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    drop(open_input);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// An address that nobody listens at.
fn free_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A command on a private Postgres, whatever database the tests use.
fn private(command: &str, data_dir: &Path) -> Command {
    let mut private = Command::new(plumecast());
    private.env_remove("DATABASE_URL").args([command, "--data-dir"]).arg(data_dir);
    private
}

#[tokio::test]
async fn by_tcp_only_the_reader_gets_in_and_only_with_its_password() {
    let folder = folder();
    let address = free_address();
    let mut service = private("serve", folder.path())
        .args(["--listen", "127.0.0.1:0", "--postgres-listen", &address.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = lines.by_ref().take_while(|line| !line.contains("listening on http")).collect();
    // Whatever else it logs is read away, so that it never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    let password_file = folder.path().join("reader_password");
    let hint = format!(
        "dashboards may read {address} as `plumecast_reader`, with the password in {}",
        password_file.display()
    );
    assert!(said.contains(&hint), "{said:?}");
    assert_eq!(fs::metadata(&password_file).unwrap().mode() & 0o777, 0o600);

    let password = fs::read_to_string(&password_file).unwrap();
    let connect = async |user: &str, password: &str| {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(address.port()).username(user);
        let options = options.password(password).database("plumecast").ssl_mode(PgSslMode::Disable);
        PgConnection::connect_with(&options).await
    };
    let code = |result: sqlx::Result<PgConnection>| {
        result.unwrap_err().as_database_error().and_then(|error| error.code()).unwrap().into_owned()
    };
    let mut reader = connect("plumecast_reader", password.trim()).await.unwrap();
    let n_panels: i64 =
        sqlx::query_scalar("select count(*) from dashboard_panel").fetch_one(&mut reader).await.unwrap();
    assert_eq!(n_panels, 0);
    assert_eq!(code(connect("plumecast_reader", "wrong").await), "28P01");
    assert_eq!(code(connect("plumecast", password.trim()).await), "28000", "the owner has no business there");

    // Others find the socket, which has another name now.
    let output = private("migrate", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = private("migrate", folder.path()).args(["--postgres-listen", &address.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let other = free_address().to_string();
    let output = private("migrate", folder.path()).args(["--postgres-listen", &other]).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains(&format!("without --postgres-listen {other}")), "{complaint}");

    assert!(Command::new("kill").arg(service.id().to_string()).status().unwrap().success());
    assert!(service.wait().unwrap().success());
    assert!(connect("plumecast_reader", password.trim()).await.is_err(), "the owner stops it");
}
