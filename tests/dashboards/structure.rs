//! The form of the dashboards, by what Grafana 10 to 13 read: names of keys, values of enumerations, and that all parts
//! fit together. A key that Grafana does not know is ignored there without a word, so it is an error here.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::model::{Dashboard, dashboards, list, text};

/// Lists of words, in one text each.
const DASHBOARD: &str = "uid title description tags schemaVersion version editable graphTooltip timezone weekStart \
    fiscalYearStartMonth liveNow refresh time timepicker links annotations templating panels";
const PANEL: &str = "id type title description gridPos datasource targets fieldConfig options links";
const SQL_TARGET: &str = "refId datasource format rawQuery editorMode rawSql";
const PROMETHEUS_TARGET: &str = "refId datasource editorMode expr legendFormat range instant format";
const VARIABLE: &str = "name type label description hide datasource query definition refresh sort multi includeAll regex \
    skipUrlSync current options";
const LINK: &str = "type title icon tags asDropdown includeVars keepTime targetBlank tooltip url";
const ANNOTATION: &str = "name enable hide iconColor datasource target";
const DEFAULTS: &str = "color mappings thresholds unit decimals min max custom noValue links";
const CURVES: &str = "drawStyle lineInterpolation lineWidth fillOpacity pointSize showPoints spanNulls axisPlacement \
    axisLabel axisBorderShow gradientMode scaleDistribution stacking thresholdsStyle hideFrom fillBelowTo lineStyle";
/// Of each kind of panel, what is below `fieldConfig.defaults.custom`, and its `options`.
const KINDS: &[(&str, &str, &str)] = &[
    ("timeseries", CURVES, "legend tooltip"),
    ("trend", CURVES, "legend tooltip xField"),
    (
        "barchart",
        "lineWidth fillOpacity gradientMode axisPlacement axisLabel axisBorderShow scaleDistribution hideFrom thresholdsStyle",
        "xField orientation showValue stacking barWidth groupWidth barRadius fullHighlight xTickLabelRotation \
         xTickLabelSpacing legend tooltip",
    ),
    (
        "histogram",
        "lineWidth fillOpacity gradientMode stacking hideFrom",
        "bucketCount bucketOffset bucketSize combine legend tooltip",
    ),
    ("table", "align cellOptions inspect width hidden", "showHeader cellHeight sortBy"),
    ("stat", "", "reduceOptions orientation textMode colorMode graphMode justifyMode"),
];
/// Values of enumerations, by key.
const WORDS: &[(&str, &str)] = &[
    ("drawStyle", "line bars points"),
    ("lineInterpolation", "linear smooth stepBefore stepAfter"),
    ("showPoints", "auto never always"),
    ("axisPlacement", "auto left right hidden"),
    ("gradientMode", "none opacity hue scheme"),
    ("displayMode", "list table"),
    ("placement", "bottom right"),
    ("textMode", "auto value value_and_name name none"),
    ("colorMode", "none value background"),
    ("graphMode", "none area"),
    ("orientation", "auto horizontal vertical"),
    ("showValue", "auto always never"),
    ("cellHeight", "sm md lg"),
    ("editorMode", "code"),
];
const UNITS: &str = "s locale short percentunit bytes reqps";
const SOURCES: &[(&str, &str)] =
    &[("plumecast-postgres", "grafana-postgresql-datasource"), ("plumecast-prometheus", "prometheus")];

/// Whether a word is in a list of them.
fn has(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|known| known == word)
}

#[track_caller]
fn check_keys(object: &Json, known: &str, place: &str) {
    for key in object.as_object().unwrap_or_else(|| panic!("{place} is no object")).keys() {
        assert!(has(known, key), "{place}: Grafana does not know `{key}`");
    }
}

/// Looks at every value below an object for the enumerations.
fn check_words(value: &Json, place: &str) {
    match value {
        Json::Object(object) => object.iter().for_each(|(key, value)| {
            if let (Some((_, words)), Some(word)) = (WORDS.iter().find(|(name, _)| name == key), value.as_str()) {
                assert!(has(words, word), "{place}: {key} is {word}");
            }
            check_words(value, place);
        }),
        Json::Array(values) => values.iter().for_each(|value| check_words(value, place)),
        _ => {}
    }
}

fn check_source(object: &Json, place: &str) {
    let source = (text(&object["datasource"]["uid"]), text(&object["datasource"]["type"]));
    assert!(SOURCES.contains(&source), "{place}: {source:?}");
}

fn check_panel(panel: &Json, place: &str) {
    let kind = text(&panel["type"]);
    check_keys(panel, PANEL, place);
    check_words(panel, place);
    check_source(panel, place);
    assert!(text(&panel["description"]).len() > 10, "{place} says nothing about itself");
    let (_, custom, options) =
        KINDS.iter().find(|(known, ..)| *known == kind).unwrap_or_else(|| panic!("{place}: a panel of type {kind}"));
    check_keys(&panel["options"], options, place);
    let defaults = &panel["fieldConfig"]["defaults"];
    check_keys(defaults, DEFAULTS, place);
    if !defaults["custom"].is_null() {
        check_keys(&defaults["custom"], custom, place);
    }
    let mut units = vec![defaults["unit"].as_str()];
    for rule in list(&panel["fieldConfig"]["overrides"]) {
        for property in list(&rule["properties"]) {
            let id = text(&property["id"]);
            let is_known = match id.strip_prefix("custom.") {
                Some(id) => has(custom, id),
                None => id == "displayName" || has(DEFAULTS, id),
            };
            assert!(is_known, "{place}: no property {id}");
            assert!(!property["value"].is_null(), "{place}: {id} has no value");
            if id == "unit" {
                units.push(property["value"].as_str());
            }
        }
    }
    units.into_iter().flatten().for_each(|unit| assert!(has(UNITS, unit), "{place}: unit {unit}"));

    let mut references = BTreeSet::new();
    for target in list(&panel["targets"]) {
        check_source(target, place);
        check_keys(target, if target["expr"].is_null() { SQL_TARGET } else { PROMETHEUS_TARGET }, place);
        assert!(references.insert(text(&target["refId"])), "{place}: two queries have one name");
        assert_eq!(target["datasource"], panel["datasource"], "{place}");
    }
    assert!(!references.is_empty(), "{place} asks nothing");
}

/// Panels lie in 24 columns and do not overlap.
fn check_places(dashboard: &Dashboard) {
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard.json["panels"]) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}: two panels have one number", dashboard.file);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{}: {}", dashboard.file, panel["title"]);
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
            assert!(taken.insert(cell), "{}: {} lies on another panel", dashboard.file, panel["title"]);
        }
    }
}

/// Variables that are used are there, and do not use later ones.
fn check_variables(dashboard: &Dashboard) {
    let mut known: Vec<&str> = vec![];
    let missing = |value: &Json, known: &[&str]| {
        let all = value.to_string();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        all.split('$')
            .skip(1)
            .map(|rest| rest.trim_start_matches('{').split(|c| !is_word(c)).next().unwrap_or_default().to_owned())
            .find(|name| !name.is_empty() && !name.starts_with("__") && !known.contains(&name.as_str()))
    };
    for variable in dashboard.variables() {
        check_keys(variable, VARIABLE, &dashboard.file);
        assert_eq!(missing(&variable["query"], &known), None, "{}, variable {}", dashboard.file, variable["name"]);
        assert!(["query", "custom"].contains(&text(&variable["type"])));
        if variable["type"] == "query" {
            check_source(variable, &dashboard.file);
            assert_eq!(variable["query"], variable["definition"]);
        }
        known.push(text(&variable["name"]));
    }
    for key in ["panels", "annotations", "links"] {
        assert_eq!(missing(&dashboard.json[key], &known), None, "{}", dashboard.file);
    }
}

#[test]
fn dashboards_have_the_form_that_grafana_reads() {
    let all = dashboards();
    assert!(all.len() >= 6, "the dashboards are found");
    let uids: BTreeSet<&str> = all.iter().map(|dashboard| text(&dashboard.json["uid"])).collect();
    assert_eq!(uids.len(), all.len(), "two dashboards have one uid");
    for dashboard in &all {
        let json = &dashboard.json;
        check_keys(json, DASHBOARD, &dashboard.file);
        // Grafana cuts or refuses longer ones.
        assert!(
            text(&json["uid"]).len() <= 40 && text(&json["title"]).starts_with("Plumecast / "),
            "{}",
            dashboard.file
        );
        assert_eq!(
            json["schemaVersion"], 39,
            "{}: older versions load it as it is, newer ones migrate it",
            dashboard.file
        );
        for end in ["from", "to"] {
            assert!(text(&json["time"][end]).starts_with("now"), "{}", dashboard.file);
        }
        for panel in dashboard.panels() {
            check_panel(panel, &format!("{}, {}", dashboard.file, panel["title"]));
        }
        check_places(dashboard);
        check_variables(dashboard);
        for link in list(&json["links"]) {
            check_keys(link, LINK, &dashboard.file);
        }
        // Links lead to dashboards that exist.
        let whole = json.to_string();
        for target in whole.split("/d/").skip(1) {
            let uid = target.split(['?', '"', '/']).next().unwrap();
            assert!(uids.contains(uid), "{}: a link to {uid}", dashboard.file);
        }
        for annotation in dashboard.annotations() {
            check_keys(annotation, ANNOTATION, &dashboard.file);
            check_keys(&annotation["target"], SQL_TARGET, &dashboard.file);
        }
    }
}
