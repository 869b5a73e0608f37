//! The description of REST: a change of it is a change for every client, so it is seen in review.

use api::openapi::document;

#[test]
fn the_description_is_what_clients_were_told() {
    insta::assert_json_snapshot!("openapi", document());
}
