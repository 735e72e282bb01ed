"""The self-test of a fork server: attacks from inside, tried before the server receives any program."""

from __future__ import annotations

SECRET = "RLFRAME_SANDBOX_SELFTEST"

# Reads the worker's process number and folders of packages from stdin. Prints "closed", or the names of the attacks
# that succeeded.
PROBES = f"""
import os, socket

def opens(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags | os.O_CREAT if flags != os.O_RDONLY else flags, 0o600))

def connects(family, address):
    socket.socket(family, socket.SOCK_STREAM).connect(address)

parent, folders = int(input()), input().split(os.pathsep)

def opens_pipe_of_server():
    for number in range(64):
        try:
            return opens(f"/proc/{{os.getppid()}}/fd/{{number}}", os.O_RDONLY)
        except OSError:
            continue
    raise PermissionError

def lists_packages():
    for folder in folders:
        try:
            return os.listdir(folder)
        except OSError:
            continue
    raise PermissionError

probes = {{
    "reads /etc/passwd": lambda: opens("/etc/passwd"),
    "reads /proc": lambda: opens(f"/proc/{{parent}}/environ"),
    "opens a pipe of its server": opens_pipe_of_server,
    "reads packages": lists_packages,
    "reads its own environment": lambda: opens("/proc/self/environ"),
    "writes /tmp": lambda: opens("/tmp/rlframe-selftest", os.O_WRONLY),
    "writes /dev/shm": lambda: opens("/dev/shm/rlframe-selftest", os.O_WRONLY),
    "makes a socket": lambda: connects(socket.AF_INET, ("127.0.0.1", 9)),
    "makes a Unix socket": lambda: connects(socket.AF_UNIX, "\\0rlframe"),
    "forks": lambda: os.fork() or os._exit(0),
    "starts a program": lambda: os.execv("/bin/true", ["true"]),
    "signals": lambda: os.kill(parent, 0),
    "has an environment": lambda: 1 / (not ({SECRET!r} in os.environ)),
}}
open_doors = []
for name, probe in probes.items():
    try:
        probe()
        if name != "has an environment":
            open_doors.append(name)
    except OSError:
        pass
    except ZeroDivisionError:
        open_doors.append(name)
print("open: " + ", ".join(open_doors) if open_doors else "closed")
"""
