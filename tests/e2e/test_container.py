"""The container's runtime stage has the packages of every library that the program needs."""
import pathlib
import re
import shutil
import subprocess

import pytest
from conftest import BINARY

ESSENTIAL = {"libc6", "libgcc-s1", "libstdc++6"}
LOADED_LATE = {"libcurl4"}  # by dlopen, when a model comes from a store
DOCKERFILE = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "Dockerfile"


def is_debian_12():
    release = pathlib.Path("/etc/os-release").read_text()
    return 'VERSION_ID="12"' in release and "ID=debian" in release


def printed(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not (shutil.which("dpkg") and is_debian_12()), reason="the image is Debian 12's, this machine is not")
def test_the_image_has_what_the_program_needs():
    runtime = DOCKERFILE.read_text().rsplit("FROM ", 1)[1]
    installed = set(re.search(r"apt-get install -y --no-install-recommends(.*?)&&", runtime.replace("\\\n", " "), re.S)[1].split())
    needed, places = set(), {}
    for file in (BINARY, str(pathlib.Path(BINARY).parent / "spillway_grpc.so")):
        needed |= set(re.findall(r"NEEDED.*\[(.+)\]", printed("readelf", "-d", file)))
        places |= dict(re.findall(r"(\S+) => (\S+)", printed("ldd", file)))
        assert f"COPY --from=build /src/build/release/{pathlib.Path(file).name} " in runtime
    packages = set()
    for name in needed:
        if name not in places:
            continue  # the loader
        path = str(pathlib.Path(places[name]).resolve())
        found = subprocess.run(["dpkg", "-S", path, path.removeprefix("/usr")], capture_output=True, text=True).stdout
        assert found, f"{name} ({path}) is of no package"
        packages.add(found.split(":", 1)[0])
    packages |= LOADED_LATE
    assert packages - ESSENTIAL <= installed, f"lacking: {packages - ESSENTIAL - installed}"
    wanted_not = {package for package in installed if package.startswith("lib")} - packages
    assert not wanted_not, f"not needed: {wanted_not}"


def test_what_the_stack_mounts_belongs_to_the_programs_user():
    """A new named volume takes the owner of the image's folder; without that folder it would be root's."""
    compose = (DOCKERFILE.parent / "docker-compose.yml").read_text()
    ours = compose[compose.index("  spillway:"):compose.index("  prometheus:")]
    mounted = re.findall(r"^      - \w+:(/\S+)$", ours, re.M)
    made = re.search(r"install -d -o spillway -g spillway (.+)", DOCKERFILE.read_text())[1].split()
    assert mounted == made


def test_a_build_folder_of_the_host_stays_out():
    ignored = (DOCKERFILE.parents[1] / ".dockerignore").read_text().split("\n")
    assert {"build", ".git", ".venv"} <= set(ignored)
