//! A forecast as a picture: drawn by the service, by what is stored.

use forecast::Trajectories;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::spawn_blocking;

use crate::support::browser::Browser;
use crate::support::{Service, load_panel, register, store_forecast};

/// 41 trajectories of two series over six hours: `heat` is 10 to 90 in each hour, `wind` is 0 to 4.
fn trajectories() -> Trajectories {
    let value = |index: usize| {
        let (sample, series) = ((index / 12) as f32, index % 2);
        if series == 0 { 10.0 + 2.0 * sample } else { 0.1 * sample }
    };
    Trajectories::new(41, 1, 6, 2, (0..41 * 6 * 2).map(value).collect()).unwrap()
}

async fn with_stored(pool: &PgPool) -> (Service, String) {
    let service = Service::start(pool).await;
    let loaded = load_panel(pool, "city", 48).await;
    let model = register(pool, &loaded, "none", &"a".repeat(64)).await;
    let forecast_id = store_forecast(pool, &loaded, &model, &trajectories()).await;
    (service, format!("/v1/forecasts/{forecast_id}/plot"))
}

/// The points of the lines of a colour and a width.
fn lines(svg: &str, colour: &str, width: u32) -> Vec<Vec<(u32, u32)>> {
    let of_line = |line: &str| {
        let attribute =
            |name: &str| line.split_once(&format!("{name}=\"")).unwrap().1.split_once('"').unwrap().0.to_owned();
        let point = |text: &str| {
            let (x, y) = text.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        let is_wanted = attribute("stroke") == colour && attribute("stroke-width") == width.to_string();
        is_wanted.then(|| attribute("points").split_whitespace().map(point).collect())
    };
    svg.lines().filter(|line| line.starts_with("<polyline")).filter_map(of_line).collect()
}

/// A picture as a browser reads it: its size, the colours at places of the drawing, of which it has two pixels in each direction,
/// and how many pixels of its heading are dark.
async fn seen(service: &Service, picture: &str, places: Vec<(u32, u32)>) -> (Value, Vec<[u8; 3]>, u64) {
    let (page, picture) = (service.address("/jobs"), json!(picture));
    let look = format!(
        "(async () => {{
            const image = new Image();
            image.src = {picture};
            await image.decode();
            const canvas = Object.assign(document.createElement('canvas'), {{ width: image.naturalWidth, height: image.naturalHeight }});
            const drawn = canvas.getContext('2d');
            drawn.drawImage(image, 0, 0);
            const at = ([x, y]) => [...drawn.getImageData(2 * x, 2 * y, 1, 1).data].slice(0, 3);
            const heading = drawn.getImageData(2 * 80, 2 * 10, 2 * 100, 2 * 26).data;
            return {{
                size: [canvas.width, canvas.height],
                colours: {}.map(at),
                dark: heading.filter((value, index) => index % 4 === 0 && value < 90).length,
            }};
        }})()",
        json!(places)
    );
    let seen = spawn_blocking(move || {
        let mut browser = Browser::open(800, 600);
        browser.visit(&page);
        browser.evaluate(&look)
    })
    .await
    .unwrap();
    let colours = serde_json::from_value(seen["colours"].clone()).unwrap();
    (seen["size"].clone(), colours, seen["dark"].as_u64().unwrap())
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_picture_in_png_has_the_colours_of_the_drawing_where_it_has_them(pool: PgPool) {
    let (service, plot) = with_stored(&pool).await;
    let asked = format!("{plot}?series=heat&level=90&samples=0&highlight=41");
    let (svg, png) = (service.get(&asked).await, service.get_as(&asked, "text/html, image/png").await);
    assert_eq!((svg.status, svg.header("content-type")), (200, Some("image/svg+xml")));
    assert_eq!((png.status, png.header("content-type")), (200, Some("image/png")));
    assert!(png.header("content-disposition").unwrap().ends_with(".png\""));
    let svg = svg.text();
    assert!(svg.contains("Trajectory 41") && svg.contains("90 % interval") && !svg.contains("50 % interval"), "{svg}");

    let [median] = lines(&svg, "#0B6EA8", 2).try_into().unwrap();
    let [highlighted] = lines(&svg, "#B4540A", 2).try_into().unwrap();
    assert_eq!((median.len(), highlighted.len()), (6, 6));
    // Between two steps, where nothing else crosses.
    let ((x, middle), (_, highest)) = ((u32::midpoint(median[2].0, median[3].0), median[2].1), highlighted[2]);
    let places = vec![(x, middle), (x, highest), (x, middle - (middle - highest) / 2), (x, highest - 4)];
    let (size, colours, n_dark) = seen(&service, &format!("{asked}&format=png"), places).await;
    assert_eq!(size, json!([2 * 960, 2 * 380]));
    assert_eq!(colours[0], [11, 110, 168], "the median");
    assert_eq!(colours[1], [180, 84, 10], "the highest trajectory");
    let expected = [11, 110, 168].map(|shade| 255.0 - 0.15 * (255.0 - f64::from(shade)));
    let is_near = |(shade, expected): (u8, f64)| (f64::from(shade) - expected).abs() <= 2.0;
    assert!(colours[2].into_iter().zip(expected).all(is_near), "the interval: {:?}, not {expected:?}", colours[2]);
    assert_eq!(colours[3], [255, 255, 255], "above everything");
    assert!((60..2_000).contains(&n_dark), "the name of the series is written: {n_dark} dark pixels");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_cannot_be_drawn_is_refused(pool: PgPool) {
    let (service, plot) = with_stored(&pool).await;
    let both = service.get_as(&plot, "image/*").await.text();
    assert!(both.contains("\nheat\n") && both.contains("\nwind\n") && both.contains("m/s"), "all series: {both}");
    assert_eq!(lines(&both, "#0B6EA8", 2).len(), 2);
    for (query, code) in [
        ("level=100", "invalid-parameter"),
        ("samples=1001", "invalid-parameter"),
        ("highlight=0", "invalid-parameter"),
        ("format=gif", "invalid-parameter"),
        ("paths=3", "invalid-parameter"),
    ] {
        service.get(&format!("{plot}?{query}")).await.problem(400, code);
    }
    service.get(&format!("{plot}?series=sun")).await.problem(404, "unknown-series");
    service.get_as(&plot, "application/json").await.problem(406, "not-acceptable");
    service.get("/v1/forecasts/x/plot").await.problem(404, "unknown-forecast");
    sqlx::query("delete from trajectory").execute(&pool).await.unwrap();
    service.get(&plot).await.problem(404, "no-trajectories");
}
