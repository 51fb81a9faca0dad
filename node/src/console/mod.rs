//! The console: pages for people, served by every node from within the binary.
//!
//! `shell/` holds what all pages share: the frame, the API's client, the parts they are built from. Each folder in `pages/` is one
//! page; what is in it is served as it is, so that a new page is a new folder and nothing else. Its `page.json` says where it stands
//! in the menu: `{"title": "Overview", "order": 10}`; its `page.js` exports `show(place, context)`.
//!
//! In a debug build the files are read from the source folder whenever they are asked for.

use std::sync::LazyLock;

use axum::{
    Json, Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{EmbeddedFile, RustEmbed};
use serde::{Deserialize, Serialize};

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/src/console/shell"]
struct Shell;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/src/console/pages"]
struct Pages;

/// A page, as the menu has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Page {
    /// Its folder.
    #[serde(default)]
    name: String,
    title: String,
    order: u32,
}

/// All pages in the order of the menu.
static MENU: LazyLock<Vec<Page>> = LazyLock::new(|| {
    let mut pages: Vec<Page> = Pages::iter()
        .filter_map(|path| {
            let name = path.strip_suffix("/page.json")?;
            let page: Page = serde_json::from_slice(&Pages::get(&path)?.data).ok()?;
            Some(Page {
                name: name.to_owned(),
                ..page
            })
        })
        .collect();
    pages.sort_by_key(|page| page.order);
    pages
});

/// Everything that a browser loads.
pub(crate) fn router() -> Router {
    Router::new()
        .route(
            "/",
            get(|headers: HeaderMap| async move { file(Shell::get("index.html"), "index.html", &headers) }),
        )
        .route("/console/menu.json", get(|| async { Json(&*MENU) }))
        .route(
            "/console/shell/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move { file(Shell::get(&path), &path, &headers) }),
        )
        .route(
            "/console/pages/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move { file(Pages::get(&path), &path, &headers) }),
        )
}

/// A file, unless the browser has it already.
fn file(found: Option<EmbeddedFile>, path: &str, headers: &HeaderMap) -> Response {
    let Some(found) = found else {
        return (StatusCode::NOT_FOUND, "there is no such file").into_response();
    };
    let tag = found.metadata.sha256_hash()[..8]
        .iter()
        .fold(String::from("\""), |tag, byte| format!("{tag}{byte:02x}"))
        + "\"";
    let kept = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::CONTENT_TYPE, kind(path).to_owned()),
    ];
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if is_known {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    (kept, found.data.into_owned()).into_response()
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the issue of a newcomer would be: a page that the menu does not show, or two in one place.
    #[test]
    fn every_folder_is_a_page_with_a_place_of_its_own() {
        let folders: BTreeSet<String> = Pages::iter()
            .filter_map(|path| Some(path.split_once('/')?.0.to_owned()))
            .collect();
        let told: BTreeSet<String> = MENU.iter().map(|page| page.name.clone()).collect();
        assert_eq!(folders, told);
        let orders: BTreeSet<u32> = MENU.iter().map(|page| page.order).collect();
        assert_eq!(orders.len(), MENU.len());
        for page in &*MENU {
            assert!(Pages::get(&format!("{}/page.js", page.name)).is_some(), "{}", page.name);
        }
    }

    /// What is loaded at first must be little: the shell and any one page.
    #[test]
    fn the_first_view_is_below_200_kilobytes() {
        let shell: usize = Shell::iter()
            .filter_map(|path| Some(Shell::get(&path)?.data.len()))
            .sum();
        for page in &*MENU {
            let of_page = Pages::iter().filter(|path| path.starts_with(&format!("{}/", page.name)));
            let bytes: usize = of_page.filter_map(|path| Some(Pages::get(&path)?.data.len())).sum();
            assert!(shell + bytes < 200_000, "{}: {} bytes", page.name, shell + bytes);
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for path in Shell::iter().chain(Pages::iter()) {
            let data = Shell::get(&path).or_else(|| Pages::get(&path)).expect("listed");
            let text = String::from_utf8_lossy(&data.data).into_owned();
            let foreign = text.match_indices("http").find(|(at, _)| {
                let rest = &text[*at..];
                let is_link = rest.starts_with("http://") || rest.starts_with("https://");
                is_link && !rest.starts_with("http://www.w3.org/")
            });
            assert_eq!(foreign, None, "{path}");
        }
    }
}
