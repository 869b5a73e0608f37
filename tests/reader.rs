//! The role that dashboards read with: what it sees, what it may not do, and that it can be made again.

use std::process::Command;

use api::db;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::support::{load_panel, plumecast};

const PASSWORD: &str = "it's a \"test\"";

/// A role of this test alone, since roles belong to the whole server.
pub struct Reader {
    pub name: String,
    pub connection: PgConnection,
}

impl Reader {
    /// Makes the role and connects as it.
    pub async fn connect(pool: &PgPool) -> Self {
        let name = format!("reader_{}", Uuid::now_v7().simple());
        db::reader::ensure(pool, &name, Some(PASSWORD)).await.unwrap();
        let options: PgConnectOptions = (*pool.connect_options()).clone().username(&name).password(PASSWORD);
        let connection = PgConnection::connect_with(&options).await.unwrap();
        Self { name, connection }
    }

    /// Removes the role.
    pub async fn remove(self, pool: &PgPool) {
        self.connection.close().await.unwrap();
        let name = self.name;
        // The name is made of letters and digits.
        sqlx::raw_sql(AssertSqlSafe(format!("drop owned by {name}; drop role {name}"))).execute(pool).await.unwrap();
    }

    /// The SQLSTATE of a statement that fails.
    async fn refusal(&mut self, statement: String) -> String {
        let error = sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut self.connection).await;
        let error = error.expect_err(&statement);
        error.as_database_error().and_then(|error| error.code()).unwrap_or_else(|| panic!("{error}")).into_owned()
    }
}

const NOT_PERMITTED: &str = "42501";
const READ_ONLY: &str = "25006";

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_reader_sees_the_views_of_dashboards_and_nothing_else(pool: PgPool) {
    load_panel(&pool, "city", 48).await;
    let mut reader = Reader::connect(&pool).await;

    let relations: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v')",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let (views, others): (Vec<_>, Vec<_>) = relations.into_iter().partition(|name| name.starts_with("dashboard_"));
    assert!(views.len() >= 8 && others.len() > 10, "{views:?}, {others:?}");
    for name in views {
        let select = format!("select count(*) from {name}");
        sqlx::query(AssertSqlSafe(select)).execute(&mut reader.connection).await.unwrap();
    }
    for name in others {
        assert_eq!(reader.refusal(format!("select from \"{name}\"")).await, NOT_PERMITTED, "{name}");
    }
    let n_values: i64 = sqlx::query_scalar("select count(*) from dashboard_total_actual('1', $1, 'sum', $2, $3)")
        .bind(vec!["1".to_owned(), "2".to_owned()])
        .bind(crate::support::hour(0))
        .bind(crate::support::hour(9))
        .fetch_one(&mut reader.connection)
        .await
        .unwrap();
    assert_eq!(n_values, 10);

    // Even without the setting that makes its transactions read-only.
    for statement in ["create table mine ()", "insert into tenant (name) values ('x')", "drop view dashboard_panel"] {
        assert_eq!(reader.refusal(statement.to_owned()).await, READ_ONLY, "{statement}");
    }
    sqlx::query("set default_transaction_read_only = off").execute(&mut reader.connection).await.unwrap();
    for statement in ["create table mine ()", "insert into tenant (name) values ('x')", "drop view dashboard_panel"] {
        assert_eq!(reader.refusal(statement.to_owned()).await, NOT_PERMITTED, "{statement}");
    }
    let limit: String = sqlx::query_scalar("show statement_timeout").fetch_one(&mut reader.connection).await.unwrap();
    assert_eq!(limit, "30s");
    reader.remove(&pool).await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn nobody_else_may_call_the_functions_of_dashboards(pool: PgPool) {
    let stranger = format!("stranger_{}", Uuid::now_v7().simple());
    let open: Vec<String> = {
        sqlx::query(AssertSqlSafe(format!("create role {stranger}"))).execute(&pool).await.unwrap();
        let open = sqlx::query_scalar(
            "select proname::text from pg_proc
             where proname like 'dashboard\\_%' and prosecdef and has_function_privilege($1, oid, 'execute')",
        )
        .bind(&stranger)
        .fetch_all(&pool)
        .await
        .unwrap();
        sqlx::query(AssertSqlSafe(format!("drop role {stranger}"))).execute(&pool).await.unwrap();
        open
    };
    assert_eq!(open, Vec::<String>::new());
    // A body of text would be read with the search path of whoever calls it.
    let late: Vec<String> = sqlx::query_scalar(
        "select proname::text from pg_proc where proname like 'dashboard\\_%' and prosecdef and prosqlbody is null",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(late, Vec::<String>::new());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_role_that_exists_is_brought_up_to_date(pool: PgPool) {
    let mut reader = Reader::connect(&pool).await;
    // What it got by mistake goes, what a newer version brought comes.
    let grant = format!("grant select on tenant to {}", reader.name);
    sqlx::query(AssertSqlSafe(grant)).execute(&pool).await.unwrap();
    sqlx::query("create view dashboard_newer as select 1 as one").execute(&pool).await.unwrap();
    db::reader::ensure(&pool, &reader.name, None).await.unwrap();

    assert_eq!(reader.refusal("select from tenant".to_owned()).await, NOT_PERMITTED);
    let one: i32 =
        sqlx::query_scalar("select one from dashboard_newer").fetch_one(&mut reader.connection).await.unwrap();
    assert_eq!(one, 1);
    reader.remove(&pool).await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_role_that_may_do_more_is_refused(pool: PgPool) {
    let owner: String = sqlx::query_scalar("select current_user::text").fetch_one(&pool).await.unwrap();
    let refused = db::reader::ensure(&pool, &owner, None).await;
    assert!(matches!(&refused, Err(db::reader::Error::TooMighty { role }) if *role == owner), "{refused:?}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn migrate_makes_the_role(pool: PgPool) {
    let options = pool.connect_options();
    let socket = options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string());
    let url = format!(
        "postgres:///{}?host={socket}&port={}&user={}",
        options.get_database().unwrap(),
        options.get_port(),
        options.get_username()
    );
    let name = format!("reader_{}", Uuid::now_v7().simple());
    let run = |arguments: Vec<String>| {
        let mut command = Command::new(plumecast());
        command.env("DATABASE_URL", &url).env("PLUMECAST_READER_PASSWORD", "hush").arg("migrate").args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let output = run(vec!["--reader-role".to_owned(), name.clone()]).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said, format!("dashboards may read the database as `{name}`, with the password that was given\n"));
    let reader: PgConnectOptions = (*options).clone().username(&name).password("hush");
    let connection = PgConnection::connect_with(&reader).await.unwrap();
    Reader { name, connection }.remove(&pool).await;

    let output = run(vec!["--postgres-listen".to_owned(), "127.0.0.1:5433".to_owned()]).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("is for the private Postgres"), "{said}");
    let output = run(vec!["--reader-role".to_owned(), "two words".to_owned()]).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("must be 1 to 63 letters"), "{said}");
}
