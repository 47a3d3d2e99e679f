//! A quorum that speaks TLS: one certificate for all servers.
//!
//! In: a directory and a version. Out: two stores in it, and the lines of zoo.cfg that name them. Deliberately absent:
//! certificates that anybody should trust.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::tls::Version;

const PASSWORD: &str = "changeit";

/// Makes a key with its certificate, and a store that trusts it.
pub(super) fn certify(root: &Path) -> Result<()> {
    keytool(
        root,
        &[
            "-genkeypair",
            "-keyalg",
            "EC",
            "-groupname",
            "secp256r1",
            "-dname",
            "CN=localhost",
            "-validity",
            "2",
            "-keystore",
            "key.p12",
        ],
    )?;
    keytool(root, &["-exportcert", "-keystore", "key.p12", "-file", "certificate"])?;
    keytool(root, &["-importcert", "-noprompt", "-keystore", "trust.p12", "-file", "certificate"])
}

fn keytool(root: &Path, args: &[&str]) -> Result<()> {
    let mut command = Command::new("keytool");
    command.args(args).args(["-alias", "quorum", "-storetype", "PKCS12", "-storepass", PASSWORD]);
    let output = command.current_dir(root).stdin(Stdio::null()).output().context("cannot start keytool")?;
    ensure!(output.status.success(), "keytool failed: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// The lines of zoo.cfg.
pub(super) fn settings(root: &Path, version: Version) -> Vec<(String, String)> {
    let (protocol, cipher) = match version {
        Version::V12 => ("TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        Version::V13 => ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    };
    let mut lines = vec![("sslQuorum".to_owned(), "true".to_owned())];
    for (store, file) in [("keyStore", "key.p12"), ("trustStore", "trust.p12")] {
        let path = root.join(file).display().to_string();
        for (name, value) in [("location", path.as_str()), ("password", PASSWORD), ("type", "PKCS12")] {
            lines.push((format!("ssl.quorum.{store}.{name}"), value.to_owned()));
        }
    }
    for (name, value) in [
        ("hostnameVerification", "false"),
        ("protocol", protocol),
        ("enabledProtocols", protocol),
        ("ciphersuites", cipher),
    ] {
        lines.push((format!("ssl.quorum.{name}"), value.to_owned()));
    }
    lines
}
