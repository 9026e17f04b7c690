//! The program `larder-server`.

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    std::process::exit(engine::main_with_args(&args));
}
