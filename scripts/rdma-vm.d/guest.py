"""One or two guests: started, listened to, and taken down in bounded time."""

import ctypes
import os
import re
import secrets
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import image

TIMED_OUT = 124
DIED = 125
PASSED_ON = re.compile(r"(SLUICE|GTEST)_\w+\Z")
CONSOLE_LINES = 30


class Stream:
    """One of the command's outputs: from a socket to a file descriptor, up to the token that ends it."""

    def __init__(self, connection, to, token, prefix):
        self.connection = connection
        self.to = to
        self.token = token
        self.prefix = prefix
        self.held = b""
        self.ended = False

    def read(self):
        data = self.connection.recv(1 << 16)
        self.held += data
        at = self.held.find(self.token)
        if at >= 0 or not data:
            self.ended = True
            self.emit(self.held[:at] if at >= 0 else self.held, last=True)
            self.held = b""
            return
        keep = next((n for n in range(min(len(self.token) - 1, len(self.held)), 0, -1)
                     if self.held.endswith(self.token[:n])), 0)
        ready, self.held = self.held[:len(self.held) - keep], self.held[len(self.held) - keep:]
        rest = self.emit(ready, last=False)
        self.held = rest + self.held

    def emit(self, data, last):
        """Writes what can be written; with a prefix those are whole lines. Returns the rest."""
        rest = b""
        if self.prefix:
            lines = data.splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                if last:
                    lines[-1] += b"\n"
                else:
                    rest = lines.pop()
            data = b"".join(self.prefix + line for line in lines)
        view = memoryview(data)
        while view:
            view = view[os.write(self.to, view):]
        return rest


class Guest:
    """A machine and its three ports: the command's outputs and its status."""

    def __init__(self, rank, options, project, kernel, initrd, folder, wire):
        self.rank = rank
        self.status = None
        self.token = secrets.token_hex(16).encode()
        self.console = folder / f"console{rank}"
        prefix = f"[{rank}] ".encode() if options.guests > 1 else b""
        own = folder / f"initrd{rank}"
        own.write_bytes(initrd.read_bytes() + self.session(folder, options, project))
        listeners = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for number, listener in enumerate(listeners, 1):
            listener.bind(str(folder / f"port{rank}.{number}"))
            listener.listen(1)
            listener.settimeout(30)
        self.process = subprocess.Popen(self.machine(options, kernel, own, folder, wire), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=open(folder / f"qemu{rank}", "wb"),
                                        pass_fds=[wire.fileno()] if wire else [], preexec_fn=end_with_parent)
        self.qemu_log = folder / f"qemu{rank}"
        self.streams, self.control, self.reported = [], None, b""
        try:
            connections = [listener.accept()[0] for listener in listeners]
        except TimeoutError as error:
            self.process.kill()
            raise image.Failed(f"qemu-system-x86_64 did not start: {self.log()}") from error
        finally:
            for listener in listeners:
                listener.close()
        self.streams = [Stream(connections[0], 1, self.token, prefix), Stream(connections[1], 2, self.token, prefix)]
        self.control = connections[2]

    def session(self, folder, options, project):
        """What differs from run to run, as a second archive behind the cached one."""
        tree = folder / f"tree{self.rank}"
        tree.mkdir()
        (tree / "run.env").write_text(f"project={shlex.quote(str(project))} guests={options.guests} rank={self.rank} "
                                      f"token={self.token.decode()}\n")
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(os.environ.items())
                          if PASSED_ON.match(name) and not name.startswith("SLUICE_RDMA_"))
        (tree / "command").write_text(f"{exports}{shlex.join(options.command)}\n")
        return image.archive(tree)

    def machine(self, options, kernel, initrd, folder, wire):
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
                   "-machine", "q35,usb=off,smbus=off,sata=off,hpet=off", "-accel", "tcg,thread=multi", "-cpu", "max",
                   "-smp", str(options.cpus), "-m", f"{options.memory}M", "-kernel", str(kernel), "-initrd", str(initrd),
                   "-append", "console=ttyS0 panic=-1 quiet random.trust_cpu=on tsc=reliable",
                   "-serial", f"file:{self.console}", "-device", "virtio-rng-pci",
                   "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
                   "-device", "virtio-serial-pci"]
        for number in (1, 2, 3):
            command += ["-chardev", f"socket,id=p{number},path={folder}/port{self.rank}.{number}",
                        "-device", f"virtserialport,chardev=p{number},nr={number}"]
        if wire:
            command += ["-netdev", f"dgram,id=wire,local.type=fd,local.str={wire.fileno()}",
                        "-device", f"virtio-net-pci,netdev=wire,host_mtu=9000,romfile=,mac=52:54:00:00:0b:0{self.rank + 1}"]
        return command

    def handle_control(self):
        data = self.control.recv(64)
        self.reported += data
        if self.reported.endswith(b"\n"):
            self.status = int(self.reported)
        elif not data:
            self.status = DIED

    def done(self):
        return self.status is not None and all(stream.ended for stream in self.streams)

    def log(self):
        return self.qemu_log.read_text(errors="replace").strip()[-2000:]

    def tail(self):
        """The console's last lines, without terminal control."""
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        text = re.sub(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1bc|\r", "", text)
        return "\n".join((text + self.log()).splitlines()[-CONSOLE_LINES:])

    def kill(self):
        self.process.kill()
        self.process.wait()


def end_with_parent():
    """Runs in the child: no guest outlives this script, however it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def listen(guests, deadline):
    """Until every guest is done, has died, or the time is up."""
    with selectors.DefaultSelector() as selector:
        for guest in guests:
            for stream in guest.streams:
                selector.register(stream.connection, selectors.EVENT_READ, (guest, stream))
            selector.register(guest.control, selectors.EVENT_READ, (guest, None))
        while not all(guest.done() for guest in guests):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for key, _ in selector.select(min(left, 1)):
                guest, stream = key.data
                if stream:
                    stream.read()
                    finished = stream.ended
                else:
                    guest.handle_control()
                    finished = guest.status is not None
                if finished:
                    selector.unregister(key.fileobj)
                if guest.done():
                    guest.kill()


def wire_ends():
    """Whole frames. A full wire is back-pressure, as a switch with flow control is; what is sent to a guest that is gone is
    lost, as on any wire (a stream's end would stall the survivor's card instead)."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ends


def run(options, project, kernel, initrd):
    """The exit status: the command's, of the first guest that failed."""
    deadline = time.monotonic() + options.timeout
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wires = wire_ends() if options.guests == 2 else (None,)
    guests = []
    with tempfile.TemporaryDirectory(prefix="rdma-vm-", dir="/tmp") as name:
        try:
            for rank in range(options.guests):
                guests.append(Guest(rank, options, project, kernel, initrd, Path(name), wires[rank]))
            for wire in filter(None, wires):
                wire.close()
            listen(guests, deadline)
            return verdict(guests, options)
        finally:
            for guest in guests:
                guest.kill()


def verdict(guests, options):
    for guest in guests:
        if not guest.done():
            guest.status = TIMED_OUT
        problem = {TIMED_OUT: f"no end after {options.timeout:g} s", DIED: "the guest died"}.get(guest.status)
        if problem and not guest.reported or options.console:
            print(f"rdma-vm: guest {guest.rank}: {problem or 'done'}; the end of its console:\n{guest.tail()}",
                  file=sys.stderr, flush=True)
    return next((guest.status for guest in guests if guest.status != 0), 0)
