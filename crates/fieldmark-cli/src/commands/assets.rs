//! Files that the repository has beside the code: photographs and the base model of the Field Guide.

use std::path::PathBuf;

/// Returns the folder `assets/NAME` of the repository if it has the file `proof`. It is looked for in the current folder and,
/// if Cargo runs the command, beside the package.
pub(super) fn asset(name: &str, proof: &str) -> Option<PathBuf> {
    let here = PathBuf::from("assets").join(name);
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map(|folder| PathBuf::from(folder).join("../../assets").join(name));
    [Some(here), package].into_iter().flatten().find(|folder| folder.join(proof).is_file())
}
