//! Compiles the protos without protoc, and keeps their descriptors for
//! reflection and for the golden file.

use std::path::PathBuf;

use prost::Message as _;

const FILES: &[&str] = &[
    "berth/join/v1/service.proto",
    "berth/join/v1/telemetry.proto",
    "berth/join/v1/bundle.proto",
    "berth/admin/v1/tokens.proto",
    "berth/admin/v1/joins.proto",
    "berth/admin/v1/nodes.proto",
    "berth/admin/v1/spans.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=berth");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut published = descriptors.clone();
    // Comments and places in files are no part of the wire.
    published.file.iter_mut().for_each(|file| file.source_code_info = None);
    std::fs::write(out.join("descriptors.bin"), published.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .codec_path("crate::codec::SmallBuffers")
        .compile_fds(descriptors)?;
    Ok(())
}
