//! Writes `crates/api/src/proto` from `crates/api/proto`, without protoc: one module for each package, the descriptors for
//! reflection, and the sums by which a test sees that both belong together. Run it in the repository's root: `make proto`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use prost::Message;
use sha2::{Digest, Sha256};

const PROTO: &str = "crates/api/proto";
const GENERATED: &str = "crates/api/src/proto";

fn main() -> anyhow::Result<()> {
    let protos = files(Path::new(PROTO), "proto")?;
    let descriptors = protox::compile(&protos, [PROTO])?;
    fs::write(
        Path::new(GENERATED).join("descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        // `connect` would need tonic's own transport wherever the code is compiled.
        .build_transport(false)
        .out_dir(GENERATED)
        .compile_fds(descriptors)?;
    let written = settle(files(Path::new(GENERATED), "rs")?)?;
    let formatted = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .args(&written)
        .status()
        .context("cannot run rustfmt")?;
    ensure!(formatted.success(), "rustfmt has failed");
    write_sums(&protos, &written)
}

/// Moves `catalog.v1.rs` to `catalog/v1.rs`, as Rust has its modules.
fn settle(written: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let mut settled = Vec::new();
    for from in written {
        let stem = from.file_stem().and_then(OsStr::to_str);
        let place = stem.unwrap_or_default().replace('.', "/");
        let to = from.with_file_name(place + ".rs");
        if let Some(folder) = to.parent().filter(|_| to.file_name() != from.file_name()) {
            fs::create_dir_all(folder)?;
            fs::rename(&from, &to)?;
            settled.push(to);
        }
    }
    Ok(settled)
}

/// As `sha256sum` writes and checks them.
fn write_sums(protos: &[PathBuf], written: &[PathBuf]) -> anyhow::Result<()> {
    let mut sums = String::new();
    for path in protos.iter().chain(written) {
        let digest = Sha256::digest(fs::read(path)?);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        sums += &format!("{digest}  {}\n", path.display());
    }
    fs::write(Path::new(GENERATED).join("SHA256SUMS"), sums)?;
    Ok(())
}

fn files(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension() == Some(OsStr::new(extension))
            && path.file_name() != Some(OsStr::new("mod.rs"))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
