//! Owns the page with charts: the report's JSON and what draws it, in one file without anything from elsewhere.
//! Does not know what the figures mean; the script reads the names that the report gives them.
//! Invariant: whatever a report says, it is data in the page and never markup.

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const CHARTS: &str = include_str!("charts.js");
const SCRIPT: &str = include_str!("page.js");

/// The page of a report of scenarios, given as JSON.
pub fn page(json: &str) -> String {
    // In JSON this character is only found within strings, where it may be written so.
    let data = json.replace('<', "\\u003c");
    PAGE.replacen("/*STYLE*/", STYLE, 1)
        .replacen("/*CHARTS*/", CHARTS, 1)
        .replacen("/*SCRIPT*/", SCRIPT, 1)
        .replacen("/*DATA*/", &data, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_in_the_page_and_nothing_is_fetched() {
        let page = page("{\"reason\": \"</script><b>\"}");
        for missing in ["/*STYLE*/", "/*CHARTS*/", "/*SCRIPT*/", "/*DATA*/"] {
            assert!(!page.contains(missing), "{missing}");
        }
        for fetched in ["http://", "https://", "src=", "@import", "url(", "<link"] {
            let found = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(fetched), "{fetched}");
        }
        assert!(page.contains("\\u003c/script>\\u003cb>"), "data is data");
        assert_eq!(page.matches("</script>").count(), 2);
    }
}
