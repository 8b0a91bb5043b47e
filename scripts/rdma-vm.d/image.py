"""The guest's kernel and initial file system, made once and kept in a cache folder that all clones share."""

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What the guest's set-up needs; their dependencies come along. rdma_rxe needs crc32_generic at run time only.
MODULES = ("crc32_generic crc32c_generic 9p 9pnet_virtio virtio_pci virtio_net virtio_console overlay veth dummy rdma_rxe "
           "ib_uverbs rdma_ucm").split()


class Failed(Exception):
    """Something needed is missing; the text says what to do."""


def call(*command, cwd=None):
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Failed(f"{command[0]} is missing: run scripts/install-dependencies") from error
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def cache_folder(project):
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", ""), ".cache")
    for folder in (Path(base) / "sluice", project / "build"):
        try:
            (folder / "rdma-vm").mkdir(parents=True, exist_ok=True)
            if os.access(folder / "rdma-vm", os.W_OK):
                return folder / "rdma-vm"
        except OSError:
            pass
    raise Failed(f"neither {base}/sluice nor {project}/build can be written")


def prepare(project):
    """Paths of the kernel and the initial file system."""
    if not all(shutil.which(p) for p in ("qemu-system-x86_64", "depmod", "modprobe", "rdma", "ibv_devinfo")):
        if subprocess.run([project / "scripts/install-dependencies"], stdout=sys.stderr, check=False).returncode != 0:
            raise Failed("the packages it needs could not be installed")
    recipe = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in ("image.py", "init", "session")))
    cache = cache_folder(project)
    made = cache / recipe.hexdigest()[:16]
    with open(cache / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                build(Path(scratch), kernel_package(cache))
                (Path(scratch) / "image").rename(made)
    return made / "vmlinux", made / "initrd"


def kernel_package(cache):
    """Debian's kernel as a file, the newest that was ever fetched."""
    found = sorted(cache.glob("linux-image-*.deb"), key=os.path.getmtime)
    if found:
        return found[-1]
    print("rdma-vm: fetching Debian's kernel package (70 MB, once)", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        try:
            download(scratch)
        except Failed:  # the package lists are missing or old
            as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
            call(*as_root, "apt-get", "update")
            download(scratch)
        package = next(Path(scratch).glob("linux-image-*.deb"))
        return package.rename(cache / package.name)


def download(folder):
    listed = call("apt-cache", "depends", "linux-image-amd64")
    name = re.search(r"Depends: (linux-image-\S+)", listed)
    if not name:
        raise Failed("apt knows no package linux-image-amd64: run apt-get update")
    call("apt-get", "download", name.group(1), cwd=folder)


def build(scratch, package):
    root = scratch / "root"
    call("dpkg-deb", "-x", package, root)
    version = next((root / "lib/modules").iterdir()).name
    call("depmod", "-b", root, version)
    image = scratch / "image"
    image.mkdir()
    (image / "vmlinux").write_bytes(uncompressed((root / f"boot/vmlinuz-{version}").read_bytes()))

    tree = scratch / "tree"
    (tree / "modules").mkdir(parents=True)
    (tree / "bin").mkdir()
    order = []
    for name in MODULES:
        for line in call("modprobe", "-d", root, "-S", version, "--show-depends", name).splitlines():
            path = Path(line.split()[1]) if line.startswith("insmod ") else None
            if path and path.name not in order:
                order.append(path.name)
                shutil.copy(path, tree / "modules")
    (tree / "modules/order").write_text("".join(f"{name}\n" for name in order))
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for name in ("init", "session"):
        shutil.copy(HERE / name, tree / name)
    (tree / "init").chmod(0o755)
    (image / "initrd").write_bytes(archive(tree))


def uncompressed(kernel):
    """The ELF file in a bzImage: an emulated processor takes seconds to unpack it."""
    at = kernel.find(b"\xfd7zXZ\x00")
    if at >= 0:
        try:
            return lzma.LZMADecompressor().decompress(kernel[at:])
        except lzma.LZMAError:
            pass
    return kernel


def archive(folder):
    """The folder as cpio, as the kernel takes it; archives may be put one behind the other."""
    names = "".join(f"{path.relative_to(folder)}\0" for path in sorted(folder.rglob("*")))
    done = subprocess.run(["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"], cwd=folder,
                          input=names.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(f"cpio failed: {done.stderr.decode()}")
    return done.stdout
