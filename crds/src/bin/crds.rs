//! Prints the CRDs as YAML: `cargo run -p crds > crds/cacheclusters.yaml`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", crds::schema::crd_yaml()?);
    Ok(())
}
