"""Run what replay.py built as a container engine would, for check.sh, and hold it to what docs/operations.md says."""

# ruff: noqa: T201 - a script that tells what it found

import json
import sys
from pathlib import Path

from engine import Spec, container, done_well, new_volume, require, show_confinement

PERMISSION = {"KEYSTOW_LISTEN_INSECURELY_BEYOND_LOOPBACK": "true"}
EXIT_USAGE = 2  # of keystow-service


def main() -> None:
    """Arguments: image.json, a folder for the volume, which is made as the image has it."""
    image, folder = map(Path, sys.argv[1:])
    said = json.loads(image.read_text(encoding="utf-8"))
    (place,) = said["VOLUME"]
    mounts = {place: new_volume(folder, Path(said["root"] + place))}
    log = folder.with_suffix(".log")
    exercise = Path(__file__).with_name("exercise.py")

    with container(Spec.of_image(image, {}, mounts), log) as mute:
        require(mute.ended() == EXIT_USAGE, f"it did not refuse to start: {mute.output}")
        require("listen_insecurely_beyond_loopback" in mute.output, "it does not say what it lacks")
    print("  without permission to listen in clear it does not start, and says so")
    spec = Spec.of_image(image, PERMISSION, mounts)
    with container(spec, log) as running:
        running.await_health()
        show_confinement(running)
        version = running.execute("python", "-c", "import importlib.metadata as m; print(m.version('keystow-service'))")
        require(version.stdout.strip() == said["LABEL"]["org.opencontainers.image.version"], "the label's version")
        done_well(running.execute("python", "-", "store", stdin=exercise))
        done_well(running.execute("python", "-", "fetch", stdin=exercise))
        running.stop()
    print("  another one on the same volume:")
    with container(spec, log) as running:
        running.await_health()
        done_well(running.execute("python", "-", "fetch", stdin=exercise))
        done_well(running.execute("keystow-service", "keys", "create", "--region=us-east-1", "--tenant=globex"))
        running.stop()


main()
