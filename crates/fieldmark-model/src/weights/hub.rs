//! Recognises a name on the Hugging Face hub where a folder is expected.

use std::path::{Component, Path};

/// Returns what to do if a path that does not exist may be a name on the hub.
pub(crate) fn download_hint(path: &Path) -> Option<String> {
    let name = hub_name(path)?;
    let into = name.rsplit('/').next().unwrap_or(&name);
    Some(format!(
        "there is no such folder, and nothing is downloaded; if it is a name on the Hugging Face hub, run `hf download \
         {name} --local-dir {into}` and give that folder"
    ))
}

/// Returns `owner/name` if a path that does not exist may be a name on the hub, as it is or in a web address.
fn hub_name(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let in_address = text.split_once("huggingface.co/").or_else(|| text.split_once("hf.co/")).map(|(_, rest)| rest);
    let in_address = in_address.or_else(|| text.strip_prefix("hf://").map(|rest| rest.trim_start_matches("models/")));
    let name = in_address.map_or(text, |rest| rest.trim_end_matches('/'));
    let mut parts = Path::new(name).components();
    let (Some(Component::Normal(owner)), Some(Component::Normal(model))) = (parts.next(), parts.next()) else {
        return None;
    };
    let is_word = |part: &std::ffi::OsStr| {
        let text = part.to_string_lossy();
        !text.starts_with('.') && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    // A folder of that name beside it means a misspelt path.
    let misspelt = in_address.is_none() && (parts.next().is_some() || Path::new(owner).exists());
    (is_word(owner) && is_word(model) && !misspelt)
        .then(|| format!("{}/{}", owner.to_string_lossy(), model.to_string_lossy()))
}
