//! The Grafana dashboards: every query of every one is put together by Grafana's rules and run as the reader role, on a
//! database that the program's own commands have filled.

mod alerts;
mod grafana;
mod model;
mod plans;
mod prometheus;
mod queries;
mod render;
mod structure;
