"""The container's runtime stage has the packages of every library that the program needs."""
import pathlib
import re
import shutil
import subprocess

import pytest
from conftest import BINARY

ESSENTIAL = {"libc6", "libgcc-s1", "libstdc++6"}
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
    assert packages - ESSENTIAL <= installed, f"lacking: {packages - ESSENTIAL - installed}"
    wanted_not = {package for package in installed if package.startswith("lib")} - packages
    assert not wanted_not, f"not needed: {wanted_not}"
