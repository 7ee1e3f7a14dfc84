//! A new migration must reach the binary: the compiler alone notices changed files, not added ones.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
