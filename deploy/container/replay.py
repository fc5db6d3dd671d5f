"""Carry out a Dockerfile without Docker, for check.sh: an overlay over one base root per stage, a chroot per RUN.

It knows what our Dockerfile uses, and stops at anything else rather than skip it. Files that .dockerignore leaves out
of the context are not there for COPY. Runs as root in a mount namespace of its own, where the last stage stays mounted.
"""

# ruff: noqa: S603, S607, T201 - a script that runs the system's commands and tells what it does

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# How this machine reaches package registries; Docker passes the proxies too. Nothing of it stays in the image.
PASSED = re.compile(r"PIP_\w+|(https?|no)_proxy", re.IGNORECASE)
SINGLE = frozenset({"USER", "STOPSIGNAL", "EXPOSE"})
LISTS = frozenset({"ENTRYPOINT", "CMD", "VOLUME", "HEALTHCHECK"})


@dataclass(slots=True)
class Stage:
    """A root under construction, its variables, and what the image says of itself."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH, "LANG": "C.UTF-8"})
    arguments: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=lambda: {"LABEL": {}})

    def inside(self, path: str) -> Path:
        """Where the stage's path is in this machine's file system."""
        return self.root / path.lstrip("/")


class Replay:
    """One Dockerfile, over one base root that stands for the image of its FROM lines."""

    def __init__(self, context: Path, base: Path, work: Path) -> None:
        self._context = context
        self._base = base
        self._work = work
        self._ignored = read_ignored(context / ".dockerignore")
        self._outer: dict[str, str] = {}
        self._stages: dict[str, Stage] = {}

    def run(self) -> Stage:
        """Every instruction, in order; gives the last stage."""
        stage: Stage | None = None
        for name, flags, rest in instructions((self._context / "Dockerfile").read_text(encoding="utf-8")):
            print(f"  {name} {' '.join((*flags, rest))[:150]}", flush=True)
            if name == "FROM":
                stage = self._begin(rest)
            elif stage is None:
                if name != "ARG":
                    raise SystemExit(f"{name} before FROM")
                argument, _, value = rest.partition("=")
                self._outer[argument] = value
            else:
                self._step(stage, name, flags, rest)
        if stage is None:
            raise SystemExit("there is no FROM")
        return stage

    def _begin(self, rest: str) -> Stage:
        image, _, name = Template(rest).substitute(self._outer).partition(" AS ")
        if image != self._outer["PYTHON_IMAGE"]:
            raise SystemExit(f"the base root does not stand for {image}")
        name = name or "image"
        folders = [self._work / name / each for each in ("upper", "scratch", "root")]
        for folder in folders:
            folder.mkdir(parents=True)
        upper, scratch, root = folders
        options = f"lowerdir={self._base},upperdir={upper},workdir={scratch}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
        self._stages[name] = Stage(root)
        return self._stages[name]

    def _step(self, stage: Stage, name: str, flags: list[str], rest: str) -> None:
        match name:
            case "RUN":
                self._run(stage, flags, rest)
            case "COPY":
                self._copy(stage, flags, rest)
            case "ENV" | "ARG" | "LABEL":
                known = {**stage.arguments, **stage.environment}
                pairs = dict(each.split("=", 1) for each in shlex.split(Template(rest).substitute(known)))
                target = {"ENV": stage.environment, "ARG": stage.arguments, "LABEL": stage.config["LABEL"]}[name]
                target.update(pairs)
            case _ if name in SINGLE:
                stage.config[name] = rest
            case _ if name in LISTS:
                command = rest.removeprefix("CMD ")
                if not command.startswith("["):
                    raise SystemExit(f"{name} needs a shell; write it as a JSON list")
                stage.config[name] = json.loads(command)
            case _:
                raise SystemExit(f"replay.py does not know {name}")

    def _run(self, stage: Stage, flags: list[str], command: str) -> None:
        passed = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
        environment = {"HOME": "/root", **passed, **stage.arguments, **stage.environment}
        with ExitStack() as mounts:
            mounts.enter_context(mounted(["-t", "proc", "proc"], stage.inside("/proc")))
            for flag in flags:
                mount = dict(each.split("=", 1) for each in flag.removeprefix("--mount=").split(","))
                if mount.pop("type") != "bind":
                    raise SystemExit(f"replay.py does not know {flag}")
                source = self._stages[mount["from"]].inside(mount["source"])
                mounts.enter_context(mounted(["--bind", "-o", "ro", str(source)], stage.inside(mount["target"])))
            chroot = ["unshare", f"--root={stage.root}", "--wd=/", "--", "/bin/sh", "-c", command]
            done = subprocess.run(
                chroot,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            raise SystemExit(f"{done.stdout.decode()}\nexit code {done.returncode}")

    def _copy(self, stage: Stage, flags: list[str], rest: str) -> None:
        *sources, destination = rest.split()
        origin = self._context
        for flag in flags:
            origin = self._stages[flag.removeprefix("--from=")].root
        for source in sources:
            path, target = origin / source.lstrip("/"), stage.inside(destination)
            if path.is_dir():
                shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True, ignore=self._ignore(origin))
                continue
            if self._left_out(origin, path):
                raise SystemExit(f".dockerignore leaves out {source}")
            if destination.endswith("/"):
                target /= path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)

    def _ignore(self, origin: Path) -> Any:
        return lambda folder, names: {name for name in names if self._left_out(origin, Path(folder) / name)}

    def _left_out(self, origin: Path, path: Path) -> bool:
        """Whether .dockerignore leaves the path out: the last pattern that fits it or a folder above it decides."""
        if origin != self._context:
            return False
        relative = path.relative_to(origin)
        names = [str(each) for each in (relative, *relative.parents)]
        found = False
        for pattern, leaves_out in self._ignored:
            if any(pattern.fullmatch(name) for name in names):
                found = leaves_out
        return found


def instructions(text: str) -> Iterator[tuple[str, list[str], str]]:
    """Name, flags and the rest of each instruction, lines joined as Docker joins them."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, rest = line.split(None, 1)
        flags = []
        while rest.startswith("--"):
            flag, rest = rest.split(None, 1)
            flags.append(flag)
        yield name, flags, rest


def read_ignored(path: Path) -> list[tuple[re.Pattern[str], bool]]:
    """The patterns of .dockerignore, in order, and whether each leaves out or brings back."""
    patterns = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in (each for each in lines if each and not each.startswith("#")):
        expression = re.escape(line.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        patterns.append((re.compile(expression), not line.startswith("!")))
    return patterns


@contextmanager
def mounted(arguments: list[str], target: Path) -> Iterator[None]:
    """A mount for the length of the block; leaves no folder behind that it made."""
    made = not target.exists()
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", *arguments, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)
        if made:
            target.rmdir()


def main() -> None:
    """Arguments: the context with its Dockerfile, the base root, a folder for the stages. Writes image.json there."""
    context, base, work = map(Path, sys.argv[1:])
    stage = Replay(context, base, work).run()
    described = {"root": str(stage.root), "environment": stage.environment, **stage.config}
    (work / "image.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


main()
