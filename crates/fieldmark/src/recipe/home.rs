//! `~` at the start of a path is the home folder. A shell does not expand it inside quotes, in a file, or behind `=`.

use std::path::{MAIN_SEPARATOR, Path};

use toml::Table;

use super::paths::{READ, texts};

/// Replaces `~` in every path of a recipe by `home`.
///
/// # Errors
/// Returns the key and what is wrong if a path begins with the home folder of another user, or if there is no `home`.
pub(super) fn expand(table: &mut Table, home: Option<&Path>) -> Result<(), (&'static str, String)> {
    for key in std::iter::once("output").chain(READ) {
        for text in texts(table, key) {
            let Some(rest) = text.strip_prefix('~') else { continue };
            let own = rest.is_empty() || rest.starts_with('/') || rest.starts_with(MAIN_SEPARATOR);
            let problem = match home.filter(|home| !home.as_os_str().is_empty()) {
                Some(home) if own => {
                    let rest = rest.trim_start_matches(['/', MAIN_SEPARATOR]);
                    *text = home.join(rest).to_string_lossy().into_owned();
                    continue;
                }
                None if own => "the home folder is not known",
                _ => "only ~/ is expanded, to your own home folder",
            };
            let reason =
                format!("{text:?}: {problem}; write the whole path, or ./{text} for a name that begins with ~");
            return Err((key, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, home: Option<&str>) -> Result<Table, (&'static str, String)> {
        let mut table: Table = text.parse().unwrap();
        expand(&mut table, home.map(Path::new)).map(|()| table)
    }

    #[test]
    fn every_path_key_knows_the_home_folder() {
        let keys = std::iter::once("output").chain(READ);
        for key in keys.filter(|key| !["eval.files", "data.prefixes"].contains(key)) {
            let table = expanded(&format!("{key} = \"~/a/b\""), Some("/home/me")).unwrap();
            assert_eq!(table.to_string().matches("\"/home/me/a/b\"").count(), 1, "{key}");
        }
        let text = "eval.files = [\"~/x\", \"./~\", \"a~\"]\ndata.prefixes.\"~\" = \"~\"\ndata.question = \"~/x\"";
        let table = expanded(text, Some("/home/me")).unwrap();
        let files: Vec<_> = table["eval"]["files"].as_array().unwrap().iter().map(|file| file.as_str()).collect();
        assert_eq!(files, [Some("/home/me/x"), Some("./~"), Some("a~")]);
        assert_eq!(table["data"]["prefixes"]["~"].as_str().map(Path::new), Some(Path::new("/home/me/")));
        assert_eq!(table["data"]["question"].as_str(), Some("~/x"));
    }

    #[test]
    fn another_home_or_none_is_refused_with_the_key() {
        for (text, home, key) in [
            ("output = \"~ann/x\"", Some("/home/me"), "output"),
            ("eval.files = [\"a\", \"~/x\"]", None, "eval.files"),
            ("model.path = \"~/x\"", Some(""), "model.path"),
        ] {
            assert_eq!(expanded(text, home).unwrap_err().0, key);
        }
    }
}
