//! The first administrator: `root`, with a random password that only the machine's owner can read.
//!
//! Why: in the original whoever registers the name `root` first rules the system, and the shipped token is everybody's.
//! How: when there is no user `root`, a password is drawn, written to `<data_dir>/admin-password` (mode 0600, created
//! exclusively), and then the user is made. A crash in between leaves a file of no user, which the next start replaces.

use super::{Portal, password, user};
use anyhow::{Context, Result};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The name of the first administrator.
pub const NAME: &str = "root";
const FILE: &str = "admin-password";

/// Creates `root` if nobody has that name, and returns the password, to be shown once.
pub async fn ensure_root(portal: &Portal, data_dir: &Path) -> Result<Option<String>> {
    if user::by_name(portal, NAME).await.context("cannot look for the user root")?.is_some() {
        return Ok(None);
    }
    let password = password::random_password()?;
    let path = data_dir.join(FILE);
    write_secret(&path, &password).with_context(|| format!("cannot write {}", path.display()))?;
    let profile = user::Profile { cnname: NAME.to_string(), ..user::Profile::default() };
    let hash = password::hash(&password).await?;
    user::create(portal, NAME, &hash, &profile, user::ROOT, 0).await.context("cannot create the user root")?;
    Ok(Some(password))
}

/// Writes a secret into a new file. A file that is there already is a leftover, and is removed and not written into,
/// for others might have it open.
fn write_secret(path: &Path, secret: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{secret}\n").as_bytes())?;
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::password::Verdict;
    use crate::portal::tests::temporary;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn root_is_made_once() -> Result<()> {
        let (dir, portal) = temporary().await?;
        let path = dir.path().join(FILE);
        fs::write(&path, "left over")?;
        let password = ensure_root(&portal, dir.path()).await?.context("must be new")?;
        assert!(password.len() >= 20);
        assert_eq!(fs::read_to_string(&path)?, format!("{password}\n"));
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        let (root, stored) = user::with_password(&portal, "root").await?.context("must exist")?;
        assert_eq!(root.role, user::ROOT);
        assert_eq!(password::verify(&password, &stored, "").await?, Verdict::Right);
        assert_eq!(ensure_root(&portal, dir.path()).await?, None);
        assert_eq!(fs::read_to_string(&path)?, format!("{password}\n"));
        Ok(())
    }

    #[tokio::test]
    async fn an_unwritable_directory_is_named_and_leaves_no_user() -> Result<()> {
        let (dir, portal) = temporary().await?;
        let missing = dir.path().join("missing");
        let error = ensure_root(&portal, &missing).await.err().context("must fail")?;
        assert!(format!("{error:#}").contains("missing/admin-password"), "{error:#}");
        assert_eq!(user::by_name(&portal, "root").await?, None);
        Ok(())
    }
}
