"""Brings the sources of other projects' packages, with the tests inside, from their registries: each once, at its version.

It knows package managers and no test. What is brought stays as it came; `lay_out` makes the copy that tests run in.
"""

import json
import shutil
from pathlib import Path

import install
import shell
from paths import INSTALLED, ROOT, VENV_PYTHON

PEERS = INSTALLED / "peers"
# What lies over a package's own files: a module it left out of its tests, the versions its dependencies are held at.
OVERLAYS = ROOT / "ci" / "peers"


def _once(name, make):
    """The folder `name`, which `make(folder)` fills; half of one is never seen."""
    folder, part = PEERS / name, PEERS / f"{name}.part"
    with install.ONE_AT_A_TIME:
        if not folder.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            make(part)
            part.rename(folder)
    return folder


def from_pypi(package, version):
    install.python()

    def make(folder):
        pip = [VENV_PYTHON, "-m", "pip", "download", "--disable-pip-version-check", "-q", "--no-deps"]
        command = [*pip, "--no-binary", package, "-d", folder, f"{package}=={version}"]
        shell.must_run(command, install.log("peers"), 300)
        (archive,) = folder.glob("*.tar.gz")
        shutil.unpack_archive(archive, folder)
        archive.unlink()
        _only_folder_up(folder)

    return _once(f"{package}-{version}", make)


def from_crates(crate, version):
    def make(folder):
        # Cargo unpacks only what something depends on.
        (folder / "none.rs").touch()
        manifest = folder / "Cargo.toml"
        package = '[workspace]\n[package]\nname = "none"\nedition = "2021"\n[lib]\npath = "none.rs"\n'
        manifest.write_text(f'{package}[dependencies]\n{crate} = "={version}"\n')
        shell.must_run(["cargo", "fetch", "--quiet", "--manifest-path", manifest], install.log("peers"), 600)
        metadata = folder / "metadata.json"
        command = f'cargo metadata --format-version 1 --offline --manifest-path "{manifest}" > "{metadata}"'
        shell.must_run(["sh", "-c", command], install.log("peers"), 120)
        packages = json.loads(metadata.read_text())["packages"]
        (source,) = [Path(p["manifest_path"]).parent for p in packages if (p["name"], p["version"]) == (crate, version)]
        for made in folder.iterdir():
            made.unlink()
        shutil.copytree(source, folder, dirs_exist_ok=True)
        # The compiler is the one that is here.
        for pinned in folder.glob("rust-toolchain*"):
            pinned.unlink()
        # Not of the workspace that it lies in.
        with (folder / "Cargo.toml").open("a") as f:
            f.write("\n[workspace]\n")

    return _once(f"{crate}-{version}", make)


def from_go(module, version):
    install.need("go")

    def make(folder):
        told = folder / "told.json"
        # Outside of any module, so that none is asked what it depends on.
        command = f'cd "{folder}" && go mod download -json {module}@{version} > "{told}"'
        shell.must_run(["sh", "-c", command], install.log("peers"), 300)
        source = json.loads(told.read_text())["Dir"]
        told.unlink()
        # Go keeps its copy read-only.
        shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)

    return _once(f"{module.split('/')[-1]}-{version}", make)


def lay_out(name, source):
    """A fresh copy of `source` to run tests in, with the files of this tree's own laid over."""
    folder = PEERS / f"{source.name}.run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    if (OVERLAYS / name).exists():
        shutil.copytree(OVERLAYS / name, folder, dirs_exist_ok=True)
    return folder


def _only_folder_up(folder):
    (inner,) = folder.iterdir()
    for path in list(inner.iterdir()):
        path.rename(folder / path.name)
    inner.rmdir()
