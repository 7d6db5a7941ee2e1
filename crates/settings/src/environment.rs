//! Environment: the variables of the process that may be keys.
//!
//! Why a filter: orchestrators put variables of their own beside ours. Kubernetes adds `<NAME>_SERVICE_HOST`,
//! `<NAME>_PORT` and the like for each Service of the namespace, and one may be called `hawkeye`.
//! Invariants: a variable of others is left out, whatever its bytes are; one of ours that is no UTF-8 is an error that
//! names it.

use anyhow::{Result, bail};
use std::ffi::OsString;

/// Prefix of every variable that the programs read as a key.
const OURS: &str = "HAWKEYE_";

/// Names and values of the process's variables, without those of others that are no text.
pub fn variables() -> Result<Vec<(String, String)>> {
    read(std::env::vars_os())
}

fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(_) if is_of_a_service(&name) => {}
            Ok(value) => found.push((name, value)),
            Err(_) if name.starts_with(OURS) => bail!("environment variable {name} is not UTF-8"),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// True for what Kubernetes adds for a Service whose name begins with ours. A key has `__` between its levels, and no
/// key of the first level ends like these.
fn is_of_a_service(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(OURS).filter(|rest| !rest.contains("__")) else { return false };
    let rest = format!("_{rest}");
    let is_port = |at: usize| {
        let behind = &rest[at + "_PORT".len()..];
        behind.is_empty() || behind.starts_with('_') && behind[1..].starts_with(|c: char| c.is_ascii_digit())
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || rest.match_indices("_PORT").any(|(at, _)| is_port(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn variables_of_services_are_no_keys() {
        let check = |name: &str, left_out: bool| assert_eq!(is_of_a_service(name), left_out, "{name}");
        for name in ["HAWKEYE_PORT", "HAWKEYE_SERVICE_HOST", "HAWKEYE_SERVICE_PORT", "HAWKEYE_SERVICE_PORT_HTTP"] {
            check(name, true);
        }
        check("HAWKEYE_AGENT_SERVICE_HOST", true);
        check("HAWKEYE_PORT_8080_TCP_ADDR", true);
        check("HAWKEYE_AGENT_PORT_1988_TCP", true);
        check("HAWKEYE_ALARM__SMTP__PORT", false);
        check("HAWKEYE_PORTAL__URL", false);
        check("HAWKEYE_DATA_DIR", false);
        check("OTHER_SERVICE_HOST", false);
    }

    #[test]
    fn bytes_of_others_are_left_out_and_ours_are_named() {
        let text = |text: &str| OsString::from(text);
        let wild = || OsString::from_vec(vec![b'a', 0xff]);
        let read = |name: OsString| read([(name, wild()), (text("PATH"), text("/bin"))].into_iter());
        assert_eq!(read(text("BAD")).expect("left out"), [("PATH".to_string(), "/bin".to_string())]);
        assert_eq!(read(wild()).expect("left out").len(), 1);
        let error = read(text("HAWKEYE_LOG")).expect_err("ours").to_string();
        assert_eq!(error, "environment variable HAWKEYE_LOG is not UTF-8");
    }
}
