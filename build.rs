//! Tells cargo that new migrations have to be embedded again.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
