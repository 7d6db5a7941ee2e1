//! Old api: checks of the keys that name the neighbours of a module which runs alone.

use super::Mode;
use settings::Faults;

/// Checks `plus_api`, `plus_api_token` and `push_api` of a section: all are needed where its module runs alone, and
/// none elsewhere. The texts themselves stay out of the errors.
pub(super) fn check(section: &str, mode: Option<Mode>, runs: bool, keys: [&str; 3], faults: &mut Faults) {
    let [plus_api, token, push_api] = keys;
    let api = "http://api:8080";
    // An agent's route for pushes, or a transfer's.
    let push = "http://127.0.0.1:1988/v1/push\" of an agent, or \"http://transfer:6060/api/push";
    for (key, url, like) in [("plus_api", plus_api, api), ("push_api", push_api, push)] {
        let is_web = |url: reqwest::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !url.is_empty() && !url.parse().is_ok_and(is_web) {
            faults.add(format!("{section}.{key} is no URL with http:// or https://: give one, like \"{like}\""));
        }
    }
    for (key, text) in [("plus_api", plus_api), ("plus_api_token", token), ("push_api", push_api)] {
        let runs_alone = mode == Some(Mode::Modules) && runs;
        if runs_alone && text.is_empty() {
            faults.add(format!("{section}.{key} is \"\": {section} alone needs it; give what the old cfg.json has"));
        }
        if mode.is_some() && !runs_alone && !text.is_empty() {
            faults.add(format!("{section}.{key} is for roles = [\"{section}\"], beside an old api: leave it \"\""));
        }
    }
}
