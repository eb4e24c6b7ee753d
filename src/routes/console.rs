//! `GET /`: the console, a page to produce and consume on through the endpoints that all clients
//! use; and `GET /console/topics`, the one answer that is for the page alone.
//!
//! ```text
//! GET /                 index.html ─┬─▶ PageFile: ETag, gzip, Content-Security-Policy
//! GET /console/<file>   the rest   ─┘
//! GET /console/topics   user ─▶ client ─▶ ReadableTopics, asked for once in two seconds
//! ```
//!
//! None of it is there unless `server.console-enabled`.

mod page_file;
mod readable_topics;
mod topics;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use warp::filters::BoxedFilter;
use warp::{Filter, Reply};

use self::page_file::PageFile;
use self::readable_topics::ReadableTopics;
use crate::app::App;
use crate::auth::ClientIdentity;

/// The routes of the page and of its listing.
pub(super) fn routes(app: App) -> BoxedFilter<(warp::reply::Response,)> {
    let mut routes = topics_route(app);
    for &(name, content) in FILES {
        let path = match name {
            INDEX => warp::path::end().boxed(),
            name => warp::path("console")
                .and(warp::path(name))
                .and(warp::path::end())
                .boxed(),
        };
        let file = PageFile::new(name, content);
        routes = routes.or(page_route(path, file)).unify().boxed();
    }
    routes
}

/// The paths that are answered; the other files of the page are known to its index alone.
pub(super) const PATHS: [&str; 2] = ["/", "/console/topics"];

fn page_route(path: BoxedFilter<()>, file: PageFile) -> BoxedFilter<(warp::reply::Response,)> {
    let file = Arc::new(file);
    path.and(warp::get())
        .and(warp::header::headers_cloned())
        .map(move |headers: HeaderMap| file.response(&headers))
        .map(Response::<Bytes>::into_response)
        .boxed()
}

fn topics_route(app: App) -> BoxedFilter<(warp::reply::Response,)> {
    let readable = ReadableTopics::new(&app.config);
    let state = warp::any().map(move || (app.clone(), readable.clone()));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::path!("console" / "topics")
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<ClientIdentity>())
        .map(|headers, identity| (headers, identity))
        .and(query)
        .and(state)
        .then(topics::topics)
        .map(Response::<String>::into_response)
        .boxed()
}

/// The page itself, at `/`.
const INDEX: &str = "index.html";

/// Every file of the page, with its content; those beside [`INDEX`] are at `/console/<name>`.
const FILES: &[(&str, &[u8])] = &[
    (INDEX, include_bytes!("console/index.html")),
    (
        "connect_panel.js",
        include_bytes!("console/connect_panel.js"),
    ),
    ("connection.js", include_bytes!("console/connection.js")),
    ("console.css", include_bytes!("console/console.css")),
    ("consumer.js", include_bytes!("console/consumer.js")),
    ("copy.js", include_bytes!("console/copy.js")),
    ("credentials.js", include_bytes!("console/credentials.js")),
    ("formats.js", include_bytes!("console/formats.js")),
    ("icon.svg", include_bytes!("console/icon.svg")),
    ("json_text.js", include_bytes!("console/json_text.js")),
    ("main.js", include_bytes!("console/main.js")),
    ("panels.js", include_bytes!("console/panels.js")),
    ("parameters.js", include_bytes!("console/parameters.js")),
    ("produce_form.js", include_bytes!("console/produce_form.js")),
    (
        "record_details.js",
        include_bytes!("console/record_details.js"),
    ),
    ("records.js", include_bytes!("console/records.js")),
    ("snippets.js", include_bytes!("console/snippets.js")),
    ("state.js", include_bytes!("console/state.js")),
    ("topic_view.js", include_bytes!("console/topic_view.js")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/routes/console");
        let there = std::fs::read_dir(folder).unwrap().map(|entry| {
            let name = entry.unwrap().file_name();
            name.into_string().unwrap()
        });
        // The picture is the README's.
        let of_the_page = |name: &String| !name.ends_with(".rs") && !name.ends_with(".png");
        let mut there: Vec<_> = there.filter(of_the_page).collect();
        let mut served: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        there.sort();
        served.sort();
        assert_eq!(served, there);
    }
}
