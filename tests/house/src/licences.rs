//! Licences: everything in Cargo.lock may be given away together under Apache-2.0.
//!
//! How: `cargo metadata` has the SPDX expression of each package, for all platforms. Advisories are another matter:
//! they change without the repository, need a network, and are asked for by .github/workflows/ci.yml.

use spdx::{Expression, LicenseReq, ParseMode};

/// Licences that ask for no more than Apache-2.0 itself does: to be named, and to keep their text.
const COMPATIBLE: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages under another licence, and why each may stay.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("inferno", "CDDL-1.0", "copyleft by file; linked unchanged, and its source is on crates.io")];

/// What is wrong with the licence of a package, if anything.
fn objection(package: &str, licence: Option<&str>) -> Option<String> {
    let Some(licence) = licence else { return Some(format!("{package} names no licence")) };
    // Lax: `MIT/Apache-2.0` is how crates wrote OR before SPDX.
    let expression = match Expression::parse_mode(licence, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("{package}: {licence:?} is no SPDX expression: {}", error.reason)),
    };
    let allowed = expression.evaluate(|wanted| is_compatible(wanted) || is_exception(package, wanted));
    (!allowed).then(|| format!("{package}: {licence:?} is not on the list of tests/house/src/licences.rs"))
}

/// An addition (`WITH …`) gives more rights to a licence and takes none.
fn is_compatible(wanted: &LicenseReq) -> bool {
    wanted.license.id().is_some_and(|id| COMPATIBLE.contains(&id.name))
}

fn is_exception(package: &str, wanted: &LicenseReq) -> bool {
    let licence = wanted.license.id().map(|id| id.name);
    EXCEPTIONS.iter().any(|(name, allowed, _)| *name == package && licence == Some(*allowed))
}

#[cfg(test)]
mod tests {
    use super::{EXCEPTIONS, objection};
    use crate::crates::metadata;

    fn is_fine(licence: &str) -> bool {
        objection("some", Some(licence)).is_none()
    }

    #[test]
    fn expressions_are_understood() {
        for licence in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "GPL-3.0-only OR MIT",
            "(MIT OR GPL-2.0-only) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(is_fine(licence), "{licence}");
        }
        for licence in [
            "GPL-3.0-only",
            "AGPL-3.0-or-later",
            "MIT AND GPL-2.0-only",
            "MPL-2.0",
            "(GPL-2.0-only OR MIT) AND SSPL-1.0",
            "LicenseRef-ours",
            "",
            "free for all",
        ] {
            assert!(!is_fine(licence), "{licence}");
        }
        assert_eq!(objection("some", None).as_deref(), Some("some names no licence"));
    }

    #[test]
    fn an_exception_is_for_its_package_alone() {
        let (package, licence, _) = EXCEPTIONS[0];
        assert_eq!(objection(package, Some(licence)), None);
        assert!(objection("some", Some(licence)).is_some());
    }

    #[test]
    fn packages_of_the_lock_file_are_compatible_with_ours() {
        let metadata = metadata(&[]);
        let packages = metadata["packages"].as_array().expect("packages are a list");
        assert!(packages.len() > 100, "{} packages: the lock file has some hundreds", packages.len());
        let objections: Vec<String> = packages
            .iter()
            .filter_map(|package| objection(package["name"].as_str().unwrap_or_default(), package["license"].as_str()))
            .collect();
        assert!(objections.is_empty(), "{}", objections.join("\n"));
        for (exception, _, _) in EXCEPTIONS {
            let is_there = packages.iter().any(|package| package["name"] == exception);
            assert!(is_there, "{exception} is not in the lock file any more: take it off EXCEPTIONS");
        }
    }
}
