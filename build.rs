//! Generates the CSI bindings from `proto/csi.proto`.
//!
//! The proto file is compiled in-process by protox, so no `protoc` is needed.
//! Every field that the specification marks `csi_secret` is redacted in the
//! `Debug` output of its message: a request may be logged without a thought.

use prost_reflect::{Kind, MessageDescriptor, Value};
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/csi.proto");
    println!("cargo::rerun-if-changed=build.rs");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_file("csi.proto")?;
    let pool = compiler.descriptor_pool();
    let secret = pool.get_extension_by_name("csi.v1.csi_secret").ok_or("proto/csi.proto does not define csi_secret")?;
    let is_secret = |field: &prost_reflect::FieldDescriptor| {
        matches!(field.options().get_extension(&secret).as_ref(), Value::Bool(true))
    };

    let mut redacted = String::new();
    let mut skip = Vec::new();
    for message in pool.all_messages() {
        if message.parent_file().package_name() != "csi.v1" || message.is_map_entry() {
            continue;
        }
        if message.fields().any(|field| is_secret(&field)) {
            skip.push(format!(".{}", message.full_name()));
            write_debug(&mut redacted, &message, is_secret)?;
        }
    }
    if skip.is_empty() {
        return Err("no csi_secret field found: secrets would be logged".into());
    }

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("redacted.rs"), redacted)?;
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        // Maps in the domain's own type and in a stable order.
        .btree_map(".")
        .skip_debug(skip)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Writes an `impl Debug` for one message that has secret fields.
fn write_debug(
    out: &mut String,
    message: &MessageDescriptor,
    is_secret: impl Fn(&prost_reflect::FieldDescriptor) -> bool,
) -> Result<(), Box<dyn Error>> {
    let name = message.name();
    writeln!(out, "impl ::core::fmt::Debug for {name} {{")?;
    writeln!(out, "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{")?;
    writeln!(out, "        f.debug_struct(\"{name}\")")?;
    let mut oneofs = Vec::new();
    for field in message.fields() {
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            // Fields of a oneof live in one enum member of the struct.
            if !oneofs.contains(&oneof.name().to_owned()) {
                oneofs.push(oneof.name().to_owned());
                writeln!(out, "            .field(\"{0}\", &self.{0})", oneof.name())?;
            }
            continue;
        }
        let ident = match field.name() {
            "type" => "r#type",
            other => other,
        };
        if is_secret(&field) {
            let has_many = field.is_map() || field.is_list();
            let check = if has_many || matches!(field.kind(), Kind::String | Kind::Bytes) {
                format!("if self.{ident}.is_empty() {{ \"[none]\" }} else {{ \"[redacted]\" }}")
            } else {
                "\"[redacted]\"".to_owned()
            };
            writeln!(out, "            .field(\"{}\", &{{ {check} }})", field.name())?;
        } else {
            writeln!(out, "            .field(\"{}\", &self.{ident})", field.name())?;
        }
    }
    writeln!(out, "            .finish()")?;
    writeln!(out, "    }}\n}}")?;
    Ok(())
}
