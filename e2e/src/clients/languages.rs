//! The languages of the clients' programs, and what stands in for one where a tool comes by itself.

use crate::failure::Result;
use crate::sh;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A language: what names its libraries' versions, and how these are installed and a program is run.
pub(super) struct Language {
    /// Of the project, with the programs.
    pub(super) folder: &'static str,
    /// The file that names the versions.
    pub(super) versions: &'static str,
    /// Debian packages, and a program of each, without which it does not run.
    pub(super) packages: &'static [(&'static str, &'static str)],
    pub(super) install: fn(source: &Path, into: &Path) -> Result,
    pub(super) command: fn(source: &Path, installed: &Path, words: &[&str]) -> Result<Command>,
}

pub(super) const PYTHON: Language = Language {
    folder: "examples/clients/python",
    versions: "requirements.txt",
    packages: &[("python3-venv", "python3")],
    install: |source, into| {
        sh::run(Command::new("python3").args(["-m", "venv"]).arg(into))?;
        let mut pip = Command::new(into.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        sh::run(pip.arg(source.join("requirements.txt"))).map(|_| ())
    },
    command: |source, installed, words| {
        let mut python = Command::new(installed.join("bin/python"));
        python.arg(source.join(words[0])).args(&words[1..]);
        Ok(python)
    },
};

/// Libraries that want another one in a version of long ago.
pub(super) const OLD_PYTHON: Language =
    Language { folder: "examples/clients/python_old", ..PYTHON };

pub(super) const NODE: Language = Language {
    folder: "examples/clients/node",
    versions: "package.json",
    packages: &[("nodejs", "node"), ("npm", "npm")],
    install: |source, into| {
        fs::copy(source.join("package.json"), into.join("package.json"))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]);
        sh::run(npm.current_dir(into)).map(|_| ())
    },
    command: |source, installed, words| {
        // A module is looked for beside the program.
        fs::copy(source.join(words[0]), installed.join(words[0]))?;
        let mut node = Command::new("node");
        node.arg(installed.join(words[0]));
        Ok(node)
    },
};

pub(super) const GO: Language = Language {
    folder: "examples/clients/go",
    versions: "go.sum",
    packages: &[("golang-go", "go")],
    install: |_, _| Ok(()),
    command: |source, installed, words| {
        let program = installed.join(words[0]);
        let mut build = Command::new("go");
        build.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
        sh::run(build.current_dir(source).env("GOFLAGS", "").env("GOWORK", "off"))?;
        Ok(Command::new(program))
    },
};

pub(super) const JAVA: Language = Language {
    folder: "examples/clients/java",
    versions: "pom.xml",
    packages: &[("default-jdk-headless", "java"), ("maven", "mvn")],
    install: |source, into| {
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode", "--file"]).arg(source.join("pom.xml"));
        maven.arg("dependency:copy-dependencies");
        let libraries = format!("-DoutputDirectory={}", into.join("lib").display());
        sh::run(maven.arg(libraries)).map(|_| ())
    },
    command: |source, installed, words| {
        let mut java = Command::new("java");
        java.arg("-cp").arg(installed.join("lib/*")).arg(source.join(words[0]));
        Ok(java)
    },
};

/// Tools that watch what an application does from inside.
pub(super) const AGENTS: Language = Language { folder: "e2e/tools/agents", ..PYTHON };

pub(super) const REDIS_COMMANDER: Language = Language {
    folder: "e2e/tools/redis-commander",
    install: |source, into| {
        fs::copy(source.join("package.json"), into.join("package.json"))?;
        let mut npm = Command::new("npm");
        // What it would compile is for passwords of its own users, and it does without.
        npm.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]);
        sh::run(npm.arg("--ignore-scripts").current_dir(into)).map(|_| ())
    },
    ..NODE
};

/// In the version that this release of Debian has, unpacked and not installed: no service of it is wanted.
pub(super) const REDIS_EXPORTER: Language = Language {
    folder: "e2e/tools/redis-exporter",
    versions: "package.txt",
    packages: &[("python3", "python3"), ("redis-tools", "redis-cli")],
    install: |source, into| {
        let package = fs::read_to_string(source.join("package.txt"))?;
        let mut get = Command::new("apt-get");
        get.args(["download", "--quiet", package.trim()]).current_dir(into);
        if sh::run(&mut get).is_err() {
            // The lists of packages are old, or there are none yet.
            sh::run(Command::new("apt-get").arg("update"))?;
            sh::run(&mut get)?;
        }
        for entry in fs::read_dir(into)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                sh::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(into))?;
            }
        }
        Ok(())
    },
    command: |source, installed, words| {
        let mut python = Command::new("python3");
        python.arg(source.join(words[0]));
        python.arg(installed.join("usr/bin/prometheus-redis-exporter"));
        Ok(python)
    },
};
